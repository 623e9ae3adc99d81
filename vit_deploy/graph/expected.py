"""What the graph of a config must hold, by operator, and what data movement each part may cost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from vit_deploy.graph.lower_opset import ATTENTION_OPSET, GELU_OPSET

if TYPE_CHECKING:
    from vit_deploy.model.config import Activation, ViTConfig
    from vit_deploy.spec import IOSpec

_ACTIVATION_OPERATOR: dict[Activation, str] = {
    "gelu": "Gelu",
    "gelu_tanh": "Gelu",
    "quick_gelu": "Sigmoid",
    "silu": "Sigmoid",
    "relu": "Relu",
}

_AVERAGES = {"avg", "avg_all", "avgmax", "token_avg", "prefix_avg"}
"""Pools that take a mean, which is the one ``ReduceMean`` that is no decomposed LayerNormalization."""


def pooled(spec: IOSpec) -> bool:
    """Whether anything but the tokens themselves is asked for."""
    return bool(set(spec.output_names) - {"tokens"})


def expected_operators(config: ViTConfig, spec: IOSpec, opset: int) -> Counter[str]:
    """How many nodes there must be of the operators that carry the arithmetic, no more and no fewer."""
    per_block = 2 + 2 * config.qk_norm + config.attn_norm + config.mlp_norm
    expected = Counter(
        {"LayerNormalization": config.depth * per_block + config.pre_norm + config.final_norm},
        Attention=config.depth,
    )
    expected[_ACTIVATION_OPERATOR[config.activation]] += config.depth
    if pooled(spec):
        attends = config.pool == "map"
        expected["LayerNormalization"] += config.fc_norm + attends
        expected["ReduceMean"] += config.pool in _AVERAGES
        expected["Attention"] += attends
        expected[_ACTIVATION_OPERATOR[config.pool_activation]] += attends
    if opset < ATTENTION_OPSET:
        del expected["Attention"]
    if opset < GELU_OPSET:
        del expected["Gelu"]
    return expected


def allowed_movement(config: ViTConfig, spec: IOSpec) -> Counter[str]:
    """The most nodes of the operators that only look at shapes or cut tensors up.

    A batch that is free needs one ``Shape``; a pooled token one ``Gather``, and so does the
    distillation token; positions without registers, averages, rotations and tables of relative
    positions cut, spread and look up, once for the model or once for each block.
    """
    allowed = Counter(Shape=0 if spec.batch.is_fixed else 1)
    if pooled(spec):
        allowed.update(Gather=2, Slice=2)
    if config.position_scope == "class":
        allowed.update(Slice=1 + config.num_position_prefix)
    if config.rotary is not None:
        allowed.update(Unsqueeze=4, Cast=4)
        if config.rotary.learned:
            allowed.update(Slice=2 + config.depth, Squeeze=2 + config.depth, Unsqueeze=4 + 4 * config.depth)
    if config.relative_positions != "none":
        tables = config.depth if config.relative_positions == "block" else 1
        allowed.update(Gather=tables, Unsqueeze=tables)
    return allowed
