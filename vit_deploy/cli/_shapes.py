"""``--minShapes``, ``--optShapes`` and ``--maxShapes``: normalised pixels, 8-bit pictures, free image sizes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vit_deploy.cli._code import module_batch_range
from vit_deploy.cli._sizes import dynamic_ranges
from vit_deploy.errors import UsageFailed
from vit_deploy.model.contract import IMAGES, PICTURE_SIZES
from vit_deploy.model.module_config import ModuleConfig
from vit_deploy.spec import BatchRange, SizeRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.model.kinds import Architecture
    from vit_deploy.spec import Contract
    from vit_deploy.weights.imported import Model

_FLAGS = ("--minShapes", "--optShapes", "--maxShapes")
_SHAPE = re.compile(rf"(?:{IMAGES}:)?([0-9]{{1,6}})x([0-9]{{1,6}})x([0-9]{{1,6}})x([0-9]{{1,6}})")


def named_ranges(
    model: Model, contract: Contract, shapes: tuple[str, str, str], *, dynamic: bool
) -> tuple[BatchRange | None, SizeRange | None, SizeRange | None]:
    """What trtexec's shapes name: the batch sizes; the sizes of pictures and of images where they are free.

    Args:
        model: whose shapes they are.
        contract: what the artefact takes.
        shapes: the smallest, the best and the largest, each as it was given or empty.
        dynamic: whether the image size is left free.

    Raises:
        UsageFailed: for a shape of another form, or that is not the model's.
    """
    if dynamic:
        batch, sizes = dynamic_ranges(model.vit_config, contract, *shapes)
        return batch, None, sizes
    if contract == "pixel_values" or isinstance(model.config, ModuleConfig):
        return batch_range(model.config, *shapes), None, None
    return *picture_ranges(model.config, contract, *shapes), None


def batch_range(config: Architecture, smallest: str, best: str, largest: str) -> BatchRange | None:
    """The batch sizes that trtexec's shapes name; the rest of a shape must be the model's own.

    ``None`` where none is named and the model decides.

    Raises:
        UsageFailed: for a shape that is not ``BxCxHxW`` or is not the model's.
    """
    if isinstance(config, ModuleConfig):
        return module_batch_range(config, smallest, best, largest)
    default = BatchRange()
    low = _batch_of("--minShapes", smallest, config) or default.minimum
    high = _batch_of("--maxShapes", largest, config)
    middle = _batch_of("--optShapes", best, config)
    high = high or max(default.maximum, low, middle or 0)
    return BatchRange(low, middle or max(low, min(default.optimum, high)), high)


def _batch_of(flag: str, text: str, config: Architecture) -> int:
    if not text:
        return 0
    channels, (height, width) = config.in_channels, config.image_size
    found = re.fullmatch(r"(?:pixel_values:)?(\d+)x(\d+)x(\d+)x(\d+)", text)
    if not found or tuple(map(int, found.groups()[1:])) != (channels, height, width):
        raise UsageFailed(
            f"{flag} is {text!r}", expected=f"pixel_values:Bx{channels}x{height}x{width}, with a batch size B"
        )
    return int(found.group(1))


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
