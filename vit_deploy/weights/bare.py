"""What a bare file of weights says of itself, beside an architecture that its user names.

The sizes that show in the shapes are read off them. What does not show (the number of heads, epsilon,
activation) is the architecture's; so weights that are just those of another architecture are refused,
and other sizes than the architecture's are noted.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.weights.timm.looks import require_family

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.weights.tensors import Weights

_SIZES = ("embed_dim", "depth", "patch_size", "mlp_dim")


@dataclass(frozen=True)
class Bare:
    """A bare file of weights, understood.

    Attributes:
        config: of the model.
        weights: under our names, unread.
        preprocessing: the source's own; timm's default when ``None``.
        notes: what a person should know of it.
    """

    config: ViTConfig
    weights: Weights
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()


def size_of(weights: Weights, name: str, axis: int, default: int) -> int:
    """The length of an axis of a weight; ``default`` where there is no such weight or axis."""
    tensor = weights.get(name)
    return default if tensor is None or len(tensor.shape) <= axis else tensor.shape[axis]


def fitted(base: ViTConfig, weights: Weights, arch: str, **known: Any) -> tuple[ViTConfig, tuple[str, ...]]:
    """The architecture with the sizes that the weights show, and what to note of that.

    Args:
        base: the architecture that was named.
        weights: under our names.
        arch: its name, for messages.
        known: fields that the source knows otherwise, such as ``num_heads`` or ``num_classes``.

    Raises:
        ImportFailed: when the weights have other parts, or are those of another architecture.
    """
    parts: dict[str, Any] = {
        "in_channels": size_of(weights, "patch_embed.proj.weight", 1, base.in_channels),
        "num_classes": size_of(weights, "head.weight", 0, base.num_classes),
        "representation_size": size_of(weights, "pre_logits.weight", 0, 0),
        **{name: value for name, value in known.items() if name != "num_heads"},
    }
    # With the sizes that were named: other ones may be those of another architecture.
    named = replace(base, **parts)
    require_family(weights, named)
    sizes: dict[str, Any] = {
        "patch_size": size_of(weights, "patch_embed.proj.weight", 2, base.patch_size),
        "embed_dim": size_of(weights, "patch_embed.proj.weight", 0, base.embed_dim),
        "depth": _depth(weights) or base.depth,
        "mlp_dim": size_of(weights, "blocks.0.mlp.fc2.weight", 1, base.mlp_dim),
    }
    image_size = _image_size(named, weights, sizes["patch_size"])
    config = replace(named, **sizes, image_size=image_size, num_heads=known.get("num_heads", base.num_heads))
    other = [
        f"{name}={getattr(config, name)}" for name in _SIZES if getattr(config, name) != getattr(base, name)
    ]
    if not other:
        return config, ()
    heads = "" if "num_heads" in known else f"; that there are {base.num_heads} heads is taken from it"
    return config, (f"the sizes are the checkpoint's, not those of {arch}: {', '.join(other)}{heads}",)


def _depth(weights: Weights) -> int:
    found = {int(block[1]) for name in weights if (block := re.match(r"blocks\.(\d{1,4})\.", name))}
    return max(found, default=-1) + 1


def _image_size(base: ViTConfig, weights: Weights, patch: int) -> tuple[int, int]:
    """The base's where its number of patches fits, otherwise that of a square of as many patches."""
    count = size_of(weights, "pos_embed", 1, 0) - base.num_position_prefix
    rows, columns = base.image_size[0] // max(patch, 1), base.image_size[1] // max(patch, 1)
    side = math.isqrt(max(count, 0))
    if count == rows * columns or side * side != count or not count:
        return base.image_size
    return side * patch, side * patch
