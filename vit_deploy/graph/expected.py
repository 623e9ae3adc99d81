"""What the graph of a config must hold, by operator."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from vit_deploy.graph.lower_opset import ATTENTION_OPSET, GELU_OPSET

if TYPE_CHECKING:
    from vit_deploy.model.config import Activation, ViTConfig
    from vit_deploy.model.kinds import Architecture
    from vit_deploy.protocols import Artefact
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
    expected: Counter[str] = Counter(
        LayerNormalization=config.depth * per_block + config.pre_norm + config.final_norm,
        Attention=config.depth,
    )
    expected[_ACTIVATION_OPERATOR[config.activation]] += config.depth
    if pooled(spec):
        attends = config.pool == "map"
        expected["LayerNormalization"] += config.fc_norm + attends
        expected["ReduceMean"] += config.pool in _AVERAGES
        expected["Attention"] += attends
        expected[_ACTIVATION_OPERATOR[config.pool_activation]] += attends
    if {"embedding", "image_embeds"} <= set(spec.output_names) and not config.projection_dim:
        expected["Identity"] += 1  # the two are the same values under two names
    if opset < ATTENTION_OPSET:
        del expected["Attention"]
    if opset < GELU_OPSET:
        del expected["Gelu"]
    return expected


def expected_attentions(config: Architecture, spec: IOSpec) -> int | None:
    """How many attentions there are, in whatever form; ``None`` for a module whose inside is not known."""
    from vit_deploy.model.config import ViTConfig

    if not isinstance(config, ViTConfig):
        return None
    return expected_operators(config, spec, ATTENTION_OPSET)["Attention"]


def counted_attentions(artefact: Artefact) -> dict[str, int] | None:
    """``fused`` and ``of``, as the exporter counted them in what it built; ``None`` where it did not.

    An attention that the exporter let be taken apart is not fused, whatever came of it.
    """
    counted = artefact.facts.get("attention")
    if not isinstance(counted, dict) or not {"layers", "decomposable"} <= set(counted):
        return None
    of = expected_attentions(artefact.config, artefact.spec)
    layers = int(counted["layers"])
    return {"fused": layers - int(counted["decomposable"]), "of": layers if of is None else of}


def pooled_movement(spec: IOSpec) -> Counter[str]:
    """The most nodes after the blocks that only cut tensors up: what picks the tokens to be pooled.

    One ``Gather`` for each prefix token that is read, and a ``Slice`` for all tokens but those.
    """
    return Counter(Gather=2, Slice=2) if pooled(spec) else Counter()
