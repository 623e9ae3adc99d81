"""Faults of the model's definition: what a port, or an exporter's own copy of the model, gets wrong.

The module is changed before it is captured, and goes through the real exporter and the real runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.parity.case import Case, Fault
from benchmarks.parity.mutations import defined_otherwise
from vit_deploy.model.mlp import QuickGELU

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.parity.workbench import Workbench

    Change = Callable[[Any], None]


def _fault(
    name: str,
    family: str,
    where: str,
    change: Change,
    *outputs: str,
    format: str = "onnx",
    missed: str = "",
) -> Fault:
    """A fault of the definition; a reader would look for it in the step from PyTorch to the graph."""

    def make(bench: Workbench) -> Case:
        subject = bench.subject(family)
        spec = bench.spec(subject.model, outputs)
        wrong = defined_otherwise(subject.model, change)
        made = bench.written(wrong, spec) if format == "onnx" else bench.export(wrong, format, spec)
        return Case(subject, made)

    return Fault(name, "model", family, "export", where, make, missed)


def _activation(make: Callable[[], nn.Module]) -> Change:
    def change(vit: Any) -> None:
        for block in vit.blocks:
            block.mlp.act = make()

    return change


def _norm_eps(eps: float) -> Change:
    def change(vit: Any) -> None:
        for module in vit.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = eps

    return change


class _EpsOutside(nn.LayerNorm):
    """``(x - mean) / (std + eps)`` for ``(x - mean) / sqrt(var + eps)``."""

    def forward(self, tensor: Tensor) -> Tensor:
        centred = tensor - tensor.mean(-1, keepdim=True)
        deviation = (centred * centred).mean(-1, keepdim=True).sqrt()
        return centred / (deviation + self.eps) * self.weight + self.bias


class _BiasedVariance(nn.LayerNorm):
    """The variance over ``d - 1``, as ``torch.var`` takes it when it is not told otherwise."""

    def forward(self, tensor: Tensor) -> Tensor:
        centred = tensor - tensor.mean(-1, keepdim=True)
        return centred / (tensor.var(-1, keepdim=True) + self.eps).sqrt() * self.weight + self.bias


def _norms_as(kind: type[nn.LayerNorm]) -> Change:
    def change(vit: Any) -> None:
        for module in vit.modules():
            if isinstance(module, nn.LayerNorm):
                module.__class__ = kind

    return change


def _without_layer_scale(vit: Any) -> None:
    for block in vit.blocks:
        for scale in (block.ls1, block.ls2):
            scale.forward = lambda tokens: tokens


def _replaced(attention: Any, scores: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Attention with other scores, written out."""

    def forward(tokens: Tensor, *_: Any) -> Tensor:
        query, key, value = attention.split_heads(attention.qkv(tokens))
        mixed = scores(query, key).softmax(-1) @ value
        return attention.proj(attention.merge_heads(mixed))

    attention.forward = forward


def _scaled_by_the_width(vit: Any) -> None:
    width = vit.config.embed_dim
    for block in vit.blocks:
        _replaced(block.attn, lambda query, key: query @ key.transpose(-1, -2) / width**0.5)


def _without_qk_norm(vit: Any) -> None:
    for block in vit.blocks:
        for norm in (block.attn.q_norm, block.attn.k_norm):
            norm.forward = lambda heads: heads


def _no_final_norm(vit: Any) -> None:
    vit.norm.forward = lambda tokens: tokens


def _norm_before_pool(vit: Any) -> None:
    vit.pool = lambda tokens: vit.token_pool(vit.fc_norm(tokens))


def _mean_of_all(vit: Any) -> None:
    vit.token_pool.kind = "avg_all"


def _one_head_of_two(vit: Any) -> None:
    vit.classify = lambda _, embedding: vit.head(embedding)


def _swapped_gate(vit: Any) -> None:
    for block in vit.blocks:
        mlp = block.mlp

        def forward(tokens: Tensor, mlp: Any = mlp) -> Tensor:
            value, gate = mlp.fc1(tokens).chunk(2, dim=-1)
            return mlp.fc2(mlp.norm(mlp.act(gate) * value))

        mlp.forward = forward


def _turned_backwards(vit: Any) -> None:
    for block in vit.blocks:
        turn = block.attn.rotate.quarter_turn
        right = turn.forward
        turn.forward = lambda tensor, right=right: -right(tensor)


def _other_pairing(vit: Any) -> None:
    for block in vit.blocks:
        rotate = block.attn.rotate
        rotate.quarter_turn = vit.layout.quarter_turn("halves")


def _other_axes(vit: Any) -> None:
    right = vit.rope._coordinates
    vit.rope._coordinates = lambda *given: right(*given)[::-1]


def _lost_register(vit: Any) -> None:
    right = vit.positions.forward

    def forward(prefix: list[Tensor], *others: Any) -> Tensor:
        return right([*prefix[:-1], prefix[-1][:, :-1]], *others)

    vit.positions.forward = forward


def _transposed_bias(vit: Any) -> None:
    for block in vit.blocks:
        table = block.attn.rel_pos
        right = table.forward
        table.forward = lambda index, right=right: right(index).transpose(-1, -2)


def _no_residual_in_pool(vit: Any) -> None:
    pool = vit.attn_pool

    def forward(tokens: Tensor) -> Tensor:
        query = pool.split_query(pool.q(pool.latent)).expand(tokens.shape[0], -1, -1, -1)
        key, value = pool.split_keys_and_values(pool.kv(tokens))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        projected = pool.proj(pool.merge_heads(mixed))
        return pool.mlp(pool.norm(projected))[:, 0]

    pool.forward = forward


def _merged_in_the_export_layout(bench: Workbench) -> Case:
    """The twin for export merges heads side by side in the wrong order: the twin itself is wrong."""
    from vit_deploy.model import layout

    class Merge(nn.Module):
        def forward(self, heads: Tensor) -> Tensor:
            return torch.flatten(heads.permute(0, 2, 3, 1), 2)

    bench.patch(type(layout.RESHAPE), "merge_heads", lambda _: Merge())
    subject = bench.subject("vit")
    return Case(subject, bench.export(subject.model))


_LOST_IN_ROUNDING = (
    "1e-6 beside the variances of these tokens changes the outputs by less than honest rounding in float32 does"
)

FAULTS: tuple[Fault, ...] = (
    _fault("GELU in its tanh form", "vit", "blocks.0.mlp", _activation(lambda: nn.GELU("tanh"))),
    _fault("QuickGELU for GELU", "vit", "blocks.0.mlp", _activation(QuickGELU)),
    _fault("GELU for QuickGELU", "clip", "blocks.0.mlp", _activation(nn.GELU)),
    _fault("LayerNorm eps 1e-5 for 1e-6", "vit", "blocks.0.attn", _norm_eps(1e-5)),
    _fault("LayerNorm eps 1e-12 for 1e-6", "vit", "blocks.0.attn", _norm_eps(1e-12), missed=_LOST_IN_ROUNDING),
    _fault("LayerNorm eps outside the root", "clip", "embed", _norms_as(_EpsOutside)),
    _fault("LayerNorm variance over d - 1", "vit", "blocks.0.attn", _norms_as(_BiasedVariance)),
    _fault("LayerScale dropped", "dinov2", "blocks.0.attn", _without_layer_scale),
    _fault("scores scaled by the model's width", "vit", "blocks.0.attn", _scaled_by_the_width),
    _fault("norms of q and k dropped", "qk-norm", "blocks.0.attn", _without_qk_norm),
    _fault("final LayerNorm dropped", "vit", "logits", _no_final_norm),
    _fault("pooled after the norm, not before", "gap", "logits", _norm_before_pool),
    _fault("mean of all tokens, class token included", "gap", "logits", _mean_of_all),
    _fault("distillation head forgotten", "distilled", "logits", _one_head_of_two),
    _fault("gate and value of SwiGLU swapped", "dinov2", "blocks.0.mlp", _swapped_gate),
    _fault("RoPE turned backwards", "eva02", "blocks.0.attn", _turned_backwards),
    _fault("RoPE pairs half a head apart, not side by side", "eva02", "blocks.0.attn", _other_pairing),
    _fault("RoPE axes swapped", "dinov3", "blocks.0.attn", _other_axes),
    _fault("a register token lost", "dinov2", "embed", _lost_register, "embedding"),
    _fault("relative positions transposed", "beit", "blocks.0.attn", _transposed_bias, format="torchscript"),
    _fault("residual of attention pooling dropped", "siglip", "embedding", _no_residual_in_pool, "embedding"),
    Fault(
        "heads merged in the wrong order by the twin for export",
        "model",
        "vit",
        "model",
        "blocks.0.attn",
        _merged_in_the_export_layout,
    ),
)
