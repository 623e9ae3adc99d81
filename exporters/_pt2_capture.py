"""The model as a program that AOTInductor compiles, and what is known of its layers before that.

Inputs and outputs are those that the spec says whatever the precision is: the casts to and from half
precision are in the program, where the compiler fuses them with what stands beside them.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ExportFailed
from vit_deploy.garbage import collection_off
from vit_deploy.model.precision import eager_dtype

if TYPE_CHECKING:
    import torch

    from vit_deploy.facts import LayerClass
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model

_CLASSES: dict[str, LayerClass] = {
    **dict.fromkeys(("linear", "addmm", "mm", "conv1d", "conv2d", "conv3d", "convolution"), "linear"),
    "scaled_dot_product_attention": "attention",
    **dict.fromkeys(("softmax", "_softmax"), "softmax"),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm", "group_norm"), "layernorm"),
    **dict.fromkeys(("gelu", "silu", "relu", "sigmoid", "tanh"), "activation"),
}
_NAMES = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_BAKED = ("inferred to be a constant", "specialized", "Constraints violated")
"""How torch says that a size was taken for a number."""


def capture_program(
    model: Model, spec: IOSpec, precision: Precision, device: str
) -> torch.export.ExportedProgram:
    """Capture a model with its weights, for the sizes that are free in ``spec``.

    Args:
        model: ours, or a user's own module.
        spec: inputs and outputs.
        precision: of the weights and of what is computed between the casts.
        device: that it is compiled for.

    Raises:
        ExportFailed: when PyTorch cannot capture it, or a size that is free would be baked in.
    """
    import torch

    from vit_deploy.graph.capture import example_shapes, free_dimensions, quiet
    from vit_deploy.weights.module.factory import foreign_code
    from vit_deploy.weights.module.probe import plain_attention

    module = declared(model.loaded(spec, dtype=eager_dtype(precision), device=device), spec, precision)
    inputs = tuple(
        torch.zeros(shape, dtype=getattr(torch, entry.dtype), device=device)
        for entry, shape in zip(spec.inputs, example_shapes(spec), strict=True)
    )
    # Before it raises, torch prints the graph so far; what it raises says the same.
    silent = contextlib.redirect_stderr(io.StringIO())
    with quiet(), collection_off(), plain_attention(), foreign_code(), silent, torch.no_grad():
        try:
            # The wrapper takes ``*inputs``, so their shapes stand in a tuple of their own.
            return torch.export.export(module, inputs, dynamic_shapes=(free_dimensions(spec),))
        except Exception as error:  # torch.export raises whatever a user's code stumbles on
            raise _refusal(error, spec) from error


def declared(module: torch.nn.Module, spec: IOSpec, precision: Precision) -> torch.nn.Module:
    """The module with the inputs and outputs of ``spec``, computing in ``precision`` between them."""
    import torch

    dtype = eager_dtype(precision)
    given = [getattr(torch, entry.dtype) for entry in spec.outputs]

    class Recast(torch.nn.Module):
        def forward(self, levels: torch.Tensor) -> torch.Tensor:
            return levels.to(dtype)

    stage: Any = getattr(module, "input_stage", None)
    if stage is not None and dtype != torch.float32:
        # Pictures are resized in float32; whole numbers up to 128 are exact in bfloat16, too.
        module.input_stage = torch.nn.Sequential(stage, Recast())

    class Declared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            cast = (tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in inputs)
            results = self.inner(*cast)
            outputs = results if isinstance(results, (tuple, list)) else (results,)
            return tuple(output.to(kind) for output, kind in zip(outputs, given, strict=True))

    return Declared().eval()


def count_layers(program: torch.export.ExportedProgram, spec: IOSpec) -> dict[str, dict[str, int]]:
    """Number of layers by the dtype of what they give, for each class that the program has.

    Machine code has no layers and no types; this is of the program that it is compiled from.
    """
    counted: dict[str, Counter[str]] = {}
    for node in program.graph.nodes:
        operator = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
        kind = _CLASSES.get(operator)
        value = node.meta.get("val")
        if kind is None or value is None:
            continue
        first = value[0] if isinstance(value, (tuple, list)) else value
        word = str(first.dtype).removeprefix("torch.")
        counted.setdefault(kind, Counter())[_NAMES.get(word, word)] += 1
    ends = [_NAMES.get(entry.dtype, entry.dtype) for entry in (*spec.inputs, *spec.outputs)]
    counted["io"] = Counter(ends)
    return {kind: dict(sorted(found.items())) for kind, found in counted.items()}


def _refusal(error: Exception, spec: IOSpec) -> ExportFailed:
    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    found = f"PyTorch could not capture the model: {type(error).__name__}: {first}"
    if any(word in text for word in _BAKED):
        free = sorted({dim for entry in spec.inputs for dim in entry.shape if isinstance(dim, str)})
        return ExportFailed(
            f"the model takes a size that should be free for a number: {first}",
            expected=f"a forward that works for any {', '.join(free)}",
            next_command="fix it: --minShapes, --optShapes and --maxShapes alike; --debug has the whole report",
        )
    return ExportFailed(
        found,
        expected="a forward without Python decisions on the values of tensors, as torch.export wants it",
        next_command="vit-deploy export --format onnx, or --debug for the whole report",
    )


def describe(program: torch.export.ExportedProgram) -> dict[str, Any]:
    """What the program holds: its operators, and its floating weights by dtype."""
    calls = (node.target for node in program.graph.nodes if node.op == "call_function")
    operators = Counter(str(target) for target in calls if hasattr(target, "overloadpacket"))
    kinds = Counter(
        str(tensor.dtype).removeprefix("torch.")
        for tensor in program.state_dict.values()
        if tensor.is_floating_point()
    )
    return {"operators": dict(sorted(operators.items())), "constants": dict(sorted(kinds.items()))}
