"""What an ONNX file holds, read back without its weights: nodes, and bytes by dtype.

``onnx.load`` reads every weight into memory twice; a bench that wants to know the dtype of an
artefact must not pay for that. The wire format is walked and raw data is stepped over
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.errors import HostileInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

    from vit_deploy.spec import Precision

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME = 1, 2, 8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WHOLE = {"INT64", "INT32", "BOOL"}
_PRECISIONS: dict[str, Precision] = {
    "FLOAT": "fp32",
    "FLOAT16": "fp16",
    "BFLOAT16": "bf16",
    "INT8": "int8",
    "UINT8": "int8",
    "FLOAT8E4M3FN": "fp8",
}


@dataclass(frozen=True)
class WeightCensus:
    """Elements of an ONNX file's initializers, by ONNX dtype name (``FLOAT``, ``INT64`` …)."""

    elements: dict[str, int]

    @property
    def precision(self) -> Precision | None:
        """The dtype that most elements have, where it is one of ours; 8-bit numbers are quantised weights.

        Tables of whole numbers (shapes, indices, masks) say nothing of the arithmetic.
        """
        floating = self.floating
        return _PRECISIONS.get(max(floating, key=lambda name: floating[name])) if floating else None

    @property
    def floating(self) -> dict[str, int]:
        """The elements that are no whole numbers, by dtype."""
        return {name: count for name, count in self.elements.items() if name not in _WHOLE}


def count_weights(path: Path) -> WeightCensus:
    """Count the elements of a file's initializers by dtype.

    Raises:
        HostileInput: when the file is truncated or is no ONNX file.
    """
    import onnx

    counted: Counter[str] = Counter()
    with mapped(path) as data:
        for number, _, start, end in message_fields(data, 0, len(data)):
            if number != _MODEL_GRAPH:
                continue
            for inner, _, first, last in message_fields(data, start, end):
                if inner == _GRAPH_INITIALIZER:
                    _, kind, dims = _tensor(data, first, last)
                    counted[onnx.TensorProto.DataType.Name(kind)] += math.prod(dims)
    return WeightCensus(dict(counted))


def skeleton_of(path: Path) -> onnx.ModelProto:
    """A file's model with its weights unread: inputs of the weights' dtypes and shapes stand for them.

    Those inputs are told from the model's own by their description, :data:`vit_deploy.graph.layers.WEIGHT`.

    Raises:
        HostileInput: when the file is truncated or is no ONNX file.
    """
    import onnx
    from onnx.helper import make_tensor_value_info

    from vit_deploy.graph.layers import WEIGHT

    frame, graph, weights = bytearray(), bytearray(), []
    with mapped(path) as data:
        for number, begin, start, end in message_fields(data, 0, len(data)):
            if number != _MODEL_GRAPH:
                frame += data[begin:end]
                continue
            for inner, opening, first, last in message_fields(data, start, end):
                if inner == _GRAPH_INITIALIZER:
                    name, kind, dims = _tensor(data, first, last)
                    weights.append(make_tensor_value_info(name, kind, dims, doc_string=WEIGHT))
                else:
                    graph += data[opening:last]
        proto = onnx.ModelProto()
        proto.ParseFromString(bytes(frame))
        proto.graph.ParseFromString(bytes(graph))
    # Before IR version 4 weights were declared among the inputs as well.
    named = {entry.name for entry in weights}
    kept = [entry for entry in proto.graph.input if entry.name not in named]
    del proto.graph.input[:]
    proto.graph.input.extend([*kept, *weights])
    return proto


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file's bytes; what is found to be wrong with them inside becomes a :class:`HostileInput`."""
    from google.protobuf.message import DecodeError

    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except (ValueError, IndexError, DecodeError) as error:
        raise HostileInput(
            f"{str(path)!r} is no whole ONNX file", expected="a file as it was exported"
        ) from error


def _tensor(data: mmap.mmap, start: int, end: int) -> tuple[str, int, list[int]]:
    """The name, dtype and dimensions of a tensor, from its fields but the raw data."""
    name, kind, dims = "", 0, []
    for number, _, first, last in message_fields(data, start, end):
        if number == _TENSOR_TYPE:
            kind = _varint(data, first)[0]
        elif number == _TENSOR_NAME:
            name = data[first:last].decode()
        elif number == _TENSOR_DIMS:
            while first < last:
                size, first = _varint(data, first)
                dims.append(size)
    return name, kind, dims


def message_fields(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Each field's number, where it begins, and the place of its value; values are stepped over."""
    while position < end:
        begin = position
        tag, position = _varint(data, position)
        wire = tag & 7
        start = position
        if wire == _VARINT:
            position = _varint(data, position)[1]
        elif wire == _BYTES:
            length, start = _varint(data, position)
            position = start + length
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position > end:
            raise ValueError("a field ends past its message")
        yield tag >> 3, begin, start, position


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
