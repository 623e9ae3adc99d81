"""Which image sizes an artefact can be made for at once, and why a model may have but one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.errors import UsageFailed
from vit_deploy.spec import SizeRange, size_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.model.config import ViTConfig

Size = tuple[int, int]


def size_range(
    config: ViTConfig, minimum: Size | None = None, optimum: Size | None = None, maximum: Size | None = None
) -> SizeRange:
    """The image sizes to be made for, the model's own among them.

    Args:
        config: of the model.
        minimum: half the model's own size when ``None``, in whole patches.
        optimum: the model's own when ``None``.
        maximum: twice the model's own when ``None``.

    Raises:
        UsageFailed: when the model cannot take several sizes, or the range leaves out its own.
    """
    check_dynamic(config)
    native, patch = config.image_size, config.patch_size
    half = tuple(max(patch, side // 2 // patch * patch) for side in native)
    double = tuple(2 * side for side in native)
    best = optimum or native
    sizes = SizeRange(
        minimum=minimum or _by_side(min, (half[0], half[1]), best),
        optimum=best,
        maximum=maximum or _by_side(max, (double[0], double[1]), best),
        patch_size=patch,
        step=1 if config.drop_remainder else patch,
        num_prefix_tokens=config.num_prefix_tokens,
    )
    if not sizes.holds(native):
        raise UsageFailed(
            f"the sizes from {size_text(sizes.minimum)} to {size_text(sizes.maximum)} leave out the model's "
            f"own, {size_text(native)}",
            expected="a range that holds it: an artefact is verified there first",
            next_command="widen --minShapes and --maxShapes, or leave them out",
        )
    return sizes


def _by_side(choose: Callable[[int, int], int], left: Size, right: Size) -> Size:
    return choose(left[0], right[0]), choose(left[1], right[1])


def check_dynamic(config: ViTConfig) -> None:
    """Refuse a model that cannot take several image sizes at once.

    Raises:
        UsageFailed: with the reason.
    """
    own = size_text(config.image_size)
    if config.relative_positions != "none":
        raise UsageFailed(
            "the model looks up a bias by the distance of two patches, in a table that is made for "
            f"{own} pixels and has no entries for others",
            expected="learned, rotary or no positions",
            next_command="leave --dynamic-image-size out, and export once for each --image-size",
        )
    if config.resampled_from is not None and config.positions == "learned":
        learned = size_text(config.resampled_from)
        raise UsageFailed(
            f"the positions were learned at {learned} pixels and have been resampled to {own}: "
            "a graph would resample them a second time, which their source does not",
            expected="positions as they were learned",
            next_command=f"--image-size {learned} --dynamic-image-size, from the checkpoint itself; "
            f"{own} is one of the sizes then",
        )
