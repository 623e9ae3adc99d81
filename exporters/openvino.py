"""OpenVINO IR: an ``.xml`` graph and a ``.bin`` of weights, converted by OpenVINO from the ONNX artefact.

What the graph says is kept: weights are not compressed to fp16, as OpenVINO's tools do unless they are told
otherwise, and 8-bit numbers stay 8-bit. The converter is given the graph with its weights in a file that it
can map, so they are in memory once, as pages that can be dropped; ``openvino.convert_model`` would copy them.

Limits: OpenVINO's CPU plugin has no fp8. The converter gives what ONNX leaves without a name a number that
counts on from conversion to conversion; those are counted anew here, so that equal input gives equal bytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vit_deploy.errors import BackendMissing, ExportFailed, HostileInput, OutputFailed
from vit_deploy.openvino_library import availability, first_line, load
from vit_deploy.protocols import ExportedFiles, NoOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vit_deploy.facts import Availability
    from vit_deploy.graph.openvino_ir import IrGraph, IrTensor
    from vit_deploy.protocols import Artefact, Progress
    from vit_deploy.spec import IOSpec, Precision, TensorSpec
    from vit_deploy.weights.imported import Model

GRAPH_NAME, WEIGHTS_NAME = "model.xml", "model.bin"
"""The files' names: those that Triton and OpenVINO Model Server expect."""


class OpenVinoExporter:
    """See the module."""

    format: ClassVar[str] = "openvino"
    description: ClassVar[str] = "OpenVINO IR: an .xml graph and a .bin of weights"
    Options: ClassVar[type] = NoOptions
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "fp16", "bf16", "int8"})
    needs: ClassVar[str] = "onnx"

    def available(self) -> Availability:
        """See :class:`vit_deploy.protocols.Exporter`."""
        return availability()

    def export(
        self,
        model: Model,  # noqa: ARG002 - the ONNX artefact holds all of it
        spec: IOSpec,  # noqa: ARG002 - that of the source, whose dtypes may be other ones
        options: NoOptions,  # noqa: ARG002 - there are none
        staging: Path,
        progress: Progress,
        source: Artefact | None = None,
        precision: Precision = "fp32",  # noqa: ARG002 - that of the source
    ) -> ExportedFiles:
        """See :class:`vit_deploy.protocols.Exporter`; ``source`` is the accepted ONNX artefact.

        Raises:
            BackendMissing: where OpenVINO is not installed.
            OutputFailed: when the files cannot be written whole.
        """
        if source is None:
            raise ExportFailed(
                "an OpenVINO IR is made from an ONNX artefact, and none was given",
                next_command="vit-deploy export --format onnx,openvino",
            )
        found = self.available()
        if not found.ok:
            raise BackendMissing(found.reason, next_command=found.mend)
        openvino = load()
        progress.phase("OpenVINO: converting the ONNX graph")
        _convert(openvino, source, staging, progress)
        progress.phase("OpenVINO: reading the IR back")
        graph = _read_back(staging / GRAPH_NAME)
        _check(graph, source)
        facts = {"version": str(openvino.__version__), **_facts(graph)}
        tools = {"openvino": str(openvino.__version__)}
        return ExportedFiles((GRAPH_NAME, WEIGHTS_NAME), source.spec, facts, tools)


def _convert(openvino: Any, source: Artefact, staging: Path, progress: Progress) -> None:
    target = staging / GRAPH_NAME
    try:
        with _with_weights_beside(source.path, staging) as path:
            try:
                model = openvino.Core().read_model(path)
            except RuntimeError as error:
                raise ExportFailed(
                    f"OpenVINO cannot convert {source.path.name!r}: {first_line(error)}",
                    next_command="vit-deploy verify --backend openvino tells whether it runs the ONNX file",
                ) from error
            _number_anew(model)
            progress.phase("OpenVINO: writing the IR")
            openvino.save_model(model, target, compress_to_fp16=False)
    except (OSError, RuntimeError) as error:  # OpenVINO reports a full disk as a RuntimeError
        raise OutputFailed(
            f"the OpenVINO IR cannot be written: {first_line(error)}",
            next_command="free some space, or choose another folder with -o",
        ) from error


@contextlib.contextmanager
def _with_weights_beside(path: Path, staging: Path) -> Iterator[Path]:
    """An ONNX graph that names its weights in the file they lie in, so that they are mapped and not read.

    The graph is written without them into a folder of its own, with other names of their files beside it:
    OpenVINO takes no weights from outside of a graph's folder, and follows links to see.
    """
    from vit_deploy.graph.light import read_light

    light = read_light(path)
    tensors = light.proto.graph.initializer
    names = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=staging) as folder:
        for name in sorted(names):
            if Path(name).name != name:
                raise HostileInput(f"{path.name!r} names weights outside its own folder: {name!r}")
            _link(path.with_name(name), Path(folder) / name)
        graph = Path(folder) / "graph of model.onnx"  # no name that weights could have
        graph.write_bytes(light.proto.SerializeToString(deterministic=True))
        yield graph


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _number_anew(model: Any) -> None:
    """Name what has no name of its own by its place in the graph, not by how many were made before it."""
    for place, node in enumerate(model.get_ordered_ops()):
        if node.get_friendly_name() == node.get_name():
            node.set_friendly_name(f"{node.get_type_name()}_{place}")


def _read_back(path: Path) -> IrGraph:
    """The graph as it was written.

    Raises:
        OutputFailed: when it is not whole; OpenVINO does not tell of a disk that is full.
    """
    from vit_deploy.graph.openvino_ir import read_ir

    try:
        return read_ir(path)
    except HostileInput as error:
        raise OutputFailed(
            f"the OpenVINO IR was not written whole: {error.found}",
            next_command="free some space, or choose another folder with -o",
        ) from error


def _check(graph: IrGraph, source: Artefact) -> None:
    """Whether the IR takes and gives what the source does, in the numbers that it declares.

    Raises:
        ExportFailed: naming what differs.
    """
    spec = source.spec
    pairs = (("input", graph.inputs, spec.inputs), ("output", graph.outputs, spec.outputs))
    for kind, found, wanted in pairs:
        have, want = [_told(tensor) for tensor in found], [_meant(entry) for entry in wanted]
        if have != want:
            raise ExportFailed(
                f"the {kind}s of the converted graph are {have}",
                expected=f"those of {source.name}: {want}",
                next_command="report this with the model's config and `vit-deploy doctor --json`",
            )
    if graph.precision not in (source.precision, None):
        raise ExportFailed(
            f"the weights of the converted graph are {graph.precision}",
            expected=f"{source.precision}, as those of {source.name}",
            next_command="report this with the model's config and `vit-deploy doctor --json`",
        )


def _told(tensor: IrTensor) -> tuple[str, str, tuple[int | None, ...]]:
    return tensor.name, tensor.dtype, tensor.shape


def _meant(entry: TensorSpec) -> tuple[str, str, tuple[int | None, ...]]:
    return entry.name, entry.dtype, tuple(None if isinstance(dim, str) else dim for dim in entry.shape)


def _facts(graph: IrGraph) -> dict[str, Any]:
    """What stands in the file: layers by operator and by class and dtype, elements of weights by type."""
    from vit_deploy.graph.openvino_layers import count_ir_layers

    return {
        "nodes": sum(graph.operators.values()),
        "operators": dict(sorted(graph.operators.items())),
        "dtypes": count_ir_layers(graph),
        "weights": dict(sorted(graph.elements.items())),
        "quantisers": graph.operators["FakeQuantize"],
    }


EXPORTER = OpenVinoExporter()
