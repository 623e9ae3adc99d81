"""``--image-size`` and ``--dynamic-image-size``, and the shapes of artefacts whose image size is free."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.errors import UsageFailed
from vit_deploy.model.contract import IMAGES
from vit_deploy.model.sizes import size_range
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.spec import Contract, SizeRange

_FLAGS = ("--minShapes", "--optShapes", "--maxShapes")
_SIDE = r"[1-9][0-9]{0,5}"
_ORDERS = {"pixel_values": ("pixel_values", "BxCxHxW"), "uint8": (IMAGES, "BxHxWxC")}


class ImageSize(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``384``, or ``224x448``: height, then width."""

    name = "image size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """``(height, width)``."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(rf"({_SIDE})(?:x({_SIDE}))?", str(value))
        if not found:
            self.fail(f"{value!r} is no image size: 384, or 224x448 for height x width", param, ctx)
        return int(found[1]), int(found[2] or found[1])


image_size_option: Callable[[Any], Any] = click.option(
    "--image-size",
    type=ImageSize(),
    metavar="SIDE|HxW",
    help="The image size, for which positions are resampled as the checkpoint's own library does it: 384, or "
    "224x448 for height x width.  [default: the checkpoint's]",
)

dynamic_option: Callable[[Any], Any] = click.option(
    "--dynamic-image-size",
    "dynamic",
    is_flag=True,
    help="Leave height and width free: positions are resampled, or computed, in the artefact. "
    "--minShapes to --maxShapes say in which range.  [default: half to twice the model's own]",
)


def dynamic_ranges(
    config: ViTConfig, contract: Contract, smallest: str, best: str, largest: str
) -> tuple[BatchRange, SizeRange]:
    """The batch sizes and the image sizes that trtexec's shapes name.

    Args:
        config: of the model.
        contract: gives the order of the dimensions.
        smallest: ``BxCxHxW``, or ``BxHxWxC`` of 8-bit pictures; nothing for the default. So are the others.
        best: the shape to be fastest at.
        largest: the largest.

    Raises:
        UsageFailed: for a shape of another form, or a model that cannot take several sizes.
    """
    texts = zip(_FLAGS, (smallest, best, largest), strict=True)
    shapes = [_shape(flag, text, config, contract) for flag, text in texts]
    low, middle, high = (shape[0] if shape else 0 for shape in shapes)
    default = BatchRange()
    low = low or default.minimum
    high = high or max(default.maximum, low, middle)
    batch = BatchRange(low, middle or max(low, min(default.optimum, high)), high)
    return batch, size_range(config, *(shape[1:] if shape else None for shape in shapes))


def _shape(flag: str, text: str, config: ViTConfig, contract: Contract) -> tuple[int, int, int] | None:
    """Batch, height and width of a shape; ``None`` where none is given."""
    if not text:
        return None
    name, order = _ORDERS.get(contract, _ORDERS["uint8"])
    found = re.fullmatch(rf"(?:{name}:)?({_SIDE})x({_SIDE})x({_SIDE})x({_SIDE})", text)
    sizes = dict(zip(order.split("x"), map(int, found.groups()), strict=True)) if found else {}
    if sizes.get("C") != config.in_channels:
        raise UsageFailed(
            f"{flag} is {text!r}",
            expected=f"{name}:{order.replace('C', str(config.in_channels))}, with a batch size B, a height H "
            "and a width W",
        )
    return sizes["B"], sizes["H"], sizes["W"]
