"""The last word on a graph: is it the one we meant to write?

Each rule returns what it objects to. An artefact whose graph breaks a rule is not written.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.errors import ExportFailed
from vit_deploy.graph.expected import allowed_movement, expected_operators
from vit_deploy.spec import BATCH

if TYPE_CHECKING:
    import onnx_ir as ir

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.spec import IOSpec

SHAPE_OPERATORS = {"Shape", "Squeeze", "Unsqueeze", "Gather", "Cast", "Slice", "Size", "ConstantOfShape"}
FORBIDDEN = {"Pow", "Sqrt", "Identity", "SplitToSequence", "SequenceAt", "CastLike", "Constant"}
"""Signs of a decomposed LayerNormalization, or of work that a pass should have removed."""


@dataclass(frozen=True)
class GraphFacts:
    """What a graph holds, counted.

    Attributes:
        opset: version of the standard operators.
        nodes: number of nodes.
        operators: number of nodes by operator.
    """

    opset: int
    nodes: int
    operators: dict[str, int]

    @classmethod
    def of(cls, model: ir.Model) -> GraphFacts:
        """Count a graph."""
        counted = Counter(node.op_type for node in model.graph)
        return cls(model.graph.opset_imports[""], sum(counted.values()), dict(sorted(counted.items())))


def lint(model: ir.Model, config: ViTConfig, spec: IOSpec) -> GraphFacts:
    """Check a finished graph against what its config says it must be; weights are not read.

    Raises:
        ExportFailed: naming each rule that is broken.
    """
    facts = GraphFacts.of(model)
    problems = [
        *_wrong_operators(facts, config, spec),
        *_wrong_interface(model, spec),
        *_stray_shape_arithmetic(facts, config, spec),
        *_leftovers(model),
        *_refused_by_onnx(model),
    ]
    if problems:
        raise ExportFailed(
            f"the exported graph breaks {len(problems)} rule(s): {'; '.join(problems)}",
            expected="the graph that the model's config describes",
            next_command="report this with the model's config and `vit-deploy doctor --json`",
        )
    return facts


def _wrong_operators(facts: GraphFacts, config: ViTConfig, spec: IOSpec) -> list[str]:
    expected = expected_operators(config, spec, facts.opset)
    counted = {**dict.fromkeys(("LayerNormalization", "ReduceMean"), 0), **expected}
    problems = [
        f"{facts.operators.get(name, 0)} {name} for {count}"
        for name, count in counted.items()
        if facts.operators.get(name, 0) != count
    ]
    return problems + [f"{facts.operators[name]} {name}" for name in sorted(FORBIDDEN & set(facts.operators))]


def _wrong_interface(model: ir.Model, spec: IOSpec) -> list[str]:
    problems = []
    for kind, values, wanted in (
        ("input", model.graph.inputs, spec.inputs),
        ("output", model.graph.outputs, spec.outputs),
    ):
        found = [(value.name, _shape(value)) for value in values]
        expected = [(entry.name, entry.shape) for entry in wanted]
        if found != expected:
            problems.append(f"{kind}s are {found}, not {expected}")
    return problems


def _shape(value: ir.Value) -> tuple[int | str, ...]:
    return tuple(
        dim if isinstance(dim, int) else str(dim.value if dim.value is not None else "?")
        for dim in value.shape or ()
    )


def _stray_shape_arithmetic(facts: GraphFacts, config: ViTConfig, spec: IOSpec) -> list[str]:
    allowed = allowed_movement(config, spec)
    return [
        f"{count} {name} where at most {allowed[name]} is needed"
        for name, count in facts.operators.items()
        if name in SHAPE_OPERATORS and count > allowed[name]
    ]


def _leftovers(model: ir.Model) -> list[str]:
    unused = [
        name
        for name, value in model.graph.initializers.items()
        if not value.uses() and not value.is_graph_output()
    ]
    foreign = sorted({node.domain for node in model.graph if node.domain})
    traces = [node.name for node in model.graph if node.metadata_props or node.doc_string]
    return [
        *(f"the weight {name!r} is unused" for name in unused),
        *(f"operators of the domain {domain!r}" for domain in foreign),
        *(["nodes carry traces of the machine"] if traces else []),
    ]


def _refused_by_onnx(model: ir.Model) -> list[str]:
    """ONNX's own checker, on the graph with its weights as inputs so that none is read."""
    import onnx

    from vit_deploy.graph.stream import skeleton

    proto = skeleton(model, weights_as_inputs=True)
    try:
        onnx.checker.check_model(proto, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return [f"onnx.checker: {str(error).splitlines()[0]}"]
    batches = {output.type.tensor_type.shape.dim[0].dim_param for output in inferred.graph.output}
    return [] if batches <= {BATCH, ""} else [f"outputs have the batch dimensions {sorted(batches)}"]
