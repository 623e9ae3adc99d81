"""``--minShapes``, ``--optShapes`` and ``--maxShapes`` of artefacts that take 8-bit pictures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vit_deploy.errors import UsageFailed
from vit_deploy.model.contract import IMAGES, PICTURE_SIZES
from vit_deploy.spec import BatchRange, SizeRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.model.kinds import Architecture
    from vit_deploy.spec import Contract

_FLAGS = ("--minShapes", "--optShapes", "--maxShapes")
_SHAPE = re.compile(rf"(?:{IMAGES}:)?([0-9]{{1,6}})x([0-9]{{1,6}})x([0-9]{{1,6}})x([0-9]{{1,6}})")


def picture_ranges(
    config: Architecture, contract: Contract, smallest: str, best: str, largest: str
) -> tuple[BatchRange, SizeRange | None]:
    """The batch sizes, and for ``image`` the sizes of pictures, that the flags name.

    Args:
        config: gives the channels, and for ``uint8`` the size.
        contract: ``uint8`` or ``image``.
        smallest: ``BxHxWxC`` as trtexec writes it, or nothing; so are the others.
        best: the shape to be fastest at.
        largest: the largest.

    Raises:
        UsageFailed: for a shape of another form, or that is not the model's.
    """
    texts = (smallest, best, largest)
    shapes = [_shape(flag, text, config, contract) for flag, text in zip(_FLAGS, texts, strict=True)]
    low, middle, high = (shape[0] if shape else 0 for shape in shapes)
    default = BatchRange()
    low = low or default.minimum
    high = high or max(default.maximum, low, middle)
    batch = BatchRange(low, middle or max(low, min(default.optimum, high)), high)
    if contract == "uint8":
        return batch, None
    named = [shape[1:] if shape else None for shape in shapes]
    least = named[0] or PICTURE_SIZES.minimum
    most = named[2] or _each(max, _each(max, PICTURE_SIZES.maximum, least), named[1] or least)
    usual = named[1] or _each(min, _each(max, PICTURE_SIZES.optimum, least), most)
    return batch, SizeRange(least, usual, most, patch_size=1, step=1, num_prefix_tokens=0)


def _each(choose: Callable[[int, int], int], left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
    return choose(left[0], right[0]), choose(left[1], right[1])


def _shape(flag: str, text: str, config: Architecture, contract: Contract) -> tuple[int, int, int] | None:
    """Batch, height and width of a shape; ``None`` where none is given."""
    if not text:
        return None
    height, width = config.image_size
    sides = (str(height), str(width)) if contract == "uint8" else ("H", "W")
    found = _SHAPE.fullmatch(text)
    if found:
        batch, rows, columns, channels = map(int, found.groups())
        free = contract == "image" and min(rows, columns) > 0
        if channels == config.in_channels and (free or (rows, columns) == (height, width)):
            return batch, rows, columns
    raise UsageFailed(
        f"{flag} is {text!r}",
        expected=f"{IMAGES}:Bx{sides[0]}x{sides[1]}x{config.in_channels}, with a batch size B"
        + (", a height H and a width W" if contract == "image" else ""),
    )
