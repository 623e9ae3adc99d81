"""The whole Vision Transformer, top to bottom (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929).

One model for every family: which parts it has is said by its :class:`ViTConfig`, and no line asks
which family it is. Parameter names are timm's, which most checkpoints in the field use. Every
residual block is pre-norm; attention is ``scaled_dot_product_attention``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vit_deploy.model.attention import Attention
from vit_deploy.model.config import OutputName, ViTConfig
from vit_deploy.model.layout import EINOPS, RESHAPE, Layout
from vit_deploy.model.mlp import MLP
from vit_deploy.model.patches import PatchEmbedding, PatchForm
from vit_deploy.model.pooling import AttentionPool, TokenPool
from vit_deploy.model.positions import LearnedPositions
from vit_deploy.model.relative_positions import RelativePositionBias, RelativePositionIndex
from vit_deploy.model.rotary import RotaryPositions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.model.rotary import Rotation


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al. 2021, https://arxiv.org/abs/2103.17239)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(embed_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """``(b, n, d)`` to the same."""
        return tokens * self.gamma


class Block(nn.Module):
    """A pre-norm residual block: attention, then MLP."""

    def __init__(self, config: ViTConfig, layout: Layout) -> None:
        super().__init__()
        dim, eps = config.embed_dim, config.norm_eps
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(config, layout)
        self.ls1 = LayerScale(dim) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(
            dim,
            config.mlp_dim,
            config.activation,
            gated=config.gated_mlp,
            norm_eps=eps if config.mlp_norm else None,
            bias=config.mlp_bias,
        )
        self.ls2 = LayerScale(dim) if config.layer_scale else nn.Identity()

    def forward(
        self,
        tokens: Tensor,
        rotation: Rotation | None = None,
        index: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """``(b, n, d)`` to ``(b, n, d)``; the other arguments are those of :class:`Attention`."""
        attended: Tensor = tokens + self.ls1(self.attn(self.norm1(tokens), rotation, index, bias))
        result: Tensor = attended + self.ls2(self.mlp(self.norm2(attended)))
        return result


class ViT(nn.Module):
    """A Vision Transformer; ``ViT()`` is ViT-B/16 at 224 with 1000 classes.

    Args:
        config: the architecture.
        layout: ``EINOPS`` for reading or ``RESHAPE`` for export; bit-identical.
        patch_form: the patch projection as ``"conv"`` or ``"linear"``; equal up to rounding.
        outputs: what :meth:`forward` returns, in order; the config's default when empty.
        dynamic_size: take images of any size that the patches divide: positions are resampled, and
            rotations computed, from the size of each batch.
        input_stage: a parameter-free module that makes ``(b, c, h, w)`` of whatever the artefact
            takes; nothing when ``None``.
    """

    def __init__(
        self,
        config: ViTConfig | None = None,
        *,
        layout: Layout = EINOPS,
        patch_form: PatchForm = "conv",
        outputs: Sequence[OutputName] = (),
        dynamic_size: bool = False,
        input_stage: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config = config = config or ViTConfig()
        self.input_stage = input_stage
        self.layout = layout
        self.dynamic_size = dynamic_size
        self.outputs = tuple(spec.name for spec in config.io_spec(tuple(outputs)).outputs)
        dim, eps = config.embed_dim, config.norm_eps
        self.patch_embed = PatchEmbedding(
            config.patch_size,
            config.in_channels,
            dim,
            bias=config.patch_bias,
            drop_remainder=config.drop_remainder,
            form=patch_form,
            layout=layout,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if config.class_token else None
        self.dist_token = nn.Parameter(torch.zeros(1, 1, dim)) if config.distillation_token else None
        registers = config.num_registers
        self.reg_token = nn.Parameter(torch.zeros(1, registers, dim)) if registers else None
        learned = config.num_position_prefix + config.num_patches if config.positions == "learned" else 0
        self.pos_embed = nn.Parameter(torch.zeros(1, learned, dim)) if learned else None
        self.positions = LearnedPositions(config, dynamic_size=dynamic_size)
        self.rope = RotaryPositions(config, dynamic_size=dynamic_size) if config.rotary else None
        relative = config.relative_positions != "none"
        self.rel_pos_index = RelativePositionIndex(config.grid_size) if relative else None
        shared = config.relative_positions == "shared"
        self.rel_pos_bias = RelativePositionBias(config.grid_size, config.num_heads) if shared else None
        self.norm_pre = nn.LayerNorm(dim, eps=eps) if config.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(config, layout) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=eps) if config.final_norm else nn.Identity()
        self.attn_pool = AttentionPool(config, layout) if config.pool == "map" else None
        self.token_pool = TokenPool(config)
        self._make_heads(config)

    def _make_heads(self, config: ViTConfig) -> None:
        dim, classes, wide = config.embed_dim, config.num_classes, config.embedding_dim
        pooled = 2 * dim if config.pool == "token_avg" else dim
        self.fc_norm = nn.LayerNorm(pooled, eps=config.norm_eps) if config.fc_norm else nn.Identity()
        self.pre_logits = nn.Linear(pooled, config.representation_size) if config.representation_size else None
        self.head = nn.Linear(wide, classes, bias=config.head_bias) if classes else None
        self.head_dist = nn.Linear(dim, classes) if config.distillation_head else None
        projected = config.projection_dim
        self.projection = nn.Linear(wide, projected, bias=config.projection_bias) if projected else None

    def grid_of(self, pixel_values: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of ``(b, c, H, W)``."""
        if not self.dynamic_size:
            return self.config.grid_size
        patch = self.config.patch_size
        return pixel_values.shape[2] // patch, pixel_values.shape[3] // patch

    def embed(self, pixel_values: Tensor) -> Tensor:
        """``(b, c, H, W)`` to the sequence ``(b, n, d)``: prefix tokens, then patches, plus positions."""
        patches = self.patch_embed(pixel_values)
        named = (self.cls_token, self.dist_token, self.reg_token)
        prefix = [token.expand(patches.shape[0], -1, -1) for token in named if token is not None]
        tokens = self.positions(prefix, patches, self.pos_embed, self.grid_of(pixel_values))
        normalised: Tensor = self.norm_pre(tokens)
        return normalised

    def encode(self, pixel_values: Tensor) -> Tensor:
        """``(b, c, H, W)`` to the tokens ``(b, n, d)``, after the final norm where there is one."""
        tokens = self.embed(pixel_values)
        rotations: list[Rotation | None] = [None] * len(self.blocks)
        if self.rope is not None:
            rotations = list(self.rope(*self.grid_of(pixel_values), tokens))
        index = self.rel_pos_index(tokens) if self.rel_pos_index is not None else None
        bias = self.rel_pos_bias(index) if self.rel_pos_bias is not None else None
        for block, rotation in zip(self.blocks, rotations, strict=True):
            tokens = block(tokens, rotation, index, bias)
        encoded: Tensor = self.norm(tokens)
        return encoded

    def pool(self, tokens: Tensor) -> Tensor:
        """The embedding ``(b, embedding_dim)`` of ``(b, n, d)``."""
        pooled = self.token_pool(tokens) if self.attn_pool is None else self.attn_pool(tokens)
        pooled = self.fc_norm(pooled)
        return pooled if self.pre_logits is None else torch.tanh(self.pre_logits(pooled))

    def classify(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        """Logits ``(b, num_classes)``; with a distillation head, the mean of both heads."""
        if self.head is None:
            raise ValueError("this model has no head: num_classes is 0")
        logits: Tensor = self.head(embedding)
        return logits if self.head_dist is None else (logits + self.head_dist(tokens[:, 1])) / 2

    def forward(self, pixel_values: Tensor) -> Tensor | tuple[Tensor, ...]:
        """One output as a tensor, or several as a tuple in the order of ``self.outputs``.

        Args:
            pixel_values: ``(b, c, H, W)``, normalised; whatever the input stage takes where there is one.
        """
        if self.input_stage is not None:
            pixel_values = self.input_stage(pixel_values)
        tokens = self.encode(pixel_values)
        results = {"tokens": tokens}
        if set(self.outputs) - {"tokens"}:
            results["embedding"] = self.pool(tokens)
        if "logits" in self.outputs:
            results["logits"] = self.classify(tokens, results["embedding"])
        if "image_embeds" in self.outputs:
            embedding = results["embedding"]
            results["image_embeds"] = embedding if self.projection is None else self.projection(embedding)
        chosen = tuple(results[name] for name in self.outputs)
        return chosen[0] if len(chosen) == 1 else chosen

    def for_export(self, outputs: Sequence[OutputName] = (), *, dynamic_size: bool | None = None) -> ViT:
        """The same weights, shared, in the reshape layout and in the same mode and dtype.

        Args:
            outputs: what the twin returns; this model's own outputs when empty.
            dynamic_size: whether the twin takes images of any size; as this model when ``None``.
        """
        with torch.device("meta"):
            twin = ViT(
                self.config,
                layout=RESHAPE,
                patch_form=self.patch_embed.form,
                outputs=outputs or self.outputs,  # type: ignore[arg-type]
                dynamic_size=self.dynamic_size if dynamic_size is None else dynamic_size,
                input_stage=self.input_stage,
            )
        # Loading by assignment gives each parameter the twin's requires_grad; these are this model's own
        # parameters, so frozen ones would thaw.
        frozen = {name for name, value in self.named_parameters() if not value.requires_grad}
        for name, value in twin.named_parameters():
            value.requires_grad_(name not in frozen)
        twin.load_state_dict(self.state_dict(keep_vars=True), assign=True)
        return twin.train(self.training)
