"""Looking into an OpenVINO IR: taps become further results of the ``.xml``, beside a link to the ``.bin``.

The residual stream is found by its structure, as in :mod:`vit_deploy.graph.taps`. A LayerNormalization is
three layers there: ``MVN``, and the product and the sum with its weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import SubElement

from vit_deploy.blame.formats import require_taps, require_vit, with_tap_specs
from vit_deploy.blame.taps import TOKENS, stream_taps
from vit_deploy.graph.taps import Step, find_stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from vit_deploy.graph.openvino_ir import IrGraph, IrLayer
    from vit_deploy.graph.taps import Kind
    from vit_deploy.protocols import Artefact

    Place = tuple[str, str]

_KINDS: Mapping[str, Kind] = {
    "Add": "add",
    **dict.fromkeys(("Convert", "FakeQuantize"), "same"),
    **dict.fromkeys(("ShapeOf", "ConvertLike"), "sizes"),
}
"""``ConvertLike`` gives a constant the type of what else it is given."""


def found_taps(artefact: Artefact) -> tuple[str, ...]:
    """See :func:`vit_deploy.blame.formats.found_taps`; no weight is read."""
    from vit_deploy.graph.openvino_ir import read_ir

    return tuple(_places(read_ir(artefact.path), artefact))


def tapped(artefact: Artefact, taps: Sequence[str], folder: Path) -> Artefact:
    """See :func:`vit_deploy.blame.formats.tapped`; all graphs in ``folder`` share one copy of the weights."""
    from vit_deploy.graph.openvino_ir import read_ir
    from vit_deploy.graph.openvino_ir_edit import copy_of, name_ends, write_ir

    graph = copy_of(read_ir(artefact.path))
    places = _places(graph, artefact)
    require_taps(artefact, taps, places)
    names = {tensor.number: tensor.name for tensor in graph.outputs}
    names |= {_add_result(graph, places[tap], tap): tap for tap in taps}
    changed = copy_of(graph)  # which knows of the results that were added
    name_ends(changed, names)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{artefact.name}-{'-'.join(taps[:2]).replace('.', '_')}-{len(taps)}.xml"
    return with_tap_specs(artefact, taps, write_ir(changed, target).path)


def _places(graph: IrGraph, artefact: Artefact) -> dict[str, Place]:
    """The layer and the port of the value at each tap."""
    config = require_vit(artefact)
    stream = find_stream(_steps(graph), config.depth)
    names = dict(zip(stream_taps(config.depth), (stream.start, *stream.links), strict=True))
    if stream.normed and config.final_norm and TOKENS not in artefact.spec.output_names:
        names[TOKENS] = stream.normed
    return {tap: _place(name) for tap, name in names.items()}


def _value(place: Place) -> str:
    return ":".join(place)


def _place(value: str) -> Place:
    number, _, port = value.partition(":")
    return number, port


def _steps(graph: IrGraph) -> list[Step]:
    """The graph without its constants; a norm is one step, at its last layer."""
    fixed = _constants(graph)
    norms = {last.number: first for first in graph.layers.values() if (last := _end_of_norm(graph, first))}
    steps = []
    for layer in graph.layers.values():
        if layer.number in fixed or not layer.outputs:
            continue
        operands = [place for place in layer.sources if place[0] not in fixed]
        kind = _KINDS.get(layer.operator, "other")
        if kind == "add" and len(operands) != 2:
            kind = "other"  # a bias
        if layer.number in norms:
            kind, operands = "norm", [norms[layer.number].sources[0]]
        outputs = tuple(_value((layer.number, port)) for port in layer.outputs)
        steps.append(Step(kind, layer.operator, tuple(map(_value, operands)), outputs))
    return steps


def _constants(graph: IrGraph) -> set[str]:
    """The numbers of the layers that depend on no input."""
    found: set[str] = set()
    for layer in graph.layers.values():
        if layer.operator != "Parameter" and all(source in found for source, _ in layer.sources):
            found.add(layer.number)
    return found


def _end_of_norm(graph: IrGraph, layer: IrLayer) -> IrLayer | None:
    """The sum that an ``MVN`` ends in, where it is followed by a product and a sum with constants."""
    if layer.operator != "MVN":
        return None
    for operator in ("Multiply", "Add"):
        users = [user for user in graph.layers.values() if any(at == layer.number for at, _ in user.sources)]
        if len(users) != 1 or users[0].operator != operator:
            return None
        (layer,) = users
    return layer


def _add_result(graph: IrGraph, place: Place, tap: str) -> str:
    """Give a value as a result of its own, in float32; gives the number of the result's layer."""
    layers, edges = graph.root.find("layers"), graph.root.find("edges")
    if layers is None or edges is None:  # what was read has both
        raise ValueError("no layers")
    source = next(layer for layer in layers if layer.attrib["id"] == place[0])
    port = next(port for port in source.iterfind("output/port") if port.attrib["id"] == place[1])
    last = max(int(layer.attrib["id"]) for layer in layers)
    convert, result = str(last + 1), str(last + 2)
    cast = _layer(layers, convert, f"{tap}/cast", "Convert")
    SubElement(cast, "data", {"destination_type": "f32"})
    _port(SubElement(cast, "input"), "0", port)
    _port(SubElement(cast, "output"), "1", port).attrib["precision"] = "FP32"
    given = _layer(layers, result, f"{tap}/result", "Result")
    _port(SubElement(given, "input"), "0", port).attrib["precision"] = "FP32"
    _edge(edges, place, (convert, "0"))
    _edge(edges, (convert, "1"), (result, "0"))
    return result


def _layer(layers: Element, number: str, name: str, operator: str) -> Element:
    return SubElement(layers, "layer", {"id": number, "name": name, "type": operator, "version": "opset1"})


def _port(parent: Element, number: str, like: Element) -> Element:
    port = SubElement(parent, "port", {"id": number, "precision": like.attrib.get("precision", "FP32")})
    for dim in like.iterfind("dim"):
        SubElement(port, "dim").text = dim.text
    return port


def _edge(edges: Element, start: Place, end: Place) -> None:
    told = {"from-layer": start[0], "from-port": start[1], "to-layer": end[0], "to-port": end[1]}
    SubElement(edges, "edge", told)
