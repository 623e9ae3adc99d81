"""What OpenVINO's CPU plugin made of a graph: its runtime model, by class of layers.

The runtime model names for each node its kernel (``primitiveType``), the precision that it computes in
(``runtimePrecision``, and the end of the kernel's name) and the nodes of the graph that went into it
(``originalLayersNames``); see https://docs.openvino.ai, "Execution graph". Attention is one
``ScaledDotProductAttention``, or a ``Subgraph`` that the plugin compiled of the products and the softmax
between them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.facts import LayerClass
    from vit_deploy.spec import Precision

_CLASSES: dict[str, LayerClass] = {
    **dict.fromkeys(("FullyConnected", "Convolution", "QKVProjection"), "linear"),
    "ScaledDotProductAttention": "attention",
    "Softmax": "softmax",
    **dict.fromkeys(("MVN", "RMSNorm"), "layernorm"),
}
_ACTIVATIONS = {"Gelu", "Erf", "Sigmoid", "Swish", "Relu", "Tanh", "SoftPlus", "HSwish", "Mish", "Elu"}
"""Operators of the graph; the plugin fuses them into the products before them where it can."""

_PRECISIONS: dict[str, Precision] = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8"}
_DTYPES: dict[str, str] = {**_PRECISIONS, "f64": "fp64", "u8": "int8"}
"""Signed or not, a product of 8-bit numbers is one of int8; as an input they are a picture."""
_OPERANDS_OF_ATTENTION = 3
"""Queries, keys and values: a softmax alone has but one operand, and its mask."""


@dataclass(frozen=True)
class RuntimeLayers:
    """What stands in a runtime model.

    Attributes:
        nodes: nodes that compute or move something.
        dtypes: number of layers by dtype, for each class.
        fused_attention: attentions that are one node.
        softmaxes: softmaxes that stand alone, and so attentions that do not.
        attention_kernels: the kernels of the fused attentions.
        low_precision: layers with weights that compute in 8 bits.
        bulk: what most of the linear layers compute in; ``None`` where there are none.
    """

    nodes: int
    dtypes: dict[str, dict[str, int]]
    fused_attention: int
    softmaxes: int
    attention_kernels: dict[str, int]
    low_precision: int
    bulk: Precision | None


def operators_by_name(model: Any) -> dict[str, str]:
    """The operator behind each name of a graph that was read and not compiled yet."""
    return {node.get_friendly_name(): node.get_type_name() for node in model.get_ordered_ops()}


def origins_of(runtime_model: Any) -> dict[str, str]:
    """The layers that went into each node of a runtime model, as it writes them: lost where it is kept."""
    return {
        node.get_friendly_name(): str(node.get_rt_info()["originalLayersNames"].astype(str))
        for node in runtime_model.get_ordered_ops()
        if "originalLayersNames" in node.get_rt_info()
    }


def count_layers(
    runtime_model: Any, operators: dict[str, str], origins: Mapping[str, str] | None = None
) -> RuntimeLayers:
    """Count a runtime model.

    Args:
        runtime_model: as ``CompiledModel.get_runtime_model`` gives it.
        operators: of the graph, as :func:`operators_by_name` gives them.
        origins: as :func:`origins_of` gave them when it was compiled; its own where ``None``.
    """
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    kernels: Counter[str] = Counter()
    products: Counter[str] = Counter()
    nodes = 0
    for node in runtime_model.get_ordered_ops():
        told = _Told(node, origins or {})
        nodes += told.kind not in {"Const", "Input", "Output"}
        if told.kind in {"Input", "Output"}:
            counted["io"][_named_type(node)] += 1
            continue
        kind = "attention" if _is_attention(node, told) else _CLASSES.get(told.kind)
        if kind is not None:
            counted[kind][told.dtype] += 1
        if kind == "attention":
            kernels[told.kernel] += 1
        elif told.kind == "MatMul":
            products[told.dtype] += 1
        if any(operators.get(name) in _ACTIVATIONS for name in told.made_of):
            counted["activation"][told.dtype] += 1
    if counted["softmax"]:
        counted["attention"].update(products)  # without weights, so of an attention that is spelled out
    linear = counted["linear"]
    bulk = max(linear, key=lambda dtype: linear[dtype]) if linear else ""
    known: dict[str, Precision] = {dtype: dtype for dtype in _PRECISIONS.values()}
    return RuntimeLayers(
        nodes=nodes,
        dtypes={kind: dict(sorted(found.items())) for kind, found in counted.items() if found},
        fused_attention=sum(kernels.values()),
        softmaxes=sum(counted["softmax"].values()),
        attention_kernels=dict(sorted(kernels.items())),
        low_precision=linear["int8"],
        bulk=known.get(bulk),
    )


class _Told:
    """What a node says of itself."""

    def __init__(self, node: Any, origins: Mapping[str, str]) -> None:
        information = node.get_rt_info()

        def read(key: str) -> str:
            return str(information[key].astype(str)) if key in information else ""

        self.kind = read("layerType")
        self.kernel = read("primitiveType")
        precision = read("runtimePrecision")
        # Where weights are held in fewer bits than the kernel computes in, it is they that are told of.
        computed = "f32" if self.kernel.endswith("_f32") else precision
        self.dtype = _DTYPES.get(computed, computed)
        origin = origins.get(node.get_friendly_name()) or read("originalLayersNames")
        self.made_of = [name for name in origin.split(",") if name]


def _is_attention(node: Any, told: _Told) -> bool:
    if told.kind == "ScaledDotProductAttention":
        return True
    operands = sum(True for _ in node.inputs())
    return (
        told.kind == "Subgraph"
        and operands >= _OPERANDS_OF_ATTENTION
        and any("softmax" in name.lower() for name in told.made_of)
    )


def _named_type(node: Any) -> str:
    """The type of an input or output of the model."""
    port = node.output(0) if node.get_output_size() else node.input(0)
    word = str(port.get_element_type().get_type_name())
    return "uint8" if word == "u8" else _DTYPES.get(word, word)
