"""Finding the residual stream of a ViT in a graph by its structure alone: no name is needed.

A residual addition is one whose one operand was computed from the other: ``x + f(x)``. In a pre-norm
ViT each takes the result of the one before directly, so the stream is the longest chain of such
additions, and a ViT of depth N has 2N of them: attention and MLP in turn. Biases, positions, rotations
and gates are additions of another kind, or make shorter chains.

The search works on :class:`Step`, which says of a node no more than it needs; each format translates
its own graph. ONNX is translated here, and no weight is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vit_deploy.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

Kind = Literal["add", "same", "norm", "sizes", "other"]

_KINDS: Mapping[str, Kind] = {
    "Add": "add",
    "LayerNormalization": "norm",
    **dict.fromkeys(("Identity", "Cast", "CastLike", "Dropout", "QuantizeLinear", "DequantizeLinear"), "same"),
    **dict.fromkeys(("Shape", "Size"), "sizes"),
}
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Step:
    """A node of any graph.

    Attributes:
        kind: ``add`` of two tensors; ``same``, where the result is the first operand up to rounding;
            ``norm`` over the last axis; ``sizes``, where the result says how large the operand is and
            not what is in it; or any ``other``.
        operator: the operator's name in its format.
        inputs: names of the operands.
        outputs: names of the results.
    """

    kind: Kind
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Stream:
    """The residual stream of a graph, as names of values.

    Attributes:
        start: what the first addition adds to.
        links: the results of the additions, in order.
        normed: the norm of the last one; empty where the graph has none as one node.
    """

    start: str
    links: tuple[str, ...]
    normed: str = ""


def find_stream(steps: Sequence[Step], depth: int) -> Stream:
    """The residual stream of a ViT of ``depth`` blocks.

    Args:
        steps: every node, each behind those that it depends on.
        depth: the number of blocks.

    Raises:
        RunFailed: when there is no chain of ``2 * depth`` residual additions, or more than one.
    """
    graph = _Graph(steps)
    before = graph.residual_additions()
    length: dict[str, int] = {}
    for result, source in before.items():
        length[result] = length.get(source, 0) + 1
    longest = max(length.values(), default=0)
    ends = [result for result, count in length.items() if count == longest]
    if longest != 2 * depth or len(ends) != 1:
        raise _no_stream(steps, longest, len(ends), depth)
    links = [ends[0]]
    while before[links[0]] in before:
        links.insert(0, before[links[0]])
    return Stream(before[links[0]], tuple(links), graph.norm_of(links[-1]))


class _Graph:
    """Who makes a value, and from what."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.maker = {name: index for index, step in enumerate(steps) for name in step.outputs}
        self._roots: dict[str, str] = {}
        for step in steps:
            if step.kind == "same":
                self._roots[step.outputs[0]] = self.root(step.inputs[0])

    def root(self, name: str) -> str:
        """What a value was before it was cast, or passed on as it is."""
        return self._roots.get(name, name)

    def residual_additions(self) -> dict[str, str]:
        """What each residual addition adds to, by the addition's result, in order."""
        found: dict[str, str] = {}
        for step in self.steps:
            if step.kind != "add" or len(step.inputs) != 2:
                continue
            stream, branch = sorted(map(self.root, step.inputs), key=lambda name: self.maker.get(name, -1))
            if stream in self.maker and stream != branch and self._comes_from(branch, stream):
                found[step.outputs[0]] = stream
        return found

    def _comes_from(self, name: str, source: str) -> bool:
        """Whether what is in ``name`` depends on what is in ``source``; its size alone does not count."""
        first = self.maker[source]
        waiting, seen = [name], {name}
        while waiting:
            step = self.steps[self.maker[waiting.pop()]]
            if step.kind == "sizes":
                continue
            for operand in step.inputs:
                if operand == source:
                    return True
                if operand not in seen and self.maker.get(operand, -1) > first:
                    seen.add(operand)
                    waiting.append(operand)
        return False

    def norm_of(self, name: str) -> str:
        """The result of the only norm that takes ``name``; empty where there is not just one."""
        norms = [step for step in self.steps if step.kind == "norm" and self.root(step.inputs[0]) == name]
        return norms[0].outputs[0] if len(norms) == 1 else ""


def _no_stream(steps: Sequence[Step], longest: int, chains: int, depth: int) -> RunFailed:
    fused = sorted({step.operator for step in steps if "skip" in step.operator.lower()})
    told = f"the longest chain of residual additions has {longest} of them"
    if longest == 2 * depth:
        told = f"the graph has {chains} chains of {longest} residual additions"
    if fused:
        told += f", and the graph has {', '.join(fused)}, which fuse additions with norms"
    return RunFailed(
        f"the blocks cannot be told apart in the graph: {told}",
        expected=f"one chain of {2 * depth}: attention and MLP of {depth} blocks in turn",
        next_command="export without fusing, to have it looked into",
    )


def steps_of(model: ir.Model) -> list[Step]:
    """An ONNX graph as :class:`Step`; its nodes must be in order, as ONNX asks."""
    return [_step(node) for node in model.graph]


def _step(node: ir.Node) -> Step:
    kind = _KINDS.get(node.op_type, "other") if node.domain in _STANDARD else "other"
    inputs = tuple(value.name or "" for value in node.inputs if value is not None)
    return Step(kind, node.op_type, inputs, tuple(value.name or "" for value in node.outputs))
