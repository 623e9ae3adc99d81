"""A graph that is still being worked on, run in ONNX Runtime: any of its tensors can be asked for.

This is no runtime of artefacts (those are in :mod:`vit_deploy.runtimes`): it serves passes that must see
numbers. The graph goes to a temporary folder, its weights streamed beside it one at a time, from where ONNX
Runtime maps them.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.environment import usable_cores
from vit_deploy.errors import ExportFailed, OutputFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from vit_deploy.protocols import Arrays

    Found = dict[str, NDArray[Any]]

_ERRORS_ONLY = 3
"""ONNX Runtime's log level."""


class GraphSession:
    """A graph opened by ONNX Runtime on the CPU.

    Args:
        path: the ONNX file; its weights beside it are mapped.
        names: what :meth:`run` gives: results of nodes that are outputs of the file, or inputs.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        import onnxruntime as ort

        try:
            self._session = ort.InferenceSession(str(path), _options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common root but Exception
            raise _failed("cannot open", error) from error
        inputs = {entry.name for entry in self._session.get_inputs()}
        self._names = list(names)
        self._made = [name for name in names if name not in inputs]

    def run(self, inputs: Arrays) -> Found:
        """The tensors by name, of one batch.

        Raises:
            ExportFailed: when ONNX Runtime fails.
        """
        try:
            made = self._session.run(self._made, dict(inputs)) if self._made else []
        except Exception as error:
            raise _failed("cannot run", error) from error
        found: Mapping[str, Any] = {**inputs, **dict(zip(self._made, made, strict=True))}
        return {name: found[name] for name in self._names}


@contextmanager
def opened(graph: ir.Model, names: Sequence[str] = ()) -> Iterator[GraphSession]:
    """A graph opened for as long as the context lasts.

    Args:
        graph: weights may be unread; it is as it was afterwards.
        names: the tensors wanted; the graph's outputs when empty.

    Raises:
        ExportFailed: for a name that the graph has not, or when ONNX Runtime refuses the graph.
        OutputFailed: when there is no room for the temporary file.
    """
    from vit_deploy.graph.stream import write_model

    wanted = list(names) or [str(value.name) for value in graph.graph.outputs]
    with tempfile.TemporaryDirectory(prefix="vit-deploy-") as folder:
        path = Path(folder) / "graph.onnx"
        with _as_outputs(graph, wanted), _room_in(path.parent):
            write_model(graph, path, external_data=True)
        yield GraphSession(path, wanted)


@contextmanager
def _as_outputs(graph: ir.Model, names: Sequence[str]) -> Iterator[None]:
    """Give some values as outputs of the graph, too; they are taken away again."""
    import onnx_ir as ir

    values = {value.name: value for node in graph.graph for value in node.outputs}
    known = {*values, *(value.name for value in graph.graph.inputs)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ExportFailed(
            f"the graph has no tensor {', '.join(map(repr, unknown[:5]))}",
            expected="names of inputs, or of what nodes give",
        )
    added = [values[name] for name in names if name in values and not values[name].is_graph_output()]
    untyped = [value for value in added if value.type is None]
    for value in untyped:  # ONNX wants a type of an output; only floats are asked for
        value.type = ir.TensorType(ir.DataType.FLOAT)
    graph.graph.outputs.extend(added)
    try:
        yield
    finally:
        for value in added:
            graph.graph.outputs.remove(value)
        for value in untyped:
            value.type = None


@contextmanager
def _room_in(folder: Path) -> Iterator[None]:
    """What cannot be written is told as such."""
    try:
        yield
    except OSError as error:
        raise OutputFailed(
            f"the graph cannot be written to {str(folder)!r}: {error.strerror or error}",
            expected="room for the weights",
            next_command="TMPDIR names another folder",
        ) from error


def _options() -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = _ERRORS_ONLY
    # An arena keeps what it has once taken: every output of the largest batch would stay resident.
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _failed(what: str, error: Exception) -> ExportFailed:
    return ExportFailed(
        f"ONNX Runtime {what} the graph: {(str(error).splitlines() or ['no reason given'])[0]}",
        expected="a graph that it knows every operator of",
        next_command="vit-deploy doctor, and report the failure with its output",
    )


class WeightStore:
    """Unread weights, each written once, for graphs that have most of them in common.

    Tensors are the same where name, dtype and shape are: who gives graphs to it must hold to that.

    Args:
        folder: where the graphs and the file of weights are put.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "weights.data"
        self._places: dict[tuple[str, str, tuple[int, ...]], tuple[int, int]] = {}

    @contextmanager
    def opened(self, graph: ir.Model, names: Sequence[str] = ()) -> Iterator[GraphSession]:
        """As :func:`opened`; of the weights, only those are written that are not there yet."""
        import onnx

        from vit_deploy.graph.capture import is_unread
        from vit_deploy.graph.stream import skeleton

        wanted = list(names) or [str(value.name) for value in graph.graph.outputs]
        with _as_outputs(graph, wanted):
            frame = skeleton(graph)
        for name, value in sorted(graph.graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or not is_unread(tensor):
                continue
            offset, length = self._place(name, tensor)
            entry = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=list(tensor.shape.numpy()))
            entry.data_location = onnx.TensorProto.EXTERNAL
            for key, told in (("location", self._data.name), ("offset", offset), ("length", length)):
                entry.external_data.add(key=key, value=str(told))
            frame.graph.initializer.append(entry)
        path = self._folder / "variant.onnx"
        with _room_in(self._folder):
            path.write_bytes(frame.SerializeToString(deterministic=True))
        yield GraphSession(path, wanted)

    def _place(self, name: str, tensor: ir.TensorProtocol) -> tuple[int, int]:
        """Where a tensor lies in the file; it is written if it does not."""
        key = (name, str(tensor.dtype), tuple(tensor.shape.numpy()))
        if key not in self._places:
            from vit_deploy.graph.stream import ALIGNMENT

            with _room_in(self._folder), self._data.open("ab") as file:
                file.write(b"\0" * (-file.tell() % ALIGNMENT))
                start = file.tell()
                file.write(tensor.tobytes())
                self._places[key] = start, file.tell() - start
        return self._places[key]
