"""ONNX: a small graph of standard operators, its weights streamed from the checkpoint.

Made with PyTorch's dynamo exporter from a model without data, cleaned by the passes of
:mod:`vit_deploy.graph.pipeline`, and refused unless its linter agrees.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

from vit_deploy.errors import ExportFailed
from vit_deploy.facts import Availability
from vit_deploy.protocols import ExportedFiles, option
from vit_deploy.spec import PRECISIONS

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from vit_deploy.protocols import Artefact, Progress
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model

OPSETS = (17, 18, 19, 20, 21, 22, 23)
IO_DTYPES = ("float32", "float16")
RANGES = ("minmax", "percentile", "entropy", "mse")


@dataclass(frozen=True)
class OnnxOptions:
    """What can be chosen about an ONNX file."""

    opset: int = option(23, "ONNX operator set; 23 has Attention as one operator.", choices=OPSETS)
    external_data: bool = option(
        False, "Write the weights to a file beside the graph; past 2 GB that is always so."
    )
    io_dtype: str = option(
        "float32", "dtype of float inputs and outputs, whatever lies between.", choices=IO_DTYPES
    )
    keep_fp32: str = option(
        "", "Layers to keep in fp32, by comma, as `vit-deploy inspect` names them: blocks.3.mlp, head."
    )
    calibrate: str = option(
        "", "Folder of pictures that int8 and fp8 are calibrated on.  [default: synthetic ones]", recorded=False
    )
    calibration_images: int = option(128, "How many pictures to calibrate on, at most.")
    ranges: str = option("mse", "How the range of an activation is chosen.", choices=RANGES)
    smooth_quant: float = option(
        0.5, "SmoothQuant's strength from 0 to 1: how much of the activations' outliers the weights take over."
    )


class OnnxExporter:
    """See the module."""

    format: ClassVar[str] = "onnx"
    description: ClassVar[str] = "ONNX graph of standard operators, for ONNX Runtime, TensorRT, OpenVINO"
    Options: ClassVar[type] = OnnxOptions
    precisions: ClassVar[frozenset[Precision]] = frozenset(PRECISIONS)
    needs: ClassVar[str] = ""

    def available(self) -> Availability:
        """Always: what it needs is a part of the core installation."""
        from vit_deploy.environment import package_version

        return Availability.yes(package_version("onnx") or "")

    def export(
        self,
        model: Model,
        spec: IOSpec,
        options: OnnxOptions,
        staging: Path,
        progress: Progress,
        source: Artefact | None = None,  # noqa: ARG002 - needed by formats built on another
        precision: Precision = "fp32",
    ) -> ExportedFiles:
        """See :class:`vit_deploy.protocols.Exporter`."""
        from vit_deploy.environment import package_version
        from vit_deploy.graph.lint import GraphFacts, lint
        from vit_deploy.graph.precision import lower_precision
        from vit_deploy.graph.stream import write_model

        if options.opset not in OPSETS:
            raise ExportFailed(f"opset {options.opset} is not offered", expected=f"one of {OPSETS}")
        progress.phase("ONNX: capturing the model")
        graph = build_graph(model, spec, options.opset)
        progress.phase("ONNX: checking the graph")
        facts = lint(graph, model.config, spec)
        lowered = lower_precision(graph, model, spec, precision, options, progress)
        if precision != "fp32":
            facts = GraphFacts.of(graph)
        progress.phase("ONNX: writing the weights")
        files = write_model(graph, staging / "model.onnx", external_data=options.external_data)
        packages = ("torch", "onnx", "onnx-ir", "onnxscript")
        tools = {name: package_version(name) or "unknown" for name in packages}
        told = {**asdict(facts), **lowered.facts}
        return ExportedFiles(files, lowered.spec, told, {**tools, **lowered.tools})


def build_graph(model: Model, spec: IOSpec, opset: int) -> ir.Model:
    """The finished graph of a model at ``opset``, its weights unread.

    Raises:
        ExportFailed: when PyTorch cannot capture it, or it does not fit the weights.
    """
    from vit_deploy.graph.pipeline import Recipe, apply_passes, capture_graph

    recipe = Recipe(model, spec, opset)
    graph = capture_graph(recipe)
    for _ in apply_passes(graph, recipe):
        pass
    return graph


EXPORTER = OnnxExporter()
