"""The whole Vision Transformer, top to bottom (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929).

Parameter names are timm's, which most checkpoints in the field use. Every residual block is
pre-norm; attention is ``scaled_dot_product_attention``; GELU is the exact one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn

from vit_deploy.model.config import OutputName, ViTConfig
from vit_deploy.model.layout import EINOPS, RESHAPE, Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

PatchForm = Literal["conv", "linear"]


class PatchEmbedding(nn.Module):
    """Cut an image into patches and project each: ``(b, c, H, W) -> (b, h·w, d)``.

    The projection is computed as a convolution of stride ``patch_size``, or as a linear layer over
    ``rearrange(x, 'b c (h s1) (w s2) -> b (h w) (s1 s2 c)')``. Both use the same parameters
    (``proj.weight`` of shape ``(d, c, s1, s2)``, ``proj.bias``) and are the same function: equal
    up to the order of the sum.
    """

    def __init__(
        self,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 768,
        *,
        form: PatchForm = "conv",
        layout: Layout = EINOPS,
    ) -> None:
        super().__init__()
        self.form = form
        self.proj = nn.Conv2d(in_channels, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.grid_to_tokens = layout.grid_to_tokens()
        self.patchify = layout.patchify(patch_size)
        self.flatten_kernel = layout.flatten_kernel()

    def forward(self, images: Tensor) -> Tensor:
        """``(b, c, H, W)`` to ``(b, h·w, d)``, row by row."""
        if self.form == "linear":
            return F.linear(self.patchify(images), self.flatten_kernel(self.proj.weight), self.proj.bias)
        tokens: Tensor = self.grid_to_tokens(self.proj(images))
        return tokens


class Attention(nn.Module):
    """Multi-head self-attention over ``(b, n, d)``."""

    def __init__(self, embed_dim: int, num_heads: int, qkv_bias: bool, layout: Layout) -> None:
        super().__init__()
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.split_heads = layout.split_heads(num_heads)
        self.merge_heads = layout.merge_heads()

    def forward(self, tokens: Tensor) -> Tensor:
        """``(b, n, d)`` to ``(b, n, d)``."""
        query, key, value = self.split_heads(self.qkv(tokens))
        mixed = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.proj(self.merge_heads(mixed))
        return projected


class MLP(nn.Module):
    """Two linear layers with the exact GELU between: ``(b, n, d)`` to ``(b, n, d)``."""

    def __init__(self, embed_dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, mlp_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(mlp_dim, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(b, n, d)`` to ``(b, n, d)``."""
        hidden: Tensor = self.fc2(self.act(self.fc1(tokens)))
        return hidden


class Block(nn.Module):
    """A pre-norm residual block: attention, then MLP."""

    def __init__(self, config: ViTConfig, layout: Layout) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.attn = Attention(config.embed_dim, config.num_heads, config.qkv_bias, layout)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.mlp = MLP(config.embed_dim, config.mlp_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(b, n, d)`` to ``(b, n, d)``."""
        attended: Tensor = tokens + self.attn(self.norm1(tokens))
        result: Tensor = attended + self.mlp(self.norm2(attended))
        return result


class ViT(nn.Module):
    """A Vision Transformer; ``ViT()`` is ViT-B/16 at 224 with 1000 classes.

    Args:
        config: the architecture.
        layout: ``EINOPS`` for reading or ``RESHAPE`` for export; bit-identical.
        patch_form: the patch projection as ``"conv"`` or ``"linear"``; equal up to rounding.
        outputs: what :meth:`forward` returns, in order; the config's default when empty.
    """

    def __init__(
        self,
        config: ViTConfig | None = None,
        *,
        layout: Layout = EINOPS,
        patch_form: PatchForm = "conv",
        outputs: Sequence[OutputName] = (),
    ) -> None:
        super().__init__()
        self.config = config = config or ViTConfig()
        self.layout = layout
        self.outputs = tuple(spec.name for spec in config.io_spec(tuple(outputs)).outputs)
        dim = config.embed_dim
        self.patch_embed = PatchEmbedding(
            config.patch_size, config.in_channels, dim, form=patch_form, layout=layout
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, dim)) if config.distillation_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_tokens, dim))
        self.blocks = nn.ModuleList(Block(config, layout) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self.pre_logits = nn.Linear(dim, config.representation_size) if config.representation_size else None
        self.head = nn.Linear(config.embedding_dim, config.num_classes) if config.num_classes else None
        self.head_dist = nn.Linear(dim, config.num_classes) if config.distillation_head else None

    def embed(self, pixel_values: Tensor) -> Tensor:
        """``(b, c, H, W)`` to the sequence ``(b, n, d)``: prefix tokens, then patches, plus positions."""
        patches = self.patch_embed(pixel_values)
        prefix = [token for token in (self.cls_token, self.dist_token) if token is not None]
        expanded = [token.expand(patches.shape[0], -1, -1) for token in prefix]
        return torch.cat([*expanded, patches], dim=1) + self.pos_embed

    def encode(self, pixel_values: Tensor) -> Tensor:
        """``(b, c, H, W)`` to the normalised tokens ``(b, n, d)``."""
        tokens = self.embed(pixel_values)
        for block in self.blocks:
            tokens = block(tokens)
        encoded: Tensor = self.norm(tokens)
        return encoded

    def pool(self, tokens: Tensor) -> Tensor:
        """The class token of ``(b, n, d)``, through the pre-logits layer if there is one."""
        pooled = tokens[:, 0]
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
            pixel_values: ``(b, c, H, W)``, normalised.
        """
        tokens = self.encode(pixel_values)
        embedding = self.pool(tokens)
        results = {"tokens": tokens, "embedding": embedding}
        if "logits" in self.outputs:
            results["logits"] = self.classify(tokens, embedding)
        chosen = tuple(results[name] for name in self.outputs)
        return chosen[0] if len(chosen) == 1 else chosen

    def for_export(self, outputs: Sequence[OutputName] = ()) -> ViT:
        """The same weights, shared, in the reshape layout and in the same mode and dtype.

        Args:
            outputs: what the twin returns; this model's own outputs when empty.
        """
        with torch.device("meta"):
            twin = ViT(
                self.config,
                layout=RESHAPE,
                patch_form=self.patch_embed.form,
                outputs=outputs or self.outputs,  # type: ignore[arg-type]
            )
        # Loading by assignment gives each parameter the twin's requires_grad; these are this model's own
        # parameters, so frozen ones would thaw.
        frozen = {name for name, value in self.named_parameters() if not value.requires_grad}
        for name, value in twin.named_parameters():
            value.requires_grad_(name not in frozen)
        twin.load_state_dict(self.state_dict(keep_vars=True), assign=True)
        return twin.train(self.training)
