"""From the finished fp32 graph to one that carries other numbers: a table of who does it.

Precision lives in the graph and nowhere else: TensorRT 11 has no flag for it, and ONNX Runtime and OpenVINO
take a graph at its word. A new precision is a module with a function ``lower`` and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from vit_deploy.graph.options import OnnxOptions
    from vit_deploy.protocols import Progress
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model


@dataclass(frozen=True)
class Lowered:
    """What became of a graph.

    Attributes:
        spec: its inputs and outputs now; another dtype where one was asked for.
        facts: what was chosen and counted, for the manifest: what stays in fp32 and why, how it was calibrated.
        tools: name and version of each tool that took part, beside those of the export.
    """

    spec: IOSpec
    facts: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)


class Lower(Protocol):
    """Takes a finished and linted fp32 graph to another precision, in place."""

    def __call__(
        self,
        graph: ir.Model,
        model: Model,
        spec: IOSpec,
        precision: Precision,
        options: OnnxOptions,
        progress: Progress,
    ) -> Lowered:
        """Rewrite ``graph`` and check what came of it.

        Args:
            graph: weights are lazy and stay lazy: nothing is read that is not needed, and one at a time.
            model: config, weights and preprocessing.
            spec: the graph's inputs and outputs.
            precision: one of those that the module is named for in :data:`MODULES`.
            options: of the ONNX exporter.
            progress: told how far it is.

        Raises:
            ExportFailed: when the graph cannot be taken there, or what came of it breaks a rule.
            UsageFailed: for options that ask for what cannot be.
        """


MODULES: Mapping[Precision, str] = {
    "fp16": "vit_deploy.graph.half",
    "bf16": "vit_deploy.graph.half",
    "int8": "vit_deploy.quantisation.lower",
    "fp8": "vit_deploy.quantisation.lower",
}
"""The module of each precision; its function ``lower`` is a :class:`Lower`."""


def lower_precision(
    graph: ir.Model, model: Model, spec: IOSpec, precision: Precision, options: OnnxOptions, progress: Progress
) -> Lowered:
    """Take a finished fp32 graph to ``precision``; see :class:`Lower`. Nothing is done for fp32."""
    if precision == "fp32":
        return Lowered(spec)
    lower: Lower = import_module(MODULES[precision]).lower
    return lower(graph, model, spec, precision, options, progress)
