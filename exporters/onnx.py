"""ONNX: a small graph of standard operators, its weights streamed from the checkpoint.

Made with PyTorch's dynamo exporter from a model without data, cleaned by the passes of
:mod:`vit_deploy.graph.pipeline`, and refused unless its linter agrees.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, ClassVar

from vit_deploy.errors import ExportFailed
from vit_deploy.facts import Availability
from vit_deploy.graph.options import OPSETS, OnnxOptions
from vit_deploy.protocols import ExportedFiles
from vit_deploy.spec import PRECISIONS

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from vit_deploy.protocols import Artefact, Progress
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model


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
