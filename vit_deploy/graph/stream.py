"""Write an ONNX file one weight at a time, inside the file or beside it.

``onnx.save`` and ``onnx_ir.save`` build the whole message in memory: two to three times the
weights. Here the message's few large fields are written by hand, in the wire format of protocol
buffers (https://protobuf.dev/programming-guides/encoding/): every size is known before a byte is
written, so the weights pass through memory singly. Same graph and weights, same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.graph.capture import is_unread
from vit_deploy.weights.tensors import ahead, sync_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    import onnx
    import onnx_ir as ir

PROTOBUF_LIMIT = 2**31 - 1
"""A protocol buffer cannot be longer: past it the weights go to a file of their own."""

ALIGNMENT = 4096
"""External weights start at pages, so that a runtime can map them."""

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_RAW_DATA = 9
_LENGTH_DELIMITED = 2


@dataclass(frozen=True)
class _Weight:
    name: str
    header: bytes
    nbytes: int
    tensor: Any

    def read(self) -> memoryview:
        """The weight's bytes, read now."""
        array = self.tensor.numpy()
        # As bytes, for dtypes that numpy itself does not have: a memoryview knows neither bfloat16 nor float8.
        return memoryview(array.reshape(-1).view("uint8"))


def write_model(model: ir.Model, target: Path, *, external_data: bool = False) -> tuple[str, ...]:
    """Write the graph and its weights to ``target``; weights past 2 GB go to ``target.data``.

    Args:
        model: the graph, its weights unread.
        target: the ``.onnx`` file.
        external_data: put the weights beside the graph whatever their size.

    Returns:
        The names of the files written, the graph first.
    """
    weights = _collect(model)
    frame = skeleton(model)
    inline = sum(weight.nbytes + len(weight.header) + 32 for weight in weights) + frame.ByteSize()
    if external_data or inline > PROTOBUF_LIMIT:
        data = target.with_name(target.name + ".data")
        _write_external(data, weights, frame)
        with target.open("wb") as file:
            file.write(frame.SerializeToString(deterministic=True))
            sync_file(file)
        return target.name, data.name
    with target.open("wb") as file:
        for piece in _pieces(frame, weights):
            file.write(piece)
        sync_file(file)
    return (target.name,)


def skeleton(model: ir.Model, *, weights_as_inputs: bool = False) -> onnx.ModelProto:
    """The graph as a message, without the weights that are unread.

    Args:
        model: the graph.
        weights_as_inputs: declare them as graph inputs instead, for ONNX's checker.
    """
    import onnx_ir as ir

    unread = _unread(model)
    graph = model.graph
    for value in unread:
        del graph.initializers[value.name or ""]
        if weights_as_inputs:
            graph.inputs.append(value)
    try:
        return ir.serde.serialize_model(model)
    finally:
        for value in unread:
            if weights_as_inputs:
                graph.inputs.remove(value)
            graph.register_initializer(value)


def _unread(model: ir.Model) -> list[ir.Value]:
    values = (value for value in model.graph.initializers.values() if value.const_value is not None)
    return sorted(
        (value for value in values if is_unread(value.const_value)), key=lambda value: value.name or ""
    )


def _collect(model: ir.Model) -> list[_Weight]:
    import onnx

    weights = []
    for value in _unread(model):
        tensor = value.const_value
        if tensor is None:
            continue
        header = onnx.TensorProto(name=value.name, data_type=int(tensor.dtype), dims=list(tensor.shape.numpy()))
        weights.append(_Weight(value.name or "", header.SerializeToString(), tensor.nbytes, tensor))
    return weights


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _field(number: int, length: int) -> bytes:
    """The tag and length that stand before a length-delimited field."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _pieces(frame: onnx.ModelProto, weights: list[_Weight]) -> Iterator[bytes | memoryview]:
    """The whole file, in order: the model's own fields, then the graph with its weights last."""
    graph = frame.graph.SerializeToString(deterministic=True)
    frame.ClearField("graph")
    heads = []
    total = len(graph)
    for weight in weights:
        raw = _field(_TENSOR_RAW_DATA, weight.nbytes)
        length = len(weight.header) + len(raw) + weight.nbytes
        head = _field(_GRAPH_INITIALIZER, length) + weight.header + raw
        heads.append(head)
        total += len(head) + weight.nbytes
    yield frame.SerializeToString(deterministic=True)
    yield _field(_MODEL_GRAPH, total)
    yield graph
    for head, data in zip(heads, ahead(weight.read for weight in weights), strict=True):
        yield head
        yield data


def _write_external(path: Path, weights: list[_Weight], frame: onnx.ModelProto) -> None:
    """Write the weights to ``path`` and name each one's place in the graph's initializers."""
    import onnx

    with path.open("wb") as file:
        for weight, values in zip(weights, ahead(weight.read for weight in weights), strict=True):
            _pad(file)
            offset = file.tell()
            file.write(values)
            entry = onnx.TensorProto.FromString(weight.header)
            entry.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", path.name), ("offset", offset), ("length", weight.nbytes)):
                entry.external_data.add(key=key, value=str(value))
            frame.graph.initializer.append(entry)
        sync_file(file)


def _pad(file: BinaryIO) -> None:
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
