"""Samples as small pictures inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from PIL.Image import Image

    from vit_deploy.parity.inputs import Picture
    from vit_deploy.report.records import SampleEvidence

SIDE = 128
"""The longest side in pixels: shown at half of that on a fine screen."""

_PNG_BYTES = 6_000


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int
    coarse: bool
    """Whether it is shown larger than it is, so that its pixels should stay squares."""


def picture_of(sample: SampleEvidence, pictures: Mapping[Any, Picture]) -> Picture | None:
    """The picture of a sample, by its place among the samples or else by its name."""
    found = pictures.get(sample.index) if sample.index is not None else None
    return pictures.get(sample.name) if found is None else found


def thumbnail(picture: Picture) -> Thumbnail | None:
    """A small picture; ``None`` for what is no picture.

    Args:
        picture: uint8 ``(h, w, c)`` or ``(h, w)``; of more than three channels the first three are shown.
    """
    image = _image(picture)
    if image is None:
        return None
    width, height = image.size
    if max(width, height) > SIDE:
        image.thumbnail((SIDE, SIDE))
    return Thumbnail(_encoded(image), *image.size, coarse=max(width, height) < SIDE)


def _image(picture: Picture) -> Image | None:
    from PIL import Image

    if picture.ndim == 2:
        picture = picture[:, :, None]
    if picture.ndim != 3 or 0 in picture.shape or picture.dtype.name != "uint8":
        return None
    channels = 3 if picture.shape[2] >= 3 else 1
    return Image.fromarray(picture[:, :, 0] if channels == 1 else picture[:, :, :3].copy())


def _encoded(image: Image) -> str:
    """PNG keeps flat colours and hard edges in few bytes; what it cannot is a photograph's, for JPEG."""
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 82})):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        if kind == "jpeg" or buffer.tell() <= _PNG_BYTES:
            break
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
