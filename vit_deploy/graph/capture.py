"""From a PyTorch module to an ONNX graph without its weights ever being in memory.

The module is built under ``FakeTensorMode``: tensors have shapes and dtypes and no data. It is
captured with ``torch.export``, translated by PyTorch's own ONNX exporter, and only then are its
initializers tied to weights that are read from the checkpoint when they are written.

What depends on the version of PyTorch stands in this file alone (written against 2.13).
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ExportFailed
from vit_deploy.garbage import collection_off
from vit_deploy.spec import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir
    import torch
    from torch import nn

    from vit_deploy.spec import Dim, IOSpec
    from vit_deploy.weights.tensors import Weights

CAPTURE_OPSET = 23
"""The opset every graph is captured at: the first with ``Attention``, the last PyTorch 2.13 has."""


def capture(build: Callable[[], nn.Module], spec: IOSpec) -> ir.Model:
    """Capture the module that ``build`` makes as a graph at :data:`CAPTURE_OPSET`, weights absent.

    Args:
        build: makes the module; called under ``FakeTensorMode``, so it costs no memory.
        spec: inputs and outputs; every dimension that has a name there stays free.

    Raises:
        ExportFailed: when PyTorch cannot capture or translate it.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    shapes = example_shapes(spec)
    # Tracing makes millions of small objects that live to its end: collecting takes a quarter of it.
    with quiet(), collection_off(), FakeTensorMode(), torch.no_grad():
        module = build().requires_grad_(requires_grad=False)
        inputs = tuple(
            torch.empty(shape, dtype=getattr(torch, entry.dtype))
            for entry, shape in zip(spec.inputs, shapes, strict=True)
        )
        try:
            program = torch.export.export(module, inputs, dynamic_shapes=free_dimensions(spec))
            model = _translate(program, spec)
        except (torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.TorchDynamoException) as error:
            raise ExportFailed(
                f"PyTorch could not capture the model: {str(error).splitlines()[0]}",
                expected="a model that torch.export takes",
                next_command="run again with --debug for the whole report",
            ) from error
    name_dimensions(model, spec)
    return model


def free_dimensions(spec: IOSpec) -> tuple[dict[int, Any] | None, ...]:
    """What torch.export is told of each input: the axes that have a name are free."""
    import torch

    batch = torch.export.Dim(BATCH, min=1)
    # DYNAMIC is refused where a size would be baked in; AUTO would bake it without a word.
    hint = torch.export.Dim.DYNAMIC
    return tuple(
        {axis: batch if dim == BATCH else hint for axis, dim in enumerate(entry.shape) if isinstance(dim, str)}
        or None
        for entry in spec.inputs
    )


def example_shapes(spec: IOSpec) -> list[tuple[int, ...]]:
    """Shapes to trace the inputs at: no two free dimensions alike, and none that broadcasts."""
    batch = spec.batch.minimum if spec.batch.is_fixed else 2
    patch = spec.sizes.patch_size if spec.sizes else 32
    free = spec.free_at(batch, (3 * patch, 5 * patch))
    return [entry.at(free) for entry in spec.inputs]


def _translate(program: torch.export.ExportedProgram, spec: IOSpec) -> ir.Model:
    """The program as an ONNX graph, decomposed only if it has to be.

    The exporter first retraces every program to break up operators that it has no translation for,
    which takes a third of the whole export. It translates all that a ViT is made of, so that step
    is left out; a program with an operator that it does not know is given to it again, with it.
    """
    import torch

    decompose = program.run_decompositions
    program.run_decompositions = lambda *_: program
    try:
        return to_onnx(program, spec)
    except torch.onnx.errors.OnnxExporterError:
        program.run_decompositions = decompose
        return to_onnx(program, spec)


def to_onnx(program: torch.export.ExportedProgram, spec: IOSpec) -> ir.Model:
    """The program as an ONNX graph at :data:`CAPTURE_OPSET`, its inputs and outputs named by ``spec``."""
    import torch

    translated = torch.onnx.export(
        program,
        dynamo=True,
        optimize=False,
        opset_version=CAPTURE_OPSET,
        verbose=False,
        input_names=[entry.name for entry in spec.inputs],
        output_names=list(spec.output_names),
    )
    if translated is None:
        raise ExportFailed("PyTorch's exporter gave no graph")
    return translated.model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's chatter and its deprecations, which a user can do nothing about, away."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.onnx", "onnxscript", "torch.export", "torch.fx", "torch._dynamo")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def name_dimensions(model: ir.Model, spec: IOSpec) -> None:
    """Give the free dimensions their names in place of PyTorch's symbols, wherever they stand.

    A symbol alone gets the name that the spec has for it. Of a dimension that is computed (the number
    of patches) the formula is kept, in those names; where an output has a name for it, it has that.
    """
    import onnx_ir as ir

    names: dict[str, str] = {}
    for value, entry in zip(model.graph.inputs, spec.inputs, strict=True):
        names |= _named(value, entry.shape)
    symbols = re.compile(r"|".join(rf"\b{re.escape(symbol)}\b" for symbol in names) or "(?!)")
    for value, output in zip(model.graph.outputs, spec.outputs, strict=True):
        names |= _named(value, output.shape)
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    for value in values:
        for axis, dim in enumerate(value.shape or ()):
            if value.shape is None or isinstance(dim, int) or dim.value is None:
                continue
            formula = symbols.sub(lambda match: names[match[0]], dim.value)
            value.shape[axis] = ir.SymbolicDim(names.get(dim.value, formula))


def _named(value: ir.Value, shape: tuple[Dim, ...]) -> dict[str, str]:
    """The symbol of each dimension that has a name."""
    found = list(value.shape or ())
    if len(found) != len(shape):
        return {}
    return {
        dim.value: name
        for dim, name in zip(found, shape, strict=True)
        if isinstance(name, str) and not isinstance(dim, int) and dim.value is not None
    }


def bind_weights(model: ir.Model, weights: Weights) -> None:
    """Tie each parameter of the graph to the weight of the same name, unread.

    Constants of a module that was captured alive stay as they are, where no floating weight has their
    name: they are tables and masks that its code made.

    Raises:
        ExportFailed: when the graph asks for a weight that is not there, or of another shape.
    """
    import onnx_ir as ir

    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            continue
        weight = weights.get(name)
        alive = weight is None or value.const_value.dtype != ir.DataType.FLOAT
        if alive and not is_unread(value.const_value):
            continue
        shape = value.const_value.shape.numpy()
        if weight is None or weight.shape != shape:
            found = "no weight" if weight is None else f"shape {weight.shape}"
            raise ExportFailed(f"the graph's parameter {name!r} has {found}", expected=f"shape {shape}")
        value.const_value = ir.LazyTensor(
            _reader(weight.as_float32().read, name),
            dtype=ir.DataType.FLOAT,
            shape=ir.Shape(shape),
            name=name,
        )


def _reader(read: Callable[[], Any], name: str) -> Callable[[], Any]:
    import onnx_ir as ir

    return lambda: ir.tensor(read().numpy(), name=name)


def is_unread(tensor: Any) -> bool:
    """Whether a tensor's data is elsewhere: a fake parameter, or a weight not read yet."""
    import onnx_ir as ir
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, ir.LazyTensor) or isinstance(getattr(tensor, "raw", None), FakeTensor)
