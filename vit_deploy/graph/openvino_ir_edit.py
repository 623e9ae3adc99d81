"""An OpenVINO IR with other names or further results, and the numbers that it holds.

The ``.xml`` alone is written anew; its weights stay what they are, in one ``.bin`` that copies link to.
"""

from __future__ import annotations

import copy
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from vit_deploy.graph.openvino_ir import NUMPY_NAMES, IrGraph, shape_of, weights_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_FLOATS = {"f64", "f32", "f16", "bf16"}


def copy_of(graph: IrGraph) -> IrGraph:
    """The same graph, to be changed."""
    return IrGraph(graph.path, copy.deepcopy(graph.root))


def write_ir(graph: IrGraph, target: Path) -> IrGraph:
    """Write a graph to ``target``, and its weights beside it: as a link to them where that can be."""
    weights = weights_beside(target)
    if not weights.exists() or not weights.samefile(graph.weights):
        weights.unlink(missing_ok=True)
        try:
            os.link(graph.weights.resolve(), weights)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(graph.weights, weights)
    target.write_bytes(ElementTree.tostring(graph.root, encoding="utf-8", xml_declaration=True))
    return IrGraph(target, graph.root)


def name_ends(graph: IrGraph, names: Mapping[str, str]) -> None:
    """Name inputs and outputs; what else of the graph bears such a name loses it.

    Args:
        graph: changed in place.
        names: the new name of each, by the number of its layer.
    """
    layers = {layer.attrib["id"]: layer for layer in graph.root.iterfind("layers/layer")}
    wanted: dict[tuple[str, str], list[str]] = {}
    for number, name in names.items():
        layer = graph.layers[number]
        place = layer.sources[0] if layer.operator == "Result" else (number, layer.outputs[0])
        wanted.setdefault(place, []).append(name)
        if layer.operator == "Result":
            layers[number].attrib["output_names"] = name
    taken = set(names.values())
    for number, layer_element in layers.items():
        for port in layer_element.iterfind("output/port"):
            own = [name for name in port.attrib.get("names", "").split(",") if name and name not in taken]
            told = wanted.get((number, port.attrib["id"]), own)
            if told:
                port.attrib["names"] = ",".join(told)
            else:
                port.attrib.pop("names", None)


def weight_readers(graph: IrGraph) -> dict[str, Callable[[], NDArray[Any]]]:
    """The floating constants of a graph by name, each read as float32 ``(*its shape)`` when it is called."""
    found: dict[str, Callable[[], NDArray[Any]]] = {}
    for layer in graph.root.iterfind("layers/layer"):
        data = layer.find("data")
        if layer.attrib["type"] == "Const" and data is not None and data.attrib["element_type"] in _FLOATS:
            found[layer.attrib["name"]] = partial(_read, graph.weights, dict(data.attrib))
    return found


def _read(path: Path, place: Mapping[str, str]) -> NDArray[Any]:
    import numpy as np

    kind, shape = place["element_type"], shape_of(place.get("shape", ""))
    stored: Any = np.uint16 if kind == "bf16" else NUMPY_NAMES[kind]
    with path.open("rb") as file:
        file.seek(int(place["offset"]))
        array = np.frombuffer(file.read(int(place["size"])), stored).reshape(shape)
    if kind == "bf16":  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)
