"""fp16 and bf16: the graph itself carries the dtypes.

Weights are rounded as they are written; products compute in half precision; what half precision cannot hold
computes in fp32. LayerNormalization stays one operator and takes its mean and variance in fp32, which
``stash_type`` says (https://onnx.ai/onnx/operators/onnx__LayerNormalization.html); OpenVINO converts to that
type and back, ONNX Runtime's kernels and TensorRT's normalisation accumulate in it anyway. Attention stays one
operator too: ``softmax_precision`` is left out, because TensorRT's parser refuses it, as did ONNX Runtime's
CUDA kernel before pull request 27714, and the fused kernels of both keep the softmax in fp32 whatever it says.
Below opset 23, where attention is spelled out, the Softmax is in fp32 with a Cast on either side. Inputs and
outputs stay fp32 unless float16 is asked for.

What is kept in fp32 besides is named by layer, see :mod:`vit_deploy.graph.half_layers`. Which layers must be
where numbers grow past the end of fp16, :func:`vit_deploy.parity.mixed.needed_in_fp32` says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import UsageFailed
from vit_deploy.graph.constant import constant
from vit_deploy.graph.half_casts import Caster
from vit_deploy.graph.half_layers import Layers, holds, is_weight
from vit_deploy.graph.half_lint import count_operators, lint_half
from vit_deploy.graph.half_rules import FP32_OPERATORS, PRODUCTS, Rules, inferred_types
from vit_deploy.graph.half_weights import times
from vit_deploy.graph.precision import Lowered

if TYPE_CHECKING:
    import onnx_ir as ir

    from vit_deploy.graph.half_casts import Recast
    from vit_deploy.graph.options import OnnxOptions
    from vit_deploy.protocols import Progress
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model

LEVELS = 128.0
"""Levels of 8-bit pictures reach as far from 0; see :func:`_unit_levels`."""

_DTYPES = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}


def lower(
    graph: ir.Model,
    model: Model,
    spec: IOSpec,
    precision: Precision,
    options: OnnxOptions,
    progress: Progress,
) -> Lowered:
    """Take a finished fp32 graph to fp16 or bf16; see :class:`vit_deploy.graph.precision.Lower`.

    Raises:
        ExportFailed: for control flow in the graph, or where what came of it breaks a rule. Weights that
            overflow are found when they are written.
        UsageFailed: for a layer that there is not, or where so many are kept that it is no half any more.
    """
    import onnx_ir as ir

    progress.phase(f"ONNX: lowering to {precision}")
    half = ir.DataType[_DTYPES[precision]]
    layers = Layers.of(graph, model.config)
    kept = layers.chosen(options.keep_fp32)
    _require_half(graph, kept, precision)
    if precision == "fp16" and spec.contract != "pixel_values":
        _unit_levels(graph)
    before = count_operators(graph)
    rules = Rules(graph, half, layers.nodes_of(kept), inferred_types(graph))
    io = ir.DataType.FLOAT16 if options.io_dtype == "float16" else ir.DataType.FLOAT
    done = Caster(graph, rules, io).run()
    spec = with_io_dtype(spec, options.io_dtype)
    lint_half(graph, before, rules, done, spec)
    return Lowered(spec, {"half": _facts(precision, kept, rules, done, options)})


def with_io_dtype(spec: IOSpec, dtype: str) -> IOSpec:
    """The spec with its float32 inputs and outputs in another dtype; others stay."""
    inputs, outputs = (
        tuple(replace(entry, dtype=dtype) if entry.dtype == "float32" else entry for entry in entries)
        for entries in (spec.inputs, spec.outputs)
    )
    return replace(spec, inputs=inputs, outputs=outputs)


def _require_half(graph: ir.Model, kept: tuple[str, ...], precision: Precision) -> None:
    """Refuse to keep most of a model in fp32 under another name.

    Raises:
        UsageFailed: with the share that would be left.
    """
    sizes = {
        name: value.const_value.size
        for name, value in graph.graph.initializers.items()
        if is_weight(value) and value.const_value is not None
    }
    whole = sum(sizes.values())
    left = sum(size for name, size in sizes.items() if holds(kept, name))
    if 2 * left > whole:
        raise UsageFailed(
            f"--keep-fp32 {','.join(kept)} keeps {left / whole:.0%} of the weights in fp32",
            expected=f"half of them at most: what is left is no {precision} artefact",
            next_command="keep fewer layers, or export with --dtype fp32",
        )


def _unit_levels(graph: ir.Model) -> None:
    """Have 8-bit levels reach from -1 to 1 and not to 128, and the patch embedding 128 times as large.

    The patch embedding of an 8-bit contract holds the normalisation, which makes its weights a hundredth of
    what they were: many would be below 6.1e-5, where fp16 has fewer and fewer bits. Powers of two are exact.
    """
    import onnx_ir as ir

    for node in graph.graph:
        weight = node.inputs[1] if node.op_type in PRODUCTS and len(node.inputs) > 1 else None
        source = node.inputs[0]
        if weight is None or source is None or not is_weight(weight) or len(weight.uses()) > 1:
            continue
        shrunk = ir.node("Mul", [source, constant(graph, "one_in_128", 1 / LEVELS, "float32")])
        result = shrunk.outputs[0]
        shrunk.name = result.name = f"{source.name}/unit"
        result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), source.shape
        graph.graph.insert_before(node, shrunk)
        node.replace_input_with(0, result)
        weight.const_value = times(weight, LEVELS)
        return


def _facts(
    precision: Precision, kept: tuple[str, ...], rules: Rules, done: Recast, options: OnnxOptions
) -> dict[str, Any]:
    """What the manifest keeps: what is in fp32 and why."""
    unable = sorted({node.op_type for node in rules.network if rules.unable(node)})
    sums = sorted({node.op_type for node in rules.network if node.op_type in FP32_OPERATORS})
    reasons = {
        "LayerNormalization": "mean and variance in fp32 (stash_type)",
        **dict.fromkeys(sums, f"in fp32: too much is lost in {precision}"),
        **dict.fromkeys(unable, f"in fp32: ONNX has none in {precision} at this opset"),
    }
    present = {node.op_type for node in rules.network}
    return {
        "dtype": precision,
        "io_dtype": options.io_dtype,
        "casts": done.casts,
        "products": dict(sorted(done.products.items())),
        "weights": dict(sorted(done.weights.items())),
        "kept_fp32": list(kept),
        "in_fp32": {name: why for name, why in sorted(reasons.items()) if name in present},
    }
