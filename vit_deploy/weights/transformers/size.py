"""The size a checkpoint is used at, where transformers resamples the positions by itself.

DINOv2 was trained at 518 pixels and its image processor gives 224: transformers resamples the
positions at each call. An artefact has one size, so they are resampled once, by the same function.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed
from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    import torch

    from vit_deploy.model.config import ViTConfig


def at_size(config: ViTConfig, weights: Weights, size: tuple[int, int]) -> tuple[ViTConfig, Weights]:
    """The model for pictures of ``size``, its learned positions resampled when they are read.

    Raises:
        ImportFailed: when the patches do not make a square at the size that it was trained at.
    """
    resized = replace(config, image_size=size, drop_remainder=any(side % config.patch_size for side in size))
    positions = weights.get("pos_embed")
    if positions is None or resized.grid_size == config.grid_size:
        return resized, weights
    old, prefix = config.grid_size, config.num_position_prefix
    if old[0] != old[1] or positions.shape != (1, prefix + math.prod(old), config.embed_dim):
        raise ImportFailed(
            f"positions of shape {positions.shape} cannot be resampled from {old[0]}x{old[1]} patches",
            expected="as many as a square picture has patches, and those of the prefix tokens",
        )

    def read() -> torch.Tensor:
        import torch

        from vit_deploy.model.resample import interpolate_positions

        table = positions.read()[0]
        patches = interpolate_positions(table[prefix:], old, resized.grid_size, config.position_resampling)
        return torch.cat([table[:prefix], patches]).unsqueeze(0)

    shape = (1, prefix + math.prod(resized.grid_size), config.embed_dim)
    changed = WeightTensor("pos_embed", shape, positions.dtype, read)
    return resized, Weights(changed if name == "pos_embed" else tensor for name, tensor in weights.items())
