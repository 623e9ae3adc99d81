"""OpenVINO's IR, read without OpenVINO: the ``.xml`` is the graph, the ``.bin`` beside it holds its weights.

The format is described at https://docs.openvino.ai, "OpenVINO IR format": ``layers`` with their ports, the
``edges`` between them, and constants that name a place in the ``.bin``. The ``.bin`` is found by the name of
the ``.xml`` alone; a graph that names any other file, that declares entities, or whose constants lie outside
its ``.bin`` is refused here, before OpenVINO sees it. No weight is read.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from xml.parsers import expat

from vit_deploy.errors import HostileInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from vit_deploy.spec import Precision

GRAPH_LIMIT = 64 * 2**20
"""Bytes of an ``.xml`` at most: that of a ViT with 40 blocks has one million."""

PRECISIONS: dict[str, Precision] = {
    "f32": "fp32",
    "f16": "fp16",
    "bf16": "bf16",
    "i8": "int8",
    "u8": "int8",
    "f8e4m3": "fp8",
    "f8e5m2": "fp8",
}
"""What the numbers of a constant say of the arithmetic, by OpenVINO's name of their type."""

_WHOLE = {"i64", "u64", "i32", "u32", "boolean"}

NUMPY_NAMES = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "u8": "uint8",
    "i8": "int8",
    "i64": "int64",
    "i32": "int32",
}
"""numpy's names of OpenVINO's types."""

_PORT_TYPES = {"FP64": "f64", "FP32": "f32", "FP16": "f16", "BF16": "bf16"}
"""A port calls a type otherwise than a constant does; those that are missing differ by case alone."""

_EXPECTED = "an .xml and its .bin as `vit-deploy export --format openvino` wrote them"


@dataclass(frozen=True)
class IrTensor:
    """An input or output.

    Attributes:
        name: by which OpenVINO knows it; empty where it has none.
        type: OpenVINO's name of its type.
        shape: ``None`` where a dimension is free.
        number: of its layer.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]
    number: str = ""

    @property
    def dtype(self) -> str:
        """numpy's name of its type."""
        return NUMPY_NAMES.get(self.type, self.type)


@dataclass(frozen=True)
class IrLayer:
    """A layer of the graph, without its ports' shapes.

    Attributes:
        number: its id, by which edges name it.
        name: its own, which need not be unique to the graph.
        operator: what it computes.
        type: OpenVINO's name of the type of its first result; empty where it has none.
        sources: the number and the port of each layer that it takes an operand from, in the operands' order.
        outputs: the numbers of its ports of results.
    """

    number: str
    name: str
    operator: str
    type: str
    sources: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]


class IrGraph:
    """A graph as it stands in a file.

    Attributes:
        path: the ``.xml``.
        root: its elements.
    """

    def __init__(self, path: Path, root: Element) -> None:
        self.path = path
        self.root = root

    @property
    def weights(self) -> Path:
        """The ``.bin``."""
        return weights_beside(self.path)

    @cached_property
    def layers(self) -> dict[str, IrLayer]:
        """The layers by number, each behind those that it takes operands from."""
        sources: dict[str, list[tuple[int, str, str]]] = {}
        for edge in self.root.iterfind("edges/edge"):
            entry = (int(edge.attrib["to-port"]), edge.attrib["from-layer"], edge.attrib["from-port"])
            sources.setdefault(edge.attrib["to-layer"], []).append(entry)
        found = {}
        for layer in self.root.iterfind("layers/layer"):
            number = layer.attrib["id"]
            results = layer.findall("output/port")
            taken = tuple((source, port) for _, source, port in sorted(sources.get(number, ())))
            found[number] = IrLayer(
                number,
                layer.attrib["name"],
                layer.attrib["type"],
                port_type(results[0]) if results else "",
                taken,
                tuple(port.attrib["id"] for port in results),
            )
        return found

    @property
    def inputs(self) -> tuple[IrTensor, ...]:
        """What it takes, in order."""
        return tuple(self._tensor(layer, layer.find("output/port")) for layer in self._of_type("Parameter"))

    @property
    def outputs(self) -> tuple[IrTensor, ...]:
        """What it gives, in order."""
        return tuple(self._tensor(layer, layer.find("input/port")) for layer in self._of_type("Result"))

    @cached_property
    def operators(self) -> Counter[str]:
        """Number of layers by operator; constants, inputs and outputs compute nothing."""
        passive = {"Const", "Parameter", "Result"}
        return Counter(layer.operator for layer in self.layers.values() if layer.operator not in passive)

    @cached_property
    def elements(self) -> Counter[str]:
        """Elements of the constants by OpenVINO's name of their type."""
        counted: Counter[str] = Counter()
        for constant in constants(self.root):
            counted[constant.attrib["element_type"]] += math.prod(shape_of(constant.attrib.get("shape", "")))
        return counted

    @property
    def floating(self) -> dict[str, int]:
        """The elements that are no shapes, indices or masks, by type."""
        return {word: count for word, count in self.elements.items() if word not in _WHOLE}

    @property
    def precision(self) -> Precision | None:
        """The type that most of them have, where it is one of ours."""
        found = self.floating
        return PRECISIONS.get(max(found, key=lambda word: found[word])) if found else None

    def _tensor(self, layer: Element, port: Element | None) -> IrTensor:
        if port is None:
            raise ValueError(f"{layer.attrib['name']} has no port")
        dims = tuple(int(dim.text or "") for dim in port.iterfind("dim"))
        shape = tuple(None if dim < 0 else dim for dim in dims)
        names = port.attrib.get("names", "")
        if layer.attrib["type"] == "Result":
            ((source, output),) = self.layers[layer.attrib["id"]].sources
            names = layer.attrib.get("output_names") or self._names[source, output]
        return IrTensor(names.partition(",")[0], port_type(port), shape, layer.attrib["id"])

    @cached_property
    def _names(self) -> dict[tuple[str, str], str]:
        """The names of each result, by the number of its layer and its port."""
        return {
            (layer.attrib["id"], port.attrib["id"]): port.attrib.get("names", "")
            for layer in self.root.iterfind("layers/layer")
            for port in layer.iterfind("output/port")
        }

    def _of_type(self, operator: str) -> Iterator[Element]:
        return (layer for layer in self.root.iterfind("layers/layer") if layer.attrib["type"] == operator)


def weights_beside(path: Path) -> Path:
    """Where OpenVINO looks for the weights of an ``.xml``."""
    return path.with_suffix(".bin")


def read_ir(path: Path) -> IrGraph:
    """Read and check a graph.

    Raises:
        HostileInput: when it is no whole IR, declares entities, names another file, or has constants outside
            its ``.bin``.
    """
    try:
        if path.stat().st_size > GRAPH_LIMIT:
            raise _hostile(path, f"has more than {GRAPH_LIMIT >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise _hostile(path, f"cannot be read: {error.strerror}") from error
    root = _parse(path, data)
    if root.tag != "net" or root.find("layers") is None or root.find("edges") is None:
        raise _hostile(path, "is XML, and no OpenVINO IR")
    try:
        _check(path, root)
        graph = IrGraph(path, root)
        _ = graph.layers, graph.inputs, graph.outputs, graph.elements  # what they need is there, or said here
    except (KeyError, ValueError, IndexError) as error:
        raise _hostile(path, f"is no whole OpenVINO IR ({type(error).__name__}: {error})") from error
    return graph


def constants(root: Element) -> Iterator[Element]:
    """The ``data`` of each constant, those inside of loops and branches too."""
    for layer in root.iter("layer"):
        data = layer.find("data")
        if layer.attrib.get("type") == "Const" and data is not None:
            yield data


def port_type(port: Element) -> str:
    """OpenVINO's name of the type of a port."""
    told = port.attrib.get("precision", "")
    return _PORT_TYPES.get(told, told.lower())


def _hostile(path: Path, found: str) -> HostileInput:
    return HostileInput(f"{path.name!r} {found}", expected=_EXPECTED, next_command="export it again")


def _parse(path: Path, data: bytes) -> Element:
    def refuse(*_: object) -> None:
        raise _hostile(path, "declares a document type: its entities may stand for anything, and grow")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return ElementTree.fromstring(data)  # noqa: S314 - no document type, so no entity, comes this far
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise _hostile(path, f"is no whole XML: {error}") from error


def _check(path: Path, root: Element) -> None:
    named = {word for entry in root.iterfind("rt_info//*") for word in (entry.tag, *entry.attrib.values())}
    if any("weights_path" in word for word in named):
        raise _hostile(path, "names a file of weights, which lie beside it")
    places = [(int(data.attrib["offset"]), int(data.attrib["size"])) for data in constants(root)]
    end = max((offset + size for offset, size in places), default=0)
    if any(number < 0 for place in places for number in place):
        raise _hostile(path, "has constants that lie before the beginning of its weights")
    weights = weights_beside(path)
    if not weights.is_file():
        raise _hostile(path, f"has no {weights.name!r} beside it, where its weights are")
    held = weights.stat().st_size
    if end > held:
        raise _hostile(path, f"has constants up to byte {end} of {weights.name!r}, which ends at {held}")


def shape_of(text: str) -> list[int]:
    """The shape of a constant as it is written."""
    return [int(word) for word in text.split(",") if word.strip()]
