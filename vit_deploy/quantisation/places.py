"""Which products of a graph are quantised: those with a constant weight, found by structure alone.

A place is a ``MatMul``, ``Gemm`` or ``Conv`` whose second operand is a weight that lies unread in the
checkpoint. It has the name of the module that the weight belongs to, as ``vit-deploy inspect`` shows it.
Tables that the graph carries itself, such as those that resize a picture, are no weights and stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.errors import unknown_name
from vit_deploy.graph.capture import is_unread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

_OPERATORS = ("MatMul", "Gemm", "Conv")
_SUFFIXES = (".transposed", ".weight")
_BIAS_INPUT = 2
"""Where ``Gemm`` and ``Conv`` have their bias."""

_ROW = 2
"""Dimensions of what is pooled."""

FIRST = "it reads the input itself, whose rounding no later layer makes good, and takes 1 % of the time"
LAST = "it gives the outputs, and takes next to no time"
ASKED = "asked for"


@dataclass(frozen=True)
class Place:
    """A product that can be quantised.

    Attributes:
        name: of the layer: ``blocks.3.attn.qkv``.
        operator: ``MatMul``, ``Gemm`` or ``Conv``.
        source: name of the value that comes in.
        weight: name of the initializer.
        axis: the weight's axis of output channels.
        inner: the weight's axis of input channels.
        product: name of what the operator gives.
        bias: name of the initializer that is added, by the operator itself or right after it; or empty.
        channels: how many there are of the output.
        size: elements of the weight.
        pooled: whether it is given one row for each picture, ``(b, d)``, and no tokens.
    """

    name: str
    operator: str
    source: str
    weight: str
    axis: int
    inner: int
    product: str
    bias: str
    channels: int
    size: int
    pooled: bool = False


def find_places(graph: ir.Model) -> tuple[Place, ...]:
    """The places of a graph, in its order; no weight is read."""
    return tuple(_place(node) for node in graph.graph if is_product(node))


def is_product(node: ir.Node) -> bool:
    """Whether a node is a product of one weight of the checkpoint and something that is none.

    A product is left out where its operator scales its operands, or its weight serves something else, too.
    """
    if node.op_type not in _OPERATORS or node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
        return False
    source, weight = node.inputs[:2]
    if source is None or weight is None or source.const_value is not None or weight.const_value is None:
        return False
    rank = len(weight.const_value.shape)
    plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    straight = not node.attributes.get_int("transA", 0)
    fits = rank == 2 or node.op_type == "Conv"
    return is_unread(weight.const_value) and plain and straight and fits and len(weight.uses()) == 1


def _place(node: ir.Node) -> Place:
    source, weight = node.inputs[:2]
    if source is None or weight is None or weight.const_value is None:
        raise ValueError(f"{node.name!r} is no product")
    by_rows = node.op_type == "Conv" or node.attributes.get_int("transB", 0) == 1
    axis, inner = (0, 1) if by_rows else (1, 0)
    shape = weight.const_value.shape.numpy()
    return Place(
        name=layer_name(weight.name or ""),
        operator=node.op_type,
        source=source.name or "",
        weight=weight.name or "",
        axis=axis,
        inner=inner,
        product=node.outputs[0].name or "",
        bias=_bias(node, shape[axis]),
        channels=shape[axis],
        size=weight.const_value.size,
        pooled=source.shape is not None and len(source.shape) == _ROW,
    )


def layer_name(weight: str) -> str:
    """The layer that a weight belongs to: ``blocks.3.attn.qkv.weight.transposed`` to ``blocks.3.attn.qkv``."""
    for suffix in _SUFFIXES:
        weight = weight.removesuffix(suffix)
    return weight


def _bias(node: ir.Node, channels: int) -> str:
    own = node.inputs[_BIAS_INPUT] if len(node.inputs) > _BIAS_INPUT else None
    if own is not None:
        return (own.name or "") if _adds(own, channels) else ""
    result = node.outputs[0]
    users = result.consumers()
    if node.op_type != "MatMul" or result.is_graph_output() or len(users) != 1 or users[0].op_type != "Add":
        return ""
    others = [value for value in users[0].inputs if value is not None and value is not result]
    return (others[0].name or "") if len(others) == 1 and _adds(others[0], channels) else ""


def _adds(value: ir.Value, channels: int) -> bool:
    """Whether a value is a bias of so many channels that serves nothing else."""
    tensor = value.const_value
    if tensor is None or len(value.uses()) != 1:
        return False
    return tuple(tensor.shape.numpy()) == (channels,)


def wide_places(graph: ir.Model, places: Sequence[Place], asked: str = "") -> dict[str, str]:
    """The layers that stay in fp32, each with the reason.

    Args:
        graph: what the places are of.
        places: as :func:`find_places` gives them.
        asked: layers or what holds them, by comma: ``blocks.3.mlp, head``.

    Raises:
        UsageFailed: for a name that is none of the graph's.
    """
    few = {place.name for place in places if place.pooled}
    wide = {name: LAST for name in _ends(graph, places, forward=False) if name in few}
    wide |= dict.fromkeys(_ends(graph, places, forward=True), FIRST)
    for wanted in (part.strip() for part in asked.split(",")):
        if wanted:
            wide |= dict.fromkeys(matching(places, wanted), ASKED)
    return {place.name: wide[place.name] for place in places if place.name in wide}


def matching(places: Sequence[Place], wanted: str) -> list[str]:
    """The names of the places that ``wanted`` is, or holds.

    Raises:
        UsageFailed: when there is none; it lists the layers and what holds them.
    """
    found = [place.name for place in places if f"{place.name}.".startswith(f"{wanted}.")]
    if not found:
        parts = {part: None for place in places for part in _holders(place.name)}
        raise unknown_name("layer", wanted, parts, "vit-deploy inspect shows the layers")
    return found


def _holders(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(len(parts), 0, -1))


def _ends(graph: ir.Model, places: Sequence[Place], *, forward: bool) -> list[str]:
    """The places that no other place stands before (``forward``) or behind.

    A graph of just one kind of place, such as a single layer, has no ends: all of it would stay wide.
    """
    by_product = {place.product: place.name for place in places}
    nodes = list(graph.graph) if forward else list(reversed(list(graph.graph)))
    touched: set[ir.Value] = set()
    ends: list[str] = []
    for node in nodes:
        near, far = (node.inputs, node.outputs) if forward else (node.outputs, node.inputs)
        reached = any(value in touched for value in near if value is not None)
        name = by_product.get(node.outputs[0].name or "")
        if name is not None and not reached:
            ends.append(name)
        if name is not None or reached:
            touched.update(value for value in far if value is not None and value.const_value is None)
    return ends if len(ends) < len(places) else []


def sources(places: Sequence[Place]) -> list[str]:
    """The values that come in, each once, in the order of the places."""
    return list(dict.fromkeys(place.source for place in places))


def by_source(places: Sequence[Place]) -> Mapping[str, list[Place]]:
    """The places that read each value."""
    found: dict[str, list[Place]] = {}
    for place in places:
        found.setdefault(place.source, []).append(place)
    return found
