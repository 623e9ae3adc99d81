"""SmoothQuant: channels that come in too large are made smaller, and the weights that read them larger.

A tensor is quantised in one range, so a channel ten times larger than the others leaves those a tenth of the
codes; weights have a range for each output channel and do not mind. Channel ``j`` is divided by
``max|x_j|**a / max|w_j|**(1 - a)``, and the row of the weight that reads it multiplied (Xiao et al. 2023,
https://arxiv.org/abs/2211.10438, equation 4). It is done where the division is free and exact, but for
float32's own rounding, because something linear in each channel stands before:

* the weight and bias of a ``LayerNormalization``: before qkv and fc1;
* the columns of the product that made the channel, through ``Attention`` (which mixes each channel of the
  values among tokens only), a gate's ``Mul``, ``Relu``, ``Split`` and a bias: qkv before proj; fc1 before fc2
  in a gated MLP or one with ReLU. Through a GELU it cannot be done.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.graph.capture import is_unread
from vit_deploy.quantisation.insert import reader
from vit_deploy.quantisation.places import by_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import onnx_ir as ir
    import torch
    from numpy.typing import NDArray

    from vit_deploy.quantisation.places import Place

    Floats = NDArray[np.floating]

LIMIT = 2.0**10
"""No channel is made smaller or larger than by this: weights of nothing need no rescue."""

_REACH = 12
"""Nodes at most between a tensor and what it is divided in."""


@dataclass(frozen=True)
class Part:
    """Some channels of an initializer."""

    name: str
    axis: int
    start: int
    stop: int


def smooth(
    graph: ir.Model, places: Sequence[Place], channel_max: Mapping[str, Floats], strength: float
) -> dict[str, int]:
    """Divide what comes into the places, channel by channel, in place; the outputs stay the same.

    Args:
        graph: in fp32; weights stay unread, but each is looked at once.
        places: those that will be quantised.
        channel_max: for each source, the largest magnitude of each channel, ``(c,)``.
        strength: from 0, which does nothing, to 1, which leaves all the work to the weights.

    Returns:
        How many tensors were divided, by the operator that they come from; ``none`` counts those where
        nothing linear stands before.
    """
    if strength <= 0:
        return {}
    values = {value.name: value for node in graph.graph for value in node.outputs}
    counted: Counter[str] = Counter()
    for source, readers in by_source(places).items():
        value = values.get(source)
        producer = value.producer() if value is not None else None
        parts = _parts(value, len(readers)) if value is not None and _only_products(value, readers) else []
        if not parts or producer is None:
            counted["none"] += 1
            continue
        factors = _factors(graph, readers, channel_max[source], strength)
        for part in parts:
            _rescale(graph, part, 1 / factors)
        for place in readers:
            _rescale(graph, Part(place.weight, place.inner, 0, len(factors)), factors)
        counted[producer.op_type] += 1
    return dict(sorted(counted.items()))


def _only_products(value: ir.Value, readers: Sequence[Place]) -> bool:
    """Whether nothing but these products reads a value, and they read it by its last axis."""
    products = {place.product for place in readers if place.operator != "Conv"}
    return not value.is_graph_output() and all(node.outputs[0].name in products for node in value.consumers())


def _factors(graph: ir.Model, readers: Sequence[Place], largest: Floats, strength: float) -> torch.Tensor:
    """What each channel is divided by, ``(c,)``."""
    import torch

    heaviest = torch.zeros(len(largest))
    for place in readers:
        tensor = graph.graph.initializers[place.weight].const_value
        if tensor is not None:
            heaviest = torch.maximum(heaviest, reader(tensor)().abs().amax(place.axis))
    active = torch.from_numpy(largest.astype("float32"))
    silent = (active <= 0) | (heaviest <= 0)
    factors = active.clamp_min(1e-30) ** strength / heaviest.clamp_min(1e-30) ** (1 - strength)
    # Only ratios matter; around 1 they are farthest from where float32 ends.
    middle = factors[~silent].log().mean().exp() if bool((~silent).any()) else torch.tensor(1.0)
    factors = (factors / middle).clamp(1 / LIMIT, LIMIT)
    return torch.where(silent, torch.ones_like(factors), factors)


def _parts(value: ir.Value, uses: int = 1) -> list[Part]:
    """What to divide so that ``value`` is divided channel by channel; empty where there is nothing."""
    width = value.shape[-1] if value.shape is not None and len(value.shape) else None
    if not isinstance(width, int):
        return []
    return _trace(value, 0, width, uses, _REACH) or []


def _trace(value: ir.Value | None, start: int, stop: int, uses: int, reach: int) -> list[Part] | None:
    """As :func:`_parts`, of the channels ``start`` to ``stop`` of a value that is read ``uses`` times."""
    node = value.producer() if value is not None else None
    if value is None or node is None or not reach or value.is_graph_output() or len(value.uses()) != uses:
        return None
    step = _STEPS.get(node.op_type)
    return None if step is None else step(node, value, start, stop, reach - 1)


def _weight_part(value: ir.Value | None, axis: int, start: int, stop: int) -> Part | None:
    """Channels of an initializer that serves nothing else."""
    tensor = value.const_value if value is not None else None
    if value is None or tensor is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    if not is_unread(tensor) or stop > int(tensor.shape.numpy()[axis]):
        return None
    return Part(value.name or "", axis, start, stop)


def _norm(node: ir.Node, _: ir.Value, start: int, stop: int, __: int) -> list[Part] | None:
    # Without a bias there is one part; a mean or a variance that is read as well would change with nothing.
    if node.attributes.get_int("axis", -1) != -1:
        return None
    found = [_weight_part(value, 0, start, stop) for value in node.inputs[1:] if value is not None]
    return _all(found)


def _product(node: ir.Node, _: ir.Value, start: int, stop: int, __: int) -> list[Part] | None:
    by_rows = node.attributes.get_int("transB", 0) == 1
    found = [_weight_part(node.inputs[1], 0 if by_rows else 1, start, stop)]
    found += [_weight_part(value, 0, start, stop) for value in node.inputs[2:] if value is not None]
    return _all(found)


def _add(node: ir.Node, _: ir.Value, start: int, stop: int, reach: int) -> list[Part] | None:
    for value, other in (node.inputs, reversed(node.inputs)):
        bias = _weight_part(value, 0, start, stop)
        if value is not None and len(value.shape or ()) == 1 and bias is not None:
            before = _trace(other, start, stop, 1, reach)
            return None if before is None else [bias, *before]
    return None


def _split(node: ir.Node, value: ir.Value, start: int, stop: int, reach: int) -> list[Part] | None:
    source = node.inputs[0]
    rank = len(source.shape) if source is not None and source.shape is not None else 0
    if source is None or not rank or node.attributes.get_int("axis", 0) not in (-1, rank - 1):
        return None
    before = node.outputs[: list(node.outputs).index(value)]
    widths = [output.shape[-1] if output.shape is not None else None for output in before]
    if not all(isinstance(width, int) for width in widths):
        return None
    offset = sum(width for width in widths if isinstance(width, int))
    return _trace(source, start + offset, stop + offset, 1, reach)


def _attention(node: ir.Node, _: ir.Value, start: int, stop: int, reach: int) -> list[Part] | None:
    heads, keys = (node.attributes.get_int(name, 0) for name in ("q_num_heads", "kv_num_heads"))
    others = any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
    if not heads or heads != keys or others:
        return None
    return _trace(node.inputs[2], start, stop, 1, reach)


def _mul(node: ir.Node, _: ir.Value, start: int, stop: int, reach: int) -> list[Part] | None:
    for value in node.inputs:
        found = _trace(value, start, stop, 1, reach)
        if found:
            return found
    return None


def _relu(node: ir.Node, _: ir.Value, start: int, stop: int, reach: int) -> list[Part] | None:
    return _trace(node.inputs[0], start, stop, 1, reach)


_STEPS: Mapping[str, Callable[[ir.Node, ir.Value, int, int, int], list[Part] | None]] = {
    "LayerNormalization": _norm,
    "MatMul": _product,
    "Gemm": _product,
    "Add": _add,
    "Split": _split,
    "Attention": _attention,
    "Mul": _mul,
    "Relu": _relu,
}
"""How a division is passed on through each operator."""


def _all(found: Sequence[Part | None]) -> list[Part] | None:
    known = [part for part in found if part is not None]
    return known if known and len(known) == len(found) else None


def _rescale(graph: ir.Model, part: Part, factors: torch.Tensor) -> None:
    """Multiply some channels of an initializer when it is read."""
    import onnx_ir as ir

    value = graph.graph.initializers[part.name]
    tensor = value.const_value
    if tensor is None:
        return
    read, axis = reader(tensor), part.axis

    def scaled() -> ir.TensorProtocol:
        numbers = read().clone()
        shape = [1] * numbers.dim()
        shape[axis] = -1
        numbers.narrow(axis, part.start, part.stop - part.start).mul_(factors.reshape(shape))
        return ir.tensor(numbers.numpy(), name=value.name)

    shape = ir.Shape(tensor.shape.numpy())
    value.const_value = ir.LazyTensor(scaled, dtype=tensor.dtype, shape=shape, name=value.name)
