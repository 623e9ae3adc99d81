"""The dtype of each layer of an ONNX graph, by class, and its attentions: from the graph, no weight is read.

Known are the standard operators, ONNX Runtime's own, and the forms in which exporters spell out what is
one operator in newer opsets: attention as two products around a softmax, LayerNormalization as powers and
means. Bodies of ``If`` and ``Loop`` and local functions are not looked into.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.facts import LAYER_CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from vit_deploy.facts import LayerClass

DTYPE_NAMES = {
    "DOUBLE": "fp64",
    "FLOAT": "fp32",
    "FLOAT16": "fp16",
    "BFLOAT16": "bf16",
    "FLOAT8E4M3FN": "fp8",
    "FLOAT8E4M3FNUZ": "fp8",
    "FLOAT8E5M2": "fp8",
    "FLOAT8E5M2FNUZ": "fp8",
    "INT8": "int8",
    "UINT8": "uint8",
}
"""Our names of ONNX's types."""

ATTENTION_OPERATORS = frozenset(
    {
        "Attention",
        "DecoderMaskedMultiHeadAttention",
        "GroupQueryAttention",
        "MultiHeadAttention",
        "PackedAttention",
        "PackedMultiHeadAttention",
        "QAttention",
    }
)
"""Attention as one operator: ONNX's, from opset 23 on, and ONNX Runtime's own."""

_PRODUCTS = {
    *(
        "MatMul",
        "Gemm",
        "Conv",
        "Einsum",
        "FusedMatMul",
        "FusedGemm",
        "FusedConv",
        "TransposeMatMul",
        "GemmFloat8",
    ),
    *("GemmFloat8", "MatMulNBits", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "QGemm"),
    *("DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
}
_INTEGER_PRODUCTS = {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "QGemm", "QAttention"} | {
    *("DynamicQuantizeMatMul", "MatMulIntegerToFloat")
}
_CLASSES: dict[str, LayerClass] = {
    **dict.fromkeys(ATTENTION_OPERATORS, "attention"),
    **dict.fromkeys(("Softmax", "LogSoftmax", "BiasSoftmax"), "softmax"),
    **dict.fromkeys(("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization"), "layernorm"),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), "layernorm"),
    **dict.fromkeys(("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "Erf", "Tanh", "Sigmoid"), "activation"),
    **dict.fromkeys(("Relu", "Swish", "HardSwish", "Mish", "Elu", "LeakyRelu", "Softplus"), "activation"),
}
_THROUGH = {
    *("Add", "Sub", "Mul", "Div", "Where", "Cast", "Clip", "Min", "Max", "Dropout", "Identity"),
    *("Reshape", "Transpose", "Unsqueeze", "Squeeze", "QuantizeLinear", "DequantizeLinear"),
}
"""What may stand between a product and its softmax."""
_REACH = 8
"""How many of those at most."""


WEIGHT = "vit-deploy: a weight, unread"
"""The description of an input that stands for a weight."""


@dataclass(frozen=True)
class LayerCensus:
    """What the layers of a graph are.

    Attributes:
        dtypes: number of layers by dtype, for each class that the graph has.
        attentions: attentions that are one operator.
        spelled_out: attentions that are products around a softmax.
    """

    dtypes: dict[str, dict[str, int]]
    attentions: int
    spelled_out: int


def count_layers(proto: onnx.ModelProto) -> LayerCensus:
    """Count the layers of a graph by class and dtype.

    Args:
        proto: the model; weights may be initializers, or inputs that no tensor was read for, as
            :func:`vit_deploy.graph.scan.skeleton_of` gives them.
    """
    return _Census(proto).count()


class _Census:
    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        self.nodes = list(graph.node)
        self.types = _types(proto)
        self.made_by = {name: node for node in self.nodes for name in node.output if name}
        self.constant = {entry.name for entry in graph.initializer}
        self.constant |= {entry.name for entry in graph.input if entry.doc_string == WEIGHT}
        for node in self.nodes:
            # What is made of weights alone (a transposed or dequantised weight) is a weight.
            if all(name in self.constant for name in node.input if name):
                self.constant.update(node.output)
        inputs = [entry for entry in graph.input if entry.name not in self.constant]
        self.ends = [entry.name for entry in (*inputs, *graph.output)]
        self.users: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.users[name].append(node)

    def count(self) -> LayerCensus:
        counted: dict[str, Counter[str]] = {name: Counter() for name in LAYER_CLASSES}
        attentions = 0
        for node in self.nodes:
            kind = self._class(node)
            if kind is None:
                continue
            counted[kind][self._dtype(node)] += 1
            if kind == "attention":
                attentions += 1
                counted["softmax"][self._softmax(node)] += 1
        spelled_out = [products for node in self.nodes if (products := self._products_around(node))]
        for products in spelled_out:
            counted["attention"].update(map(self._dtype, products))
        counted["io"].update(self._name(name) for name in self.ends)
        dtypes = {name: dict(sorted(found.items())) for name, found in counted.items() if found}
        return LayerCensus(dtypes, attentions, len(spelled_out))

    def _class(self, node: onnx.NodeProto) -> LayerClass | None:
        if node.op_type in _PRODUCTS:
            return "linear" if any(name in self.constant for name in node.input) else None
        if self._squares(node) and any(user.op_type == "ReduceMean" for user in self.users[node.output[0]]):
            return "layernorm"  # the variance of one that is spelled out
        return _CLASSES.get(node.op_type)

    @staticmethod
    def _squares(node: onnx.NodeProto) -> bool:
        return node.op_type == "Pow" or (node.op_type == "Mul" and len(set(node.input)) == 1)

    def _dtype(self, node: onnx.NodeProto) -> str:
        """The dtype in which a layer computes; that of its operands where those are quantised."""
        if node.op_type in _INTEGER_PRODUCTS:
            return "int8"
        if node.op_type in _PRODUCTS or node.op_type in ATTENTION_OPERATORS:
            quantised = [self._quantised(name) for name in node.input[:2]]
            if all(quantised) and quantised:
                return quantised[0]
        return self._name(node.output[0])

    def _quantised(self, name: str) -> str:
        """The dtype that a value was dequantised from, or empty."""
        node = self.made_by.get(name)
        while node is not None and node.op_type in {"Transpose", "Reshape"}:
            node = self.made_by.get(node.input[0])
        if node is None or node.op_type != "DequantizeLinear":
            return ""
        return self._name(node.input[0]).removeprefix("u")  # signed or not, the product is one of int8

    def _softmax(self, node: onnx.NodeProto) -> str:
        """The dtype of the softmax inside an attention: its own attribute, or that of queries and keys."""
        import onnx

        told = [entry.i for entry in node.attribute if entry.name == "softmax_precision"]
        if told and told[0]:
            return _named(onnx.TensorProto.DataType.Name(told[0]))
        return self._name(node.input[0])

    def _products_around(self, softmax: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The two products of an attention that is spelled out; none for another softmax."""
        if softmax.op_type not in {"Softmax", "BiasSoftmax"}:
            return []
        first = next(self._before(softmax.input[0]), None)
        second = next(self._after(softmax.output[0]), None)
        return [first, second] if first is not None and second is not None else []

    def _free_product(self, node: onnx.NodeProto) -> bool:
        return node.op_type in _PRODUCTS and self._class(node) is None

    def _before(self, name: str, reach: int = _REACH) -> Iterator[onnx.NodeProto]:
        node = self.made_by.get(name)
        if node is None or not reach:
            return
        if self._free_product(node):
            yield node
        elif node.op_type in _THROUGH:
            for source in node.input:
                yield from self._before(source, reach - 1)

    def _after(self, name: str, reach: int = _REACH) -> Iterator[onnx.NodeProto]:
        for node in self.users[name] if reach else ():
            if self._free_product(node):
                yield node
            elif node.op_type in _THROUGH:
                yield from self._after(node.output[0], reach - 1)

    def _name(self, value: str) -> str:
        return self.types.get(value, "unknown")


def _types(proto: onnx.ModelProto) -> dict[str, str]:
    """Our name of each value's dtype: as ONNX infers it; beyond operators that it knows, the first input's."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(proto).graph
    except onnx.shape_inference.InferenceError:
        inferred = proto.graph  # shapes that contradict each other are not for this to judge
    numbers = {entry.name: entry.data_type for entry in inferred.initializer}
    for entry in (*inferred.input, *inferred.value_info, *inferred.output):
        if entry.type.tensor_type.elem_type:
            numbers[entry.name] = entry.type.tensor_type.elem_type
    for node in inferred.node:
        known = [numbers[name] for name in node.input if name in numbers]
        for name in node.output:
            if name and name not in numbers and known:
                numbers[name] = known[0]
    return {name: _named(onnx.TensorProto.DataType.Name(number)) for name, number in numbers.items()}


def _named(onnx_name: Any) -> str:
    return DTYPE_NAMES.get(str(onnx_name), str(onnx_name).lower())
