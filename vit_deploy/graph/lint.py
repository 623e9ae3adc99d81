"""The last word on a graph: is it the one we meant to write?

Each rule returns what it objects to. An artefact whose graph breaks a rule is not written. What is
known of a ViT is asked of a ViT's graph only; a module of a user's own may be made of anything.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vit_deploy.errors import ExportFailed
from vit_deploy.graph.capture import CAPTURE_OPSET
from vit_deploy.graph.expected import expected_operators, pooled_movement
from vit_deploy.model.config import ViTConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from vit_deploy.model.kinds import Architecture
    from vit_deploy.spec import IOSpec

SHAPE_OPERATORS = {"Shape", "Squeeze", "Unsqueeze", "Gather", "Cast", "Slice", "Size", "ConstantOfShape"}
MIXING_OPERATORS = {"Attention", "Softmax"}
"""What stands in every block, at any opset."""

FORBIDDEN = {"Pow", "Sqrt", "Identity", "SplitToSequence", "SequenceAt", "CastLike", "Constant"}
"""Signs of a decomposed LayerNormalization, or of work that a pass should have removed."""


@dataclass(frozen=True)
class GraphFacts:
    """What a graph holds, counted.

    Attributes:
        opset: version of the standard operators.
        nodes: number of nodes.
        operators: number of nodes by operator.
        dtypes: number of layers by dtype, for each class of layers.
    """

    opset: int
    nodes: int
    operators: dict[str, int]
    dtypes: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ir.Model) -> GraphFacts:
        """Count a graph."""
        counted = Counter(node.op_type for node in model.graph)
        operators = dict(sorted(counted.items()))
        return cls(model.graph.opset_imports[""], sum(counted.values()), operators, _dtypes(model))


def _dtypes(model: ir.Model) -> dict[str, dict[str, int]]:
    from vit_deploy.graph.layers import WEIGHT, count_layers
    from vit_deploy.graph.stream import skeleton

    proto = skeleton(model, weights_as_inputs=True)
    own = {value.name for value in model.graph.inputs}
    for entry in proto.graph.input:
        if entry.name not in own:
            entry.doc_string = WEIGHT
    return count_layers(proto).dtypes


def lint(model: ir.Model, config: Architecture, spec: IOSpec) -> GraphFacts:
    """Check a finished graph against what its config says it must be; weights are not read.

    Raises:
        ExportFailed: naming each rule that is broken.
    """
    facts = GraphFacts.of(model)
    problems = [
        *wrong_interface(model, spec),
        *leftovers(model),
        *refused_by_onnx(model, spec),
    ]
    if isinstance(config, ViTConfig):
        problems += [*_wrong_operators(facts, config, spec), *_stray_movement(model, spec)]
    if problems and not isinstance(config, ViTConfig) and facts.opset < CAPTURE_OPSET:
        raise ExportFailed(
            f"the module has operators that opset {facts.opset} lacks: {'; '.join(problems)}",
            expected=f"opset {CAPTURE_OPSET}, or a module of older operators",
            next_command=f"export with --opset {CAPTURE_OPSET}",
        )
    if problems:
        raise ExportFailed(
            f"the exported graph breaks {len(problems)} rule(s): {'; '.join(problems)}",
            expected="the graph that its config describes",
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
    present = sorted((FORBIDDEN - set(expected)) & set(facts.operators))
    return problems + [f"{facts.operators[name]} {name}" for name in present]


def wrong_interface(model: ir.Model, spec: IOSpec) -> list[str]:
    """Inputs and outputs that are not those of ``spec``, by name and shape."""
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


def _stray_movement(model: ir.Model, spec: IOSpec) -> list[str]:
    """Arithmetic on shapes is done once, before the blocks; after them, tokens are picked and no more.

    Positions that are made in the graph need some of it. What a block does is the same at every size.
    """
    sizes = [dim for entry in spec.inputs for dim in entry.shape if isinstance(dim, str)]
    asked = sum(node.op_type == "Shape" for node in model.graph)
    problems = [f"{asked} Shape for {len(sizes)} free dimensions"] if asked > len(sizes) else []
    allowed = pooled_movement(spec)
    late = Counter(node.op_type for node in _after_the_first_block(model) if node.op_type in SHAPE_OPERATORS)
    return problems + [
        f"{count} {name} inside or after the blocks, where at most {allowed[name]} is needed"
        for name, count in sorted(late.items())
        if count > allowed[name]
    ]


def _after_the_first_block(model: ir.Model) -> Iterator[ir.Node]:
    """The nodes whose result depends on what an attention gave."""
    mixed: set[ir.Value] = set()
    for node in model.graph:
        late = any(value in mixed for value in node.inputs if value is not None)
        if late:
            yield node
        if late or node.op_type in MIXING_OPERATORS:
            mixed.update(node.outputs)


def leftovers(model: ir.Model) -> list[str]:
    """What nobody uses or may see: unused weights, foreign operators, traces of the machine."""
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


def refused_by_onnx(model: ir.Model, spec: IOSpec) -> list[str]:
    """ONNX's own checker, on the graph with its weights as inputs so that none is read."""
    import onnx

    from vit_deploy.graph.stream import skeleton

    proto = skeleton(model, weights_as_inputs=True)
    try:
        onnx.checker.check_model(proto, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return [f"onnx.checker: {str(error).splitlines()[0]}"]
    wanted = {entry.name: entry.shape for entry in spec.outputs}
    return [
        f"ONNX infers {found} for dimension {axis} of {output.name}, not {right}"
        for output in inferred.graph.output
        for axis, (dim, right) in enumerate(
            zip(output.type.tensor_type.shape.dim, wanted.get(output.name, ()), strict=False)
        )
        if (found := dim.dim_param or dim.dim_value) not in (right, 0)
    ]
