"""What a :class:`~vit_deploy.model.preprocess.Preprocessing` must satisfy, and what refuses what does not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed
from vit_deploy.model.fields import shown
from vit_deploy.model.images import MAX_PIXELS

if TYPE_CHECKING:
    from vit_deploy.model.preprocess import Preprocessing

_RESIZES = ("exact", "shortest_edge", "cover")
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""In the order of Pillow's numbers, which is how transformers writes them."""

MAX_SIDE = 65_500
"""Longest side that a resized picture may have: Pillow's and JPEG's own limit."""


def check_preprocessing(recipe: Preprocessing) -> None:
    """Refuse a recipe that no picture can be made with.

    Raises:
        ImportFailed: saying what was found and what was expected.
    """
    require(recipe.resize in _RESIZES, f"resize={recipe.resize!r}", f"one of {', '.join(_RESIZES)}")
    require(
        recipe.interpolation in INTERPOLATIONS,
        f"interpolation={recipe.interpolation!r}",
        f"one of {', '.join(INTERPOLATIONS)}",
    )
    require(recipe.crop_rounding in {"even", "down"}, f"crop_rounding={recipe.crop_rounding!r}", "even or down")
    _check_sizes(recipe)
    _check_numbers(recipe)


def _check_sizes(recipe: Preprocessing) -> None:
    require(
        len(recipe.image_size) == len(recipe.resize_size) == 2 and min(recipe.image_size) >= 1,
        f"image_size={recipe.image_size} and resize_size={recipe.resize_size}",
        "height and width, at least 1",
    )
    require(
        max(recipe.resize_size) <= MAX_SIDE and math.prod(recipe.resize_size) <= MAX_PIXELS,
        f"resize_size={shown(recipe.resize_size)}",
        f"sides of at most {MAX_SIDE} pixels, and at most {MAX_PIXELS:,} pixels in all",
    )
    require(
        all(inner <= outer for inner, outer in zip(recipe.image_size, recipe.resize_size, strict=True)),
        f"a crop of {recipe.image_size} out of a picture of {recipe.resize_size}",
        "a crop that is no larger than what it is cut from",
    )
    require(
        recipe.resize != "shortest_edge" or recipe.resize_size[0] == recipe.resize_size[1],
        f"resize=shortest_edge to {recipe.resize_size}",
        "one number for both sides",
    )


def _check_numbers(recipe: Preprocessing) -> None:
    require(
        len(recipe.mean) == len(recipe.std) >= 1, f"mean={recipe.mean} and std={recipe.std}", "one per channel"
    )
    require(recipe.crop_pct is None or 0 < recipe.crop_pct <= 1, f"crop_pct={recipe.crop_pct}", "0 to 1")
    numbers = (*recipe.mean, *recipe.std, recipe.rescale_factor)
    require(
        all(map(math.isfinite, numbers)) and all(recipe.std),
        f"mean={recipe.mean}, std={recipe.std}, rescale_factor={recipe.rescale_factor}",
        "finite numbers, and no std of 0",
    )


def per_channel(name: str, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """``values`` as one per channel; one stands for all, and for grey three that are the same do.

    Raises:
        ImportFailed: when they do not fit.
    """
    if len(values) == channels:
        return values
    if len(values) == 1 or (channels == 1 and len(set(values)) == 1):
        return values[:1] * channels
    raise ImportFailed(
        f"the checkpoint's preprocessing has {name}={values} for {channels} channels",
        expected=f"one number, or {channels}",
    )


def unsupported(name: str, value: Any, expected: str) -> ImportFailed:
    """The error for a setting of a checkpoint that has no like here."""
    return ImportFailed(
        f"the checkpoint's preprocessing says {name}={value!r}, which is not supported",
        expected=expected,
    )


def require(holds: bool, found: str, expected: str) -> None:
    """Refuse with :class:`ImportFailed` what does not hold."""
    if not holds:
        raise ImportFailed(f"the preprocessing says {found}", expected=expected)
