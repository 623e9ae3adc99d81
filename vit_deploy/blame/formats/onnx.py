"""Looking into an ONNX graph: taps are cast to float32 and given as further outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.blame.formats import require_taps, require_vit, with_tap_specs
from vit_deploy.blame.taps import TOKENS, stream_taps, tap_spec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx_ir as ir

    from vit_deploy.protocols import Artefact


def found_taps(artefact: Artefact) -> tuple[str, ...]:
    """See :func:`vit_deploy.blame.formats.found_taps`; no weight is read."""
    import onnx_ir as ir

    from vit_deploy.graph.light import read_light

    return tuple(_places(ir.serde.deserialize_model(read_light(artefact.path).proto), artefact))


def tapped(artefact: Artefact, taps: Sequence[str], folder: Path) -> Artefact:
    """See :func:`vit_deploy.blame.formats.tapped`; all graphs in ``folder`` share one copy of the weights."""
    import onnx_ir as ir

    from vit_deploy.graph.light import move_weights, read_light

    light = read_light(artefact.path)
    folder.mkdir(parents=True, exist_ok=True)
    move_weights(light, folder, artefact.name)
    model = ir.serde.deserialize_model(light.proto)
    places = _places(model, artefact)
    require_taps(artefact, taps, places)
    _free_names(model, set(taps))
    for tap in taps:
        _add_output(model, places[tap], tap, artefact)
    target = folder / f"{artefact.name}-{'-'.join(taps[:2])}-{len(taps)}.onnx"
    target.write_bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))
    return with_tap_specs(artefact, taps, target)


def _places(model: ir.Model, artefact: Artefact) -> dict[str, ir.Value]:
    """The value at each tap."""
    from vit_deploy.graph.taps import find_stream, steps_of

    config = require_vit(artefact)
    stream = find_stream(steps_of(model), config.depth)
    names = dict(zip(stream_taps(config.depth), (stream.start, *stream.links), strict=True))
    if stream.normed and config.final_norm and TOKENS not in artefact.spec.output_names:
        names[TOKENS] = stream.normed
    values = {value.name: value for node in model.graph for value in node.outputs}
    return {tap: values[name] for tap, name in names.items()}


def _free_names(model: ir.Model, taken: set[str]) -> None:
    """Rename values of the graph that are called as a tap is."""
    for node in model.graph:
        for value in node.outputs:
            if value.name in taken and not value.is_graph_output():
                value.name = f"{value.name}.untapped"


def _add_output(model: ir.Model, value: ir.Value, tap: str, artefact: Artefact) -> None:
    import onnx_ir as ir

    entry = tap_spec(tap, artefact.spec, require_vit(artefact))
    node = ir.node("Cast", [value], {"to": ir.DataType.FLOAT})
    (result,) = node.outputs
    result.name = tap
    result.type = ir.TensorType(ir.DataType.FLOAT)
    result.shape = ir.Shape(entry.shape)
    model.graph.append(node)
    model.graph.outputs.append(result)
