"""Captures a module that is alive with its weights: a user's own, of whatever it is made.

Building it again under ``FakeTensorMode`` would run code that was written for real tensors, so it is
captured as it stands, with PyTorch's documented road and all its decompositions. Its weights are
replaced by the lazy ones of the checkpoint afterwards, as for our own model.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ExportFailed
from vit_deploy.garbage import collection_off
from vit_deploy.graph.capture import example_shapes, free_dimensions, name_dimensions, quiet, to_onnx
from vit_deploy.weights.module.factory import foreign_code
from vit_deploy.weights.module.probe import plain_attention

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

    from vit_deploy.model.kinds import Architecture
    from vit_deploy.spec import IOSpec

_BAKED = ("inferred to be a constant", "specialized", "Constraints violated")
"""How torch says that a size was taken for a number."""


def capture_live(module: nn.Module, spec: IOSpec, config: Architecture) -> ir.Model:
    """Capture a module as a graph, its weights in it.

    Args:
        module: takes the inputs of ``spec`` by position.
        spec: inputs and outputs; the batch stays free unless its range is fixed.
        config: what describes the module.

    Raises:
        ExportFailed: when the batch is baked in, or PyTorch cannot capture or translate the module.
    """
    import torch

    inputs = tuple(
        torch.zeros(shape, dtype=getattr(torch, entry.dtype))
        for entry, shape in zip(spec.inputs, example_shapes(spec), strict=True)
    )
    free = free_dimensions(spec)
    # Before it raises, torch prints the graph so far; what it raises says the same.
    silent = contextlib.redirect_stderr(io.StringIO())
    with quiet(), collection_off(), plain_attention(), foreign_code(), silent, torch.no_grad():
        try:
            # The adapter takes ``*inputs``, so their shapes stand in a tuple of their own.
            program = torch.export.export(module, inputs, dynamic_shapes=(free,))
            model = to_onnx(program, spec)
        except Exception as error:  # torch.export raises whatever the user's code stumbles on
            raise _refusal(error, spec, config) from error
    name_dimensions(model, spec)
    _drop_unused(model)
    return model


def _drop_unused(model: ir.Model) -> None:
    """What the outputs do not need is no part of the artefact: counters, heads that were not asked for."""
    import onnx_ir.passes.common as common

    common.RemoveUnusedNodesPass()(model)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]


def _refusal(error: Exception, spec: IOSpec, config: Any) -> ExportFailed:
    from vit_deploy.model.module_config import ModuleConfig

    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    if not spec.batch.is_fixed and isinstance(config, ModuleConfig) and any(word in text for word in _BAKED):
        return ExportFailed(
            f"{config.factory} has the batch baked in: its code takes the size of the batch for a number",
            expected="a forward that works for any batch, such as x.flatten(1) for x.view(8, -1)",
            next_command=f"fix the batch: {config.fixed_shapes(1)}",
        )
    return ExportFailed(
        f"PyTorch could not capture the module: {type(error).__name__}: {first}",
        expected="a forward without Python decisions on the values of tensors, as torch.export wants it",
        next_command="use torch.where or torch.cond for `if`; --debug shows the whole report",
    )
