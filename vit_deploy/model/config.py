"""``ViTConfig``: a Vision Transformer of any family, described by its parts.

No field names a family: DINOv2 with registers is a ViT with ``layer_scale`` and ``num_registers``,
CLIP's tower one with ``pre_norm`` and ``activation="quick_gelu"``. Which family has which parts is
known to the sources of checkpoints (:mod:`vit_deploy.weights`) alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vit_deploy.errors import ImportFailed, unknown_name
from vit_deploy.model.kinds import Kind  # noqa: TC001 - the hints are read when a config is checked
from vit_deploy.model.rotary_config import RotaryConfig
from vit_deploy.spec import HEIGHT, TOKENS, WIDTH, BatchRange, IOSpec, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.spec import Dim, SizeRange

OutputName = Literal["logits", "embedding", "tokens", "image_embeds"]
OUTPUT_NAMES: tuple[OutputName, ...] = ("logits", "embedding", "tokens", "image_embeds")

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"]
"""``gelu`` is the exact one; ``gelu_tanh`` its tanh form; ``quick_gelu`` is ``x · σ(1.702 x)``."""

Pool = Literal["token", "avg", "avg_all", "max", "avgmax", "token_avg", "prefix_avg", "map"]
"""From tokens to one vector: the class token; the mean of the patches, or of all tokens; their
maximum; the mean of mean and maximum; class token and mean side by side (``2d`` wide); the mean of
the prefix tokens; attention pooling (MAP, Zhai et al. 2022)."""

PositionScope = Literal["all", "class", "patches"]
"""Which tokens get learned positions: all, class token and patches but no registers, patches."""

Resampling = Literal["bicubic_antialias", "bicubic", "bicubic_aligned", "bilinear", "bilinear_antialias"]
"""How learned positions are resampled: torch's ``F.interpolate`` with ``antialias=True``, plain, or
with ``align_corners=True``."""

RelativeResampling = Literal["geometric", "bilinear"]
"""How tables of relative positions are resampled: linearly between places whose distances grow as a
geometric progression (the authors of BEiT, and timm), or with ``F.interpolate`` (transformers)."""

RelativePositions = Literal["none", "block", "shared"]
"""Relative position bias: none, a table per block (BEiT), or one for all blocks."""


@dataclass(frozen=True)
class ViTConfig:
    """A Vision Transformer, described. The defaults are ViT-B/16 at 224 with 1000 classes.

    Attributes:
        image_size: ``(height, width)`` of the input in pixels.
        resampled_from: the image size that the learned or relative positions were learned at, where they
            have been resampled to ``image_size`` since; ``None`` where they are as they were learned.
        patch_size: side of the square patches in pixels.
        drop_remainder: pixels beyond the last whole patch are left out (SigLIP at 384 with patches of
            14); otherwise the patches must divide the picture.
        in_channels: channels of the input.
        embed_dim: width of a token.
        depth: number of residual blocks.
        num_heads: attention heads; divides ``embed_dim``.
        mlp_dim: width inside the MLP, after the gate where there is one.
        num_classes: size of ``logits``; 0 for a model without a head.
        patch_bias: whether the patch projection has a bias.
        qkv_bias: whether the q, k and v projections have a bias.
        proj_bias: whether the projection after attention has a bias.
        mlp_bias: whether the layers of the MLP have biases.
        head_bias: whether the head has a bias.
        norm_eps: epsilon of every LayerNorm (1e-6 in timm, 1e-12 in transformers).
        class_token: whether a class token stands before the patches.
        distillation_token: a second prefix token, as in distilled DeiT.
        distillation_head: a second head on that token; ``logits`` is the mean of both heads.
        num_registers: register tokens, between class token and patches (Darcet et al. 2024).
        positions: learned positions added to the tokens, or none.
        position_scope: which tokens have learned positions.
        position_resampling: how the source of the checkpoint resamples them to other sizes.
        rotary: rotary positions, turned into queries and keys.
        relative_positions: a bias on attention that is looked up by the distance of two patches.
        relative_position_resampling: how the source of the checkpoint resamples those to other sizes.
        pre_norm: a LayerNorm before the first block (CLIP).
        layer_scale: a learned scale on the output of attention and MLP (CaiT, DeiT III, DINOv2).
        qk_norm: LayerNorms on queries and keys, head by head.
        attn_norm: a LayerNorm before the projection after attention.
        mlp_norm: a LayerNorm before the MLP's last layer.
        activation: of the MLP, or of its gate.
        gated_mlp: ``fc2(act(gate) · value)``, gate and value both out of ``fc1`` (SwiGLU).
        final_norm: a LayerNorm on the tokens after the last block.
        pool: how ``embedding`` comes out of the tokens.
        pool_prefix: whether attention pooling looks at the prefix tokens too, or at the patches alone.
        pool_heads: heads of attention pooling; ``num_heads`` when 0.
        pool_mlp_dim: width of the MLP of attention pooling; ``mlp_dim`` when 0.
        pool_activation: activation of that MLP.
        fc_norm: a LayerNorm after pooling.
        representation_size: width of a ``tanh`` layer after pooling (transformers' pooler, the
            original ViT's pre-logits); 0 for none.
        projection_dim: width of ``image_embeds``, a projection of the embedding into the space of a
            text encoder (CLIP); 0 for none.
        projection_bias: whether that projection has a bias (a head that OpenCLIP takes for it).
    """

    kind: ClassVar[Kind] = "vit"

    image_size: tuple[int, int] = (224, 224)
    resampled_from: tuple[int, int] | None = None
    patch_size: int = 16
    drop_remainder: bool = False
    in_channels: int = 3
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    num_classes: int = 1000
    patch_bias: bool = True
    qkv_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True
    head_bias: bool = True
    norm_eps: float = 1e-6
    class_token: bool = True
    distillation_token: bool = False
    distillation_head: bool = False
    num_registers: int = 0
    positions: Literal["learned", "none"] = "learned"
    position_scope: PositionScope = "all"
    position_resampling: Resampling = "bicubic_antialias"
    rotary: RotaryConfig | None = None
    relative_positions: RelativePositions = "none"
    relative_position_resampling: RelativeResampling = "geometric"
    pre_norm: bool = False
    layer_scale: bool = False
    qk_norm: bool = False
    attn_norm: bool = False
    mlp_norm: bool = False
    activation: Activation = "gelu"
    gated_mlp: bool = False
    final_norm: bool = True
    pool: Pool = "token"
    pool_prefix: bool = True
    pool_heads: int = 0
    pool_mlp_dim: int = 0
    pool_activation: Activation = "gelu"
    fc_norm: bool = False
    representation_size: int = 0
    projection_dim: int = 0
    projection_bias: bool = False

    def __post_init__(self) -> None:
        from vit_deploy.model.config_checks import check_config

        # JSON gives lists; the field is a pair wherever it comes from.
        object.__setattr__(self, "image_size", tuple(self.image_size))
        if self.resampled_from is not None:
            object.__setattr__(self, "resampled_from", tuple(self.resampled_from))
        check_config(self)

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
        """Tokens that stand before the patch tokens: class token, distillation token, registers."""
        return self.class_token + self.distillation_token + self.num_registers

    @property
    def num_tokens(self) -> int:
        """Length of the sequence inside the model."""
        return self.num_prefix_tokens + self.num_patches

    @property
    def num_position_prefix(self) -> int:
        """Prefix tokens that have a learned position."""
        without_registers = self.num_prefix_tokens - self.num_registers
        return {"all": self.num_prefix_tokens, "class": without_registers, "patches": 0}[self.position_scope]

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embed_dim // self.num_heads

    @property
    def embedding_dim(self) -> int:
        """Width of the ``embedding`` output."""
        return self.representation_size or self.embed_dim * (2 if self.pool == "token_avg" else 1)

    @property
    def image_embeds_dim(self) -> int:
        """Width of ``image_embeds``; 0 where the model has no such output.

        Attention-pooled towers without a head (SigLIP) have no projection: the embedding is it.
        """
        if self.projection_dim:
            return self.projection_dim
        return self.embedding_dim if self.pool == "map" and not self.num_classes else 0

    @property
    def output_names(self) -> tuple[OutputName, ...]:
        """The outputs that this model can give."""
        present = {"logits": self.num_classes > 0, "image_embeds": self.image_embeds_dim > 0}
        return tuple(name for name in OUTPUT_NAMES if present.get(name, True))

    @property
    def default_outputs(self) -> tuple[OutputName, ...]:
        """``logits`` where there is a head, ``image_embeds`` where there is a projection, otherwise
        the pooled embedding and the tokens."""
        if self.num_classes:
            return ("logits",)
        return ("image_embeds",) if self.projection_dim else ("embedding", "tokens")

    def io_spec(
        self,
        outputs: tuple[str, ...] = (),
        batch: BatchRange | None = None,
        dtype: str = "float32",
        sizes: SizeRange | None = None,
    ) -> IOSpec:
        """The inputs and outputs by name: ``pixel_values`` is ``(b, c, h, w)``, normalised.

        Args:
            outputs: the outputs asked for, in order; ``default_outputs`` when empty.
            batch: the batch sizes to be made for.
            dtype: numpy dtype name of inputs and outputs.
            sizes: the image sizes to be made for; the config's own alone when ``None``.
        """
        batch = batch or BatchRange()
        image: tuple[Dim, Dim] = (HEIGHT, WIDTH) if sizes else self.image_size
        shapes: dict[str, tuple[Dim, ...]] = {
            "logits": (self.num_classes,),
            "embedding": (self.embedding_dim,),
            "tokens": (TOKENS if sizes else self.num_tokens, self.embed_dim),
            "image_embeds": (self.image_embeds_dim,),
        }
        names = tuple(dict.fromkeys(outputs or self.default_outputs))  # twice named is once meant
        for name in names:
            if name not in self.output_names:
                raise unknown_name("output of this model", name, self.output_names)
        return IOSpec(
            inputs=(TensorSpec("pixel_values", dtype, (batch.dim, self.in_channels, *image)),),
            outputs=tuple(TensorSpec(name, dtype, (batch.dim, *shapes[name])) for name in names),
            batch=batch,
            sizes=sizes,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in a manifest."""
        return _as_json(asdict(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ViTConfig:
        """The inverse of :meth:`to_dict`; fields that are left out have their defaults.

        Raises:
            ImportFailed: for a field that this version does not know.
        """
        rotary = data.get("rotary")
        _require_known(cls, data, "config")
        if rotary is None:
            return cls(**data)
        _require_known(RotaryConfig, rotary, "rotary config")
        return cls(**{**data, "rotary": RotaryConfig(**rotary)})


def _as_json(data: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, at any depth."""
    plain: dict[str, Any] = {}
    for name, value in data.items():
        nested = _as_json(value) if isinstance(value, dict) else value
        plain[name] = list(nested) if isinstance(nested, tuple) else nested
    return plain


def _require_known(cls: type, data: Mapping[str, Any], what: str) -> None:
    known = {entry.name for entry in fields(cls)}
    extra = sorted(set(data) - known)
    if extra:
        raise ImportFailed(
            f"the {what} has fields that this version does not know: {', '.join(extra)}",
            expected=f"only {', '.join(sorted(known))}",
            next_command="pip install --upgrade vit-deploy",
        )
