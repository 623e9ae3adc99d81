"""A model at another image size, as the library that its checkpoint comes from makes it.

Learned positions are resampled in PyTorch, with the source's own function and kernel, before anything
is exported (timm's ``resample_abs_pos_embed``, transformers' ``interpolate_pos_encoding``); those of
prefix tokens stay. Rotary positions are computed for whatever grid there is. Tables of relative
positions are resampled as timm does it, or as transformers does. Nothing is read until it is asked for.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.spec import size_text
from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.weights.imported import Model

    Change = Callable[[torch.Tensor], torch.Tensor]

_LEAST_GEOMETRIC = 2
"""Patches on a side: one has no distances that could grow."""


def resized(model: Model, image_size: tuple[int, int], *, exact: bool = False) -> Model:
    """The model for pictures of another size, its preprocessing with it.

    Args:
        model: any ViT.
        image_size: ``(height, width)`` in pixels.
        exact: resample in float64, for a reference; the sources do it in float32.

    Raises:
        UsageFailed: when patches do not divide the size, the positions cannot be resampled as the
            source does it, or the model is none of ours.
    """
    config = model.vit_config
    if image_size == config.image_size:
        return model
    changed, weights = at_size(config, model.weights, image_size, exact=exact)
    recipe = model.preprocessing.at_size(image_size) if model.preprocessing is not None else None
    notes = (*model.notes, *size_notes(changed))
    return replace(model, config=changed, weights=weights, preprocessing=recipe, notes=notes)


def size_notes(config: ViTConfig) -> tuple[str, ...]:
    """What a person should know of a model at another size than its positions were learned at."""
    if config.resampled_from is None:
        return ()
    learned, own = size_text(config.resampled_from), size_text(config.image_size)
    return (f"the positions were resampled from {learned} to {own} pixels, as their source does it",)


def at_size(
    config: ViTConfig, weights: Weights, image_size: tuple[int, int], *, exact: bool = False
) -> tuple[ViTConfig, Weights]:
    """The config for pictures of another size, and the weights that fit it; see :func:`resized`."""
    check_size(config, image_size)
    changed = replace(config, image_size=image_size)
    if changed.grid_size == config.grid_size:
        return changed, weights
    learned = config.positions == "learned" or config.relative_positions != "none"
    if not learned:
        return changed, weights
    if config.resampled_from is not None:
        raise _resampled_already(config)
    if config.relative_positions != "none":
        _check_relative(config, changed.grid_size)
    made = [_at_grid(tensor, config, changed, exact=exact) for tensor in weights.values()]
    return replace(changed, resampled_from=config.image_size), Weights(
        made, weights.notes, lambda: _resized_digest(weights, config, changed, exact=exact)
    )


def _resized_digest(weights: Weights, old: ViTConfig, new: ViTConfig, *, exact: bool) -> str:
    """Names the resampled weights by what they are made from, so that nothing is read or resampled for it."""
    made_from = {"weights": weights.digest, "from": old.to_dict(), "to": new.to_dict(), "exact": exact}
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def check_size(config: ViTConfig, image_size: tuple[int, int]) -> None:
    """Refuse a size that the patches do not divide.

    Raises:
        UsageFailed: naming the nearest sizes that they do.
    """
    patch = config.patch_size
    whole = config.drop_remainder or not any(side % patch for side in image_size)
    if whole and min(image_size) >= patch:
        return
    low, high = (
        (max(1, rounded(image_size[0] / patch)) * patch, max(1, rounded(image_size[1] / patch)) * patch)
        for rounded in (math.floor, math.ceil)
    )
    raise UsageFailed(
        f"an image of {size_text(image_size)} pixels does not divide into patches of {patch}",
        expected=f"height and width that are multiples of {patch}",
        next_command=" or ".join(f"--image-size {size_text(size)}" for size in dict.fromkeys((low, high))),
    )


def _resampled_already(config: ViTConfig) -> UsageFailed:
    learned = size_text(config.resampled_from or config.image_size)
    return UsageFailed(
        f"the positions were learned at {learned} pixels and have been resampled to "
        f"{size_text(config.image_size)}: to resample them again is not what their source does",
        expected=f"the model as it was learned, at {learned}",
        next_command=f"export from the checkpoint itself, with --image-size {learned} or any other",
    )


def _check_relative(config: ViTConfig, grid: tuple[int, int]) -> None:
    """Refuse what the source would not, or wrongly, resample."""
    height, width = config.grid_size
    if height != width:
        raise UsageFailed(
            f"the tables of relative positions are those of {height}x{width} patches, and their source "
            "resamples those of a square only",
            expected=f"the model's own size, {size_text(config.image_size)}",
            next_command="leave --image-size out",
        )
    if config.relative_position_resampling == "geometric" and min(height, *grid) < _LEAST_GEOMETRIC:
        raise UsageFailed(
            f"tables of relative positions cannot be resampled from {height}x{width} to {grid[0]}x{grid[1]} "
            "patches: a geometric progression needs some distances to grow over",
            expected=f"{_LEAST_GEOMETRIC} patches or more on each side",
        )


def _at_grid(tensor: WeightTensor, old: ViTConfig, new: ViTConfig, *, exact: bool) -> WeightTensor:
    """The tensor, resampled where it is positions."""
    from vit_deploy.model.relative_positions import table_length

    dtype = "float64" if exact else tensor.dtype

    def changed(before: tuple[int, ...], shape: tuple[int, ...], change: Change) -> WeightTensor:
        if tensor.shape != before:
            raise ImportFailed(
                f"weight {tensor.name!r} has shape {tensor.shape}",
                expected=f"shape {before}, from the config, so that it can be resampled",
                next_command="give the --arch, or the config.json, of the size that it was trained at",
            )

        def read() -> torch.Tensor:
            values = tensor.read()
            wide = values.double() if exact else values.float()
            return change(wide).to(wide.dtype if exact else values.dtype)

        return WeightTensor(tensor.name, shape, dtype, read)

    if tensor.name == "pos_embed":
        lengths = (config.num_position_prefix + config.num_patches for config in (old, new))
        before, after = ((1, length, new.embed_dim) for length in lengths)
        return changed(before, after, lambda table: _positions(table, old, new))
    if tensor.name.endswith("relative_position_bias_table"):
        had, has = ((table_length(config.grid_size), new.num_heads) for config in (old, new))
        return changed(had, has, lambda table: _relative(table, old, new))
    return tensor


def _positions(table: torch.Tensor, old: ViTConfig, new: ViTConfig) -> torch.Tensor:
    """``(1, m + n, d)`` to ``(1, m + n', d)``."""
    import torch

    from vit_deploy.model.resample import interpolate_positions

    prefix = old.num_position_prefix
    patches = interpolate_positions(table[0, prefix:], old.grid_size, new.grid_size, old.position_resampling)
    return torch.cat([table[0, :prefix], patches]).unsqueeze(0)


def _relative(table: torch.Tensor, old: ViTConfig, new: ViTConfig) -> torch.Tensor:
    """``(distances + 3, k)`` to as many distances as the new grid has; the entries of the class token stay."""
    import torch

    from vit_deploy.model.relative_positions import CLASS_ENTRIES
    from vit_deploy.model.resample import interpolate_positions

    before, after = ((2 * height - 1, 2 * width - 1) for height, width in (old.grid_size, new.grid_size))
    distances = table[:-CLASS_ENTRIES]
    if old.relative_position_resampling == "bilinear":
        resampled = interpolate_positions(distances, before, after, "bilinear")
    else:
        rows, columns = (
            geometric_matrix(source, target, distances) for source, target in zip(before, after, strict=True)
        )
        grid = torch.unflatten(distances, 0, before)
        resampled = torch.einsum("ij,jkh,lk->ilh", rows, grid, columns).flatten(0, 1)
    return torch.cat([resampled, table[-CLASS_ENTRIES:]])


def geometric_matrix(source: int, target: int, like: torch.Tensor) -> torch.Tensor:
    """``(target, source)``: linear interpolation between distances that grow geometrically.

    The authors of BEiT place the ``source`` entries of a table so that near distances keep theirs and far
    ones spread out, to reach as far as the ``target`` entries do, one step apart
    (https://github.com/microsoft/unilm/blob/master/beit/run_class_finetuning.py). They then interpolate
    with splines; timm, linearly (``resize_rel_pos_bias_table`` in timm/layers/pos_embed_rel.py), and it
    is timm that is followed here. What lies beyond the last place takes its value.
    """
    import torch

    ratio = _growth(source // 2, target // 2)
    steps = [ratio**step for step in range(source // 2)]
    far = list(itertools.accumulate(steps))
    # timm's places are float32 from here on, and a place decides which neighbours are taken.
    places = torch.tensor([-distance for distance in reversed(far)] + [0.0, *far], dtype=torch.float32)
    asked = torch.arange(-(target // 2), target // 2 + 1, dtype=torch.float32)
    right = torch.bucketize(asked, places).clamp(max=source - 1)
    left = (right - 1).clamp(min=0)
    places, asked = places.to(like.dtype), asked.to(like.dtype)
    from_left = (asked - places[left]).clamp(min=0)
    from_right = (places[right] - asked).clamp(min=0)
    alone = (from_left == 0) & (from_right == 0)
    from_left, from_right = (torch.where(alone, 1.0, part) for part in (from_left, from_right))
    weights = torch.zeros(target, source, dtype=like.dtype)
    rows = torch.arange(target)
    weights[rows, left] += from_right / (from_left + from_right)
    weights[rows, right] += from_left / (from_left + from_right)
    return weights


def _growth(count: int, reach: int) -> float:
    """The ratio at which ``count`` steps, the first of them 1, reach that far: between 1.01 and 1.5."""
    low, high = 1.01, 1.5
    ratio = low
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**count) / (1 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    return ratio
