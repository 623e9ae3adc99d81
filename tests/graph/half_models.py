"""Models and graphs for the tests of half precision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_deploy.exporters.onnx import OnnxOptions, build_graph
from vit_deploy.graph.half import lower
from vit_deploy.graph.stream import write_model
from vit_deploy.model.config import ViTConfig
from vit_deploy.protocols import Silent
from vit_deploy.weights.random import random_model
from vit_deploy.weights.tensors import Weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx_ir as ir
    import torch
    from numpy.typing import NDArray

    from vit_deploy.graph.precision import Lowered
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model

SIZE = (16, 24)
EPSILON = {"fp16": 2.0**-10, "bf16": 2.0**-7}


def tiny(**changes: Any) -> Model:
    """A ViT so small that ONNX's reference evaluator runs it in a blink."""
    plain: dict[str, Any] = {
        "image_size": SIZE,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 3,
        "num_heads": 2,
        "mlp_dim": 40,
        "num_classes": 7,
    }
    return random_model(ViTConfig(**{**plain, **changes}), "tiny", seed=3)


def changed(model: Model, changes: dict[str, Callable[[torch.Tensor], torch.Tensor]]) -> Model:
    """The model with some of its weights changed."""
    assert set(changes) <= set(model.weights)
    return replace(
        model,
        weights=Weights(
            replace(old, reader=lambda old=old: changes[old.name](old.read()).contiguous())
            if old.name in changes
            else old
            for old in model.weights.values()
        ),
    )


def lowered(
    model: Model, precision: Precision, opset: int = 23, spec: IOSpec | None = None, **options: Any
) -> tuple[ir.Model, Lowered]:
    """The graph of a model in half precision, and what is said of it."""
    spec = spec or model.config.io_spec()
    graph = build_graph(model, spec, opset)
    return graph, lower(graph, model, spec, precision, OnnxOptions(opset=opset, **options), Silent())


def evaluate(graph: ir.Model, folder: Path, inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What ONNX's own reference evaluator makes of a graph: every operator in the dtype that it has there."""
    from onnx.reference import ReferenceEvaluator

    write_model(graph, folder / "graph.onnx")
    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(str(folder / "graph.onnx")).run(None, {graph.graph.inputs[0].name: inputs})
    return dict(zip((value.name or "" for value in graph.graph.outputs), results, strict=True))


def pixels(batch: int = 2, size: tuple[int, int] = SIZE) -> NDArray[Any]:
    """Normal noise, ``(b, 3, h, w)``."""
    return np.random.default_rng(0).standard_normal((batch, 3, *size), dtype=np.float32)


def exact(model: Model, inputs: NDArray[Any]) -> NDArray[Any]:
    """Eager PyTorch in float64: the logits."""
    import torch

    module = model.eager(dtype=torch.float64).for_export(dynamic_size=True)
    with torch.no_grad():
        found: NDArray[Any] = module(torch.from_numpy(inputs).double()).numpy()
    return found


def error(found: NDArray[Any], reference: NDArray[Any]) -> float:
    """Relative to the length of the reference."""
    apart = np.linalg.norm(found.astype(np.float64) - reference)
    return float(apart / np.linalg.norm(reference))
