"""The size a checkpoint is used at, where transformers resamples the positions by itself.

DINOv2 was trained at 518 pixels and its image processor gives 224: transformers resamples the
positions at each call. They are resampled once here, by the same function.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed
from vit_deploy.spec import size_text
from vit_deploy.weights import resize

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.weights.tensors import Weights


def any_size(config: ViTConfig, size: tuple[int, int]) -> ViTConfig:
    """The config for pictures of ``size``: what is left beyond the last whole patch is cut off."""
    return replace(config, image_size=size, drop_remainder=any(side % config.patch_size for side in size))


def at_size(config: ViTConfig, weights: Weights, size: tuple[int, int]) -> tuple[ViTConfig, Weights]:
    """The model for pictures of ``size``, its learned positions resampled when they are read.

    Raises:
        ImportFailed: when the patches do not make a square at the size that it was trained at.
    """
    rows, columns = config.grid_size
    if (
        config.positions == "learned"
        and rows != columns
        and any_size(config, size).grid_size != (rows, columns)
    ):
        raise ImportFailed(
            f"positions of {rows}x{columns} patches cannot be resampled to pictures of {size_text(size)}",
            expected="as many as a square picture has patches, and those of the prefix tokens",
        )
    changed, made = resize.at_size(replace(config, drop_remainder=True), weights, size)
    return any_size(changed, size), made
