"""``ViTConfig`` and the table of named sizes.

Sizes follow Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929, table 1), Zhai et al.
2022 for g (https://arxiv.org/abs/2106.04560, table 2) and Touvron et al. 2021 for DeiT
(https://arxiv.org/abs/2012.12877); names are those that timm made the field's standard.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from vit_deploy.errors import ImportFailed, unknown_name
from vit_deploy.model.fields import shown
from vit_deploy.spec import BatchRange, IOSpec, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

OutputName = Literal["logits", "embedding", "tokens"]
OUTPUT_NAMES: tuple[OutputName, ...] = ("logits", "embedding", "tokens")

_BOUNDS = {
    "patch_size": (1, 2**16),
    "in_channels": (1, 2**16),
    "embed_dim": (1, 2**16),
    "depth": (1, 1000),
    "num_heads": (1, 2**16),
    "mlp_dim": (1, 2**16),
    "num_classes": (0, 2**20),
    "representation_size": (0, 2**20),
}
"""Least and most of each size: far beyond any ViT that was trained, and short of what would fill the
memory with names and shapes before the weights are looked at."""

_MAX_IMAGE_SIDE = 2**14
_MAX_TOKENS = 2**20


@dataclass(frozen=True)
class ViTConfig:
    """A plain Vision Transformer, described. The defaults are ViT-B/16 at 224 with 1000 classes.

    Attributes:
        image_size: ``(height, width)`` of the input in pixels.
        patch_size: side of the square patches in pixels.
        in_channels: channels of the input.
        embed_dim: width of a token.
        depth: number of residual blocks.
        num_heads: attention heads; divides ``embed_dim``.
        mlp_dim: width inside the MLP.
        num_classes: size of ``logits``; 0 for a model without a head.
        qkv_bias: whether the q, k and v projections have a bias.
        norm_eps: epsilon of every LayerNorm (1e-6 in timm, 1e-12 in transformers).
        distillation_token: a second prefix token, as in distilled DeiT.
        distillation_head: a second head on that token; ``logits`` is the mean of both heads.
        representation_size: width of a ``tanh`` layer between class token and head
            (transformers' pooler, the original ViT's pre-logits); 0 for none.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    in_channels: int = 3
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    num_classes: int = 1000
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    distillation_token: bool = False
    distillation_head: bool = False
    representation_size: int = 0

    def __post_init__(self) -> None:
        # JSON gives lists; the field is a pair wherever it comes from.
        object.__setattr__(self, "image_size", tuple(self.image_size))
        self._require_bounds()
        height, width = self.image_size
        if min(height, width) < 1 or height % self.patch_size or width % self.patch_size:
            raise ImportFailed(
                f"an image of {height}x{width} pixels does not divide into patches of {self.patch_size}",
                expected=f"height and width that are multiples of {self.patch_size}",
            )
        if self.embed_dim % self.num_heads:
            raise ImportFailed(
                f"embed_dim={self.embed_dim} does not divide into num_heads={self.num_heads}",
                expected="an embed_dim that is a multiple of num_heads",
            )
        if self.distillation_head and not (self.distillation_token and self.num_classes):
            raise ImportFailed(
                "the config asks for a distillation head without what it stands on",
                expected="distillation_token=True and num_classes > 0",
            )

    def _require_bounds(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise ImportFailed(
                    f"the config says {name}={shown(getattr(self, name))}",
                    expected=f"{name} >= {least} and <= {most}",
                )
        height, width = self.image_size
        if max(height, width) > _MAX_IMAGE_SIDE:
            raise ImportFailed(
                f"the config says image_size={shown(self.image_size)}",
                expected=f"height and width of at most {_MAX_IMAGE_SIDE} pixels",
            )
        if self.num_tokens > _MAX_TOKENS:
            raise ImportFailed(
                f"{height}x{width} pixels in patches of {self.patch_size} are {self.num_tokens} tokens",
                expected=f"at most {_MAX_TOKENS} tokens",
            )
        # The largest float, because a whole number may be beyond all of them and yet below infinity.
        if not 0 <= self.norm_eps <= sys.float_info.max:
            raise ImportFailed(
                f"the config says norm_eps={shown(self.norm_eps)}", expected="a finite norm_eps >= 0"
            )

    @property
    def grid_size(self) -> tuple[int, int]:
        """``(rows, columns)`` of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def num_patches(self) -> int:
        """How many patch tokens an image gives."""
        return self.grid_size[0] * self.grid_size[1]

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens that stand before the patch tokens: class token, then distillation token."""
        return 2 if self.distillation_token else 1

    @property
    def num_tokens(self) -> int:
        """Length of the sequence inside the model."""
        return self.num_prefix_tokens + self.num_patches

    @property
    def embedding_dim(self) -> int:
        """Width of the ``embedding`` output."""
        return self.representation_size or self.embed_dim

    @property
    def default_outputs(self) -> tuple[OutputName, ...]:
        """``logits`` where there is a head, otherwise the tokens and the pooled embedding."""
        return ("logits",) if self.num_classes else ("embedding", "tokens")

    def io_spec(
        self, outputs: tuple[OutputName, ...] = (), batch: BatchRange | None = None, dtype: str = "float32"
    ) -> IOSpec:
        """The inputs and outputs by name: ``pixel_values`` is ``(b, c, h, w)``, normalised.

        Args:
            outputs: the outputs asked for, in order; ``default_outputs`` when empty.
            batch: the batch sizes to be made for.
            dtype: numpy dtype name of inputs and outputs.
        """
        batch = batch or BatchRange()
        shapes: dict[str, tuple[int, ...]] = {
            "logits": (self.num_classes,),
            "embedding": (self.embedding_dim,),
            "tokens": (self.num_tokens, self.embed_dim),
        }
        names = outputs or self.default_outputs
        for name in names:
            if name not in shapes or (name == "logits" and not self.num_classes):
                valid = [known for known in OUTPUT_NAMES if known != "logits" or self.num_classes]
                raise unknown_name("output of this model", name, valid)
        return IOSpec(
            inputs=(TensorSpec("pixel_values", dtype, (batch.dim, self.in_channels, *self.image_size)),),
            outputs=tuple(TensorSpec(name, dtype, (batch.dim, *shapes[name])) for name in names),
            batch=batch,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in a manifest."""
        return {**asdict(self), "image_size": list(self.image_size)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ViTConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ImportFailed: for a field that this version does not know.
        """
        known = {entry.name for entry in fields(cls)}
        extra = sorted(set(data) - known)
        if extra:
            raise ImportFailed(
                f"the config has fields that this version does not know: {', '.join(extra)}",
                expected=f"only {', '.join(sorted(known))}",
                next_command="pip install --upgrade vit-deploy",
            )
        return cls(**data)


def _size(embed_dim: int, depth: int, num_heads: int, mlp_dim: int = 0) -> ViTConfig:
    return ViTConfig(embed_dim=embed_dim, depth=depth, num_heads=num_heads, mlp_dim=mlp_dim or 4 * embed_dim)


_SIZES = {
    "tiny": _size(192, 12, 3),
    "small": _size(384, 12, 6),
    "base": _size(768, 12, 12),
    "large": _size(1024, 24, 16),
    "huge": _size(1280, 32, 16),
    "giant": _size(1408, 40, 16, 6144),
}

_VARIANTS = (
    ("tiny", 16, (224, 384)),
    ("small", 8, (224,)),
    ("small", 16, (224, 384)),
    ("small", 32, (224, 384)),
    ("base", 8, (224,)),
    ("base", 16, (224, 384)),
    ("base", 32, (224, 384)),
    ("large", 14, (224,)),
    ("large", 16, (224, 384)),
    ("large", 32, (224, 384)),
    ("huge", 14, (224,)),
    ("giant", 14, (224,)),
)

DEFAULT_ARCH = "vit_base_patch16_224"


def _named_configs() -> dict[str, ViTConfig]:
    table = {
        f"vit_{size}_patch{patch}_{pixels}": replace(
            _SIZES[size], patch_size=patch, image_size=(pixels, pixels)
        )
        for size, patch, resolutions in _VARIANTS
        for pixels in resolutions
    }
    for size, resolutions in (("tiny", (224,)), ("small", (224,)), ("base", (224, 384))):
        for pixels in resolutions:
            plain = replace(_SIZES[size], image_size=(pixels, pixels))
            table[f"deit_{size}_patch16_{pixels}"] = plain
            table[f"deit_{size}_distilled_patch16_{pixels}"] = replace(
                plain, distillation_token=True, distillation_head=True
            )
    return table


NAMED_CONFIGS: dict[str, ViTConfig] = _named_configs()
"""Every named architecture, by its timm name."""


def named_config(name: str) -> ViTConfig:
    """The config of a named architecture; a pretrained tag (``.augreg_in21k``) is allowed and ignored.

    Raises:
        UsageFailed: for an unknown name, with the nearest ones.
    """
    config = NAMED_CONFIGS.get(name.partition(".")[0])
    if config is None:
        raise unknown_name("architecture", name, NAMED_CONFIGS, "vit-deploy models")
    return config
