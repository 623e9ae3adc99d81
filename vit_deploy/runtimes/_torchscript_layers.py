"""The dtype of each layer of a TorchScript graph, by class.

A graph that was loaded from an archive says nothing of its values' types. They follow from those of its
inputs and constants: TorchScript converts nothing but where ``aten::to`` says so, and otherwise promotes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from vit_deploy.facts import LayerClass

ATTENTION = "aten::scaled_dot_product_attention"
SOFTMAX = "aten::softmax"
_CLASSES: dict[str, LayerClass] = {
    **dict.fromkeys(("aten::linear", "aten::addmm", "aten::_convolution", "aten::conv2d"), "linear"),
    ATTENTION: "attention",
    SOFTMAX: "softmax",
    "aten::layer_norm": "layernorm",
    **dict.fromkeys(("aten::gelu", "aten::silu", "aten::relu", "aten::sigmoid", "aten::tanh"), "activation"),
}
_NAMES = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def count_layers(graph: Any, inputs: list[torch.dtype]) -> dict[str, dict[str, int]]:
    """Number of layers by dtype, for each class that the graph has.

    Args:
        graph: a ``torch.Graph``, frozen.
        inputs: the dtypes that its inputs are given in, in order; the module itself comes before them.
    """
    types = dict(zip([value.debugName() for value in graph.inputs()][1:], inputs, strict=True))
    counted: dict[str, Counter[str]] = {}
    for node in graph.nodes():
        dtype = _dtype(node, types)
        if dtype is None:
            continue
        types.update((value.debugName(), dtype) for value in node.outputs())
        kind = _CLASSES.get(node.kind())
        if kind is not None:
            counted.setdefault(kind, Counter())[name_of(dtype)] += 1
    ends = [*inputs, *_results(graph, types)]
    counted["io"] = Counter(map(name_of, ends))
    return {kind: dict(sorted(found.items())) for kind, found in counted.items()}


def name_of(dtype: torch.dtype) -> str:
    """Our name of a dtype."""
    word = str(dtype).removeprefix("torch.")
    return _NAMES.get(word, word)


def is_masked(graph: Any) -> bool:
    """Whether something is added to the scores of any attention."""
    return any(
        node.kind() == ATTENTION and node.inputsAt(3).type().kind() != "NoneType" for node in graph.nodes()
    )


def _dtype(node: Any, types: dict[str, torch.dtype]) -> torch.dtype | None:
    import torch

    if node.kind() == "prim::Constant":
        return node.t("value").dtype if node.output().type().kind() == "TensorType" else None
    if node.kind() == "aten::to":
        asked = [value.toIValue() for value in node.inputs()][1:]
        told = [entry for entry in asked if isinstance(entry, int) and not isinstance(entry, bool)]
        if told:
            return _by_number().get(told[0])
    given = [types[value.debugName()] for value in node.inputs() if value.debugName() in types]
    found = given[0] if given else None
    for dtype in given[1:]:
        found = torch.promote_types(found, dtype)  # type: ignore[arg-type]
    return found


def _by_number() -> dict[int, torch.dtype]:
    """PyTorch's dtypes by the numbers that a graph has for them (c10/core/ScalarType.h)."""
    import torch

    return {
        0: torch.uint8,
        1: torch.int8,
        3: torch.int32,
        4: torch.int64,
        5: torch.float16,
        6: torch.float32,
        7: torch.float64,
        11: torch.bool,
        15: torch.bfloat16,
    }


def _results(graph: Any, types: dict[str, torch.dtype]) -> list[torch.dtype]:
    """The dtypes of the outputs; several stand in one tuple."""
    values = []
    for value in graph.outputs():
        node = value.node()
        values += list(node.inputs()) if node.kind() == "prim::TupleConstruct" else [value]
    return [types[value.debugName()] for value in values if value.debugName() in types]
