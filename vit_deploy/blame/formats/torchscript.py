"""Looking into a TorchScript archive: the graph gives taps behind its outputs, and is saved anew.

The residual stream is found by its structure, as in :mod:`vit_deploy.graph.taps`. An archive is code:
it is loaded here, so only one from a bundle that the user trusts may come this far.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

from vit_deploy.blame.formats import require_taps, require_vit, with_tap_specs
from vit_deploy.blame.taps import TOKENS, stream_taps
from vit_deploy.errors import RunFailed
from vit_deploy.graph.taps import Step, find_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vit_deploy.graph.taps import Kind
    from vit_deploy.protocols import Artefact

_KINDS: Mapping[str, Kind] = {
    "aten::layer_norm": "norm",
    **dict.fromkeys(
        ("aten::to", "aten::detach", "aten::contiguous", "aten::clone", "aten::dropout", "aten::alias"), "same"
    ),
    **dict.fromkeys(("aten::size", "aten::sym_size", "aten::numel", "aten::_shape_as_tensor"), "sizes"),
}


def found_taps(artefact: Artefact) -> tuple[str, ...]:
    """See :func:`vit_deploy.blame.formats.found_taps`."""
    return tuple(_places(_graph(artefact), artefact))


def tapped(artefact: Artefact, taps: Sequence[str], folder: Path) -> Artefact:
    """See :func:`vit_deploy.blame.formats.tapped`; an archive holds its weights, so each has them whole."""
    import torch

    graph = _graph(artefact)
    places = _places(graph, artefact)
    require_taps(artefact, taps, places)
    _give(graph, [places[tap] for tap in taps])
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{artefact.name}-{'-'.join(taps[:2])}-{len(taps)}.pt"
    with _quiet():
        function = torch._C._create_function_from_graph("forward", graph)
        torch.jit.save(function, str(target))
    return with_tap_specs(artefact, taps, target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back PyTorch's word that TorchScript is deprecated: the format's description says it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
        yield


def _graph(artefact: Artefact) -> Any:
    """A copy of the frozen graph, without the module that it belongs to.

    Raises:
        RunFailed: when it cannot be opened, or is not frozen and cannot be.
    """
    import torch

    try:
        with _quiet():
            module = torch.jit.load(str(artefact.path), map_location="cpu")  # type: ignore[no-untyped-call]
            if any(True for _ in module.named_parameters()):
                module = torch.jit.freeze(module.eval())
        graph = module.graph.copy()
        owner = next(graph.inputs())
        if owner.uses():
            raise RuntimeError("its graph asks its module for more than weights")
        graph.eraseInput(0)
    except (RuntimeError, ValueError) as error:
        raise RunFailed(
            f"{artefact.name} cannot be looked into: {str(error).splitlines()[0]}",
            expected="an archive that `vit-deploy export --format torchscript` wrote",
        ) from error
    return graph


def _places(graph: Any, artefact: Artefact) -> dict[str, Any]:
    """The value at each tap."""
    config = require_vit(artefact)
    nodes = [node for node in graph.nodes() if node.kind() != "prim::Constant"]
    stream = find_stream([_step(node) for node in nodes], config.depth)
    names = dict(zip(stream_taps(config.depth), (stream.start, *stream.links), strict=True))
    if stream.normed and config.final_norm and TOKENS not in artefact.spec.output_names:
        names[TOKENS] = stream.normed
    values = {value.debugName(): value for node in nodes for value in node.outputs()}
    return {tap: values[name] for tap, name in names.items()}


def _step(node: Any) -> Step:
    inputs = [value.debugName() for value in node.inputs()]
    kind = _KINDS.get(node.kind(), "other")
    if node.kind() == "aten::add" and _is_plain_sum(node):
        kind, inputs = "add", inputs[:2]
    return Step(kind, node.kind(), tuple(inputs), tuple(value.debugName() for value in node.outputs()))


def _is_plain_sum(node: Any) -> bool:
    """Whether ``aten::add`` adds two tensors, the second as it is."""
    left, right, factor = node.inputs()
    tensors = all(value.type().kind() == "TensorType" for value in (left, right))
    return tensors and factor.node().kind() == "prim::Constant" and factor.toIValue() == 1


def _give(graph: Any, values: Sequence[Any]) -> None:
    """Make a graph return a tuple: what it returned before, then ``values``."""
    import torch

    (result,) = graph.outputs()
    given = [result]
    if result.node().kind() == "prim::TupleConstruct":
        given = [*result.node().inputs()]
    everything = [*given, *values]
    joined = graph.create("prim::TupleConstruct", everything, 1)
    graph.appendNode(joined)
    tensor = torch._C.TensorType.get()
    joined.output().setType(torch._C.TupleType([tensor] * len(everything)))
    graph.eraseOutput(0)
    graph.registerOutput(joined.output())
