"""The dtype of each layer of an OpenVINO IR, by class: from the graph alone, before any plugin saw it.

In the IR numbers are quantised by ``FakeQuantize``, and 8-bit weights are constants that a ``Convert`` and a
``Multiply`` lead back to their scale; a layer computes in int8 where its weights are such constants. What a
plugin makes of it is its own affair, and is counted in its compiled model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from vit_deploy.graph.openvino_ir import PRECISIONS

if TYPE_CHECKING:
    from vit_deploy.facts import LayerClass
    from vit_deploy.graph.openvino_ir import IrGraph, IrLayer

_CLASSES: dict[str, LayerClass] = {
    "ScaledDotProductAttention": "attention",
    **dict.fromkeys(("SoftMax", "Softmax"), "softmax"),
    "MVN": "layernorm",
    **dict.fromkeys(("Gelu", "Erf", "Sigmoid", "Swish", "Relu", "Tanh", "SoftPlus", "HSwish"), "activation"),
}
_PRODUCTS = {"MatMul", "Convolution", "GroupConvolution"}
_THROUGH = {"Convert", "Multiply", "Subtract", "Reshape", "Transpose", "FakeQuantize"}
"""What may stand between a constant and the product that it is the weight of."""


def count_ir_layers(graph: IrGraph) -> dict[str, dict[str, int]]:
    """Number of layers by our name of their dtype, for each class that the graph has."""
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for layer in graph.layers.values():
        if layer.operator in _PRODUCTS:
            weight = _weight(graph, layer)
            # Without weights it is of an attention that is spelled out.
            counted["attention" if weight is None else "linear"][weight or _named(layer.type)] += 1
        elif layer.operator in _CLASSES:
            counted[_CLASSES[layer.operator]][_named(layer.type)] += 1
    for tensor in (*graph.inputs, *graph.outputs):
        counted["io"]["uint8" if tensor.type == "u8" else _named(tensor.type)] += 1
    return {kind: dict(sorted(found.items())) for kind, found in sorted(counted.items())}


def _weight(graph: IrGraph, layer: IrLayer) -> str | None:
    """The dtype of a product's weight; ``None`` where both its operands are computed."""
    for source, _ in layer.sources:
        constant = _constant(graph, source)
        if constant is not None:
            eight = PRECISIONS.get(constant.type) in {"int8", "fp8"}
            return _named(constant.type if eight else layer.type)
    return None


def _constant(graph: IrGraph, number: str) -> IrLayer | None:
    """The constant that a value is but another form of; ``None`` for one that is computed from an input."""
    layer = graph.layers[number]
    if layer.operator == "Const":
        return layer
    if layer.operator not in _THROUGH or not layer.sources:
        return None
    found = [_constant(graph, source) for source, _ in layer.sources]
    return found[0] if all(found) else None


def _named(word: str) -> str:
    return "fp64" if word == "f64" else PRECISIONS.get(word, word)
