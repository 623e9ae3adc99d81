"""An ONNX file without its weights: read in milliseconds, and written again beside one copy of them.

A graph that is changed only a little, and many times, must not drag its weights along. What is large is
stepped over in the file; the graph then names it as external data. One file of weights, written once,
serves every graph that is written into the same folder; weights that lie outside the graph already are
linked, or copied where the folder is on another file system. ONNX Runtime takes linked weights; ONNX's own
checker, given a path, refuses files that have two names.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.errors import HostileInput
from vit_deploy.graph.scan import mapped, message_fields

if TYPE_CHECKING:
    import mmap
    from pathlib import Path
    from typing import BinaryIO

    import onnx

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_RAW_DATA = 9
_LEAST = 1024
"""Bytes from which a tensor is left in the file: what is smaller may be a shape, which must be known."""

_ALIGNMENT = 4096
"""Weights start at pages, so that a runtime can map them."""

_PIECE = 1 << 22
"""Bytes that are copied at a time."""


@dataclass(frozen=True)
class LightGraph:
    """A graph and where its weights lie.

    Attributes:
        path: the file that it was read from.
        proto: the message; large initializers are external data, whose location is that of the file
            itself where they stood in it.
    """

    path: Path
    proto: onnx.ModelProto


def read_light(path: Path) -> LightGraph:
    """Read an ONNX file but for its large weights.

    Raises:
        HostileInput: when the file is truncated or is no ONNX file.
    """
    with mapped(path) as data:
        proto = _model(data, path.name)
    if proto.functions:
        from onnx.inliner import inline_local_functions

        proto = inline_local_functions(proto)
    return LightGraph(path, proto)


def _model(data: mmap.mmap, name: str) -> onnx.ModelProto:
    import onnx

    rest: list[bytes] = []
    graph: list[bytes] = []
    weights: list[onnx.TensorProto] = []
    for number, begin, start, end in message_fields(data, 0, len(data)):
        if number != _MODEL_GRAPH:
            rest.append(data[begin:end])
            continue
        for inner, left, first, last in message_fields(data, start, end):
            if inner == _GRAPH_INITIALIZER:
                weights.append(_weight(data, first, last, name))
            else:
                graph.append(data[left:last])
    proto: onnx.ModelProto = onnx.ModelProto.FromString(b"".join(rest))
    proto.graph.MergeFromString(b"".join(graph))
    proto.graph.initializer.extend(weights)
    return proto


def _weight(data: mmap.mmap, start: int, end: int, name: str) -> onnx.TensorProto:
    import onnx

    kept: list[bytes] = []
    place: tuple[int, int] | None = None
    for number, begin, first, last in message_fields(data, start, end):
        if number == _TENSOR_RAW_DATA and last - first >= _LEAST:
            place = (first, last - first)
        else:
            kept.append(data[begin:last])
    tensor: onnx.TensorProto = onnx.TensorProto.FromString(b"".join(kept))
    if place is not None:
        _point(tensor, name, *place)
    return tensor


def _point(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Make a tensor external data."""
    import onnx

    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def move_weights(light: LightGraph, folder: Path, name: str) -> None:
    """Put the weights into ``folder``, unless they are there already, and point the graph at them.

    Args:
        light: the graph; changed in place.
        folder: where the graph will be written.
        name: what the files of weights are called, before a number and a suffix.

    Raises:
        HostileInput: when the graph names a file outside its own folder.
    """
    inside: list[tuple[onnx.TensorProto, int, int]] = []
    others: dict[str, str] = {}
    for tensor in light.proto.graph.initializer:
        entry = {item.key: item.value for item in tensor.external_data}
        if not entry:
            continue
        location = entry["location"]
        if location == light.path.name:
            inside.append((tensor, int(entry["offset"]), int(entry["length"])))
            continue
        if location not in others:
            others[location] = f"{name}.{len(others)}.data"
            _link(_beside(light.path, location), folder / others[location])
        for item in tensor.external_data:
            if item.key == "location":
                item.value = others[location]
    _copy_once(light.path, inside, folder / f"{name}.weights")


def _beside(path: Path, location: str) -> Path:
    """The file of weights that a graph names, which must lie in the graph's own folder."""
    found = (path.parent / location).resolve()
    if not found.is_relative_to(path.parent.resolve()):
        raise HostileInput(
            f"{path.name!r} names weights outside its own folder: {location!r}",
            expected="weights beside the graph",
        )
    return found


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        partial = target.with_name(f"{target.name}.partial")
        shutil.copyfile(source, partial)
        partial.rename(target)


def _copy_once(path: Path, weights: list[tuple[onnx.TensorProto, int, int]], target: Path) -> None:
    """Copy weights out of the graph's own file to ``target``, unless it is there, and point at it."""
    places, end = [], 0
    for tensor, offset, length in weights:
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = start + length
        places.append((offset, length, start))
        _point(tensor, target.name, start, length)
    if not weights or target.exists():
        return
    partial = target.with_name(f"{target.name}.partial")
    with path.open("rb") as source, partial.open("wb") as file:
        for offset, length, start in places:
            source.seek(offset)
            file.seek(start)
            _copy(source, file, length)
    partial.rename(target)


def _copy(source: BinaryIO, target: BinaryIO, length: int) -> None:
    """Copy ``length`` bytes from where both files stand."""
    while length:
        piece = source.read(min(length, _PIECE))
        if not piece:
            raise HostileInput("the graph ends before its weights do", expected="a file as it was exported")
        target.write(piece)
        length -= len(piece)
