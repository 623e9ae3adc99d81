"""Artefacts whose height and width are free, at four sizes, against eager PyTorch resized there."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from tests.image_sizes import FAMILIES, HEADLESS, SIZES, SMALL
from vit_deploy import registry
from vit_deploy.errors import RunFailed
from vit_deploy.exporters.onnx import OnnxOptions, build_graph
from vit_deploy.facts import Device
from vit_deploy.graph.lint import lint
from vit_deploy.graph.lower_opset import lower_opset
from vit_deploy.model.sizes import size_range
from vit_deploy.protocols import Artefact, NoOptions, SessionOptions, Silent
from vit_deploy.spec import BatchRange
from vit_deploy.weights.random import random_model
from vit_deploy.weights.resize import resized

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.protocols import Session
    from vit_deploy.weights.imported import Model

OPTIONS: dict[str, Any] = {"onnx": OnnxOptions(), "torchscript": NoOptions()}
ONNX_FAMILIES = (
    "learned",
    "registers without positions",
    "centred rotary",
    "rotary with a reference grid",
    "mixed learned rotary",
    "attention pooling",
    "pixels left over",
)
"""Capturing takes seconds; the others are traced for TorchScript only."""


def export(
    model: Model, folder: Path, format: str, outputs: tuple[str, ...] = (), batch: BatchRange | None = None
) -> Artefact:
    config = model.vit_config
    spec = config.io_spec(outputs or config.output_names, batch, sizes=size_range(config))
    exported = registry.exporter(format).export(model, spec, OPTIONS[format], folder, Silent())
    path = folder / exported.files[0]
    return Artefact(f"{format}-fp32", format, "fp32", path, exported.spec, config, exported.facts)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Model, Artefact]]:
    """A family in a format, with all its outputs; made once."""
    made: dict[tuple[str, str], tuple[Model, Artefact]] = {}

    def make(family: str, format: str = "onnx") -> tuple[Model, Artefact]:
        if (family, format) not in made:
            model = random_model(FAMILIES[family], family, 1)
            made[family, format] = model, export(model, tmp_path_factory.mktemp("artefact"), format)
        return made[family, format]

    return make


def opened(artefact: Artefact) -> Session:
    runtime, *_ = registry.runtimes_for(artefact.format)
    return runtime.open(artefact, Device("cpu"), SessionOptions(threads=1))


def truth(model: Model, outputs: tuple[str, ...], images: np.ndarray) -> dict[str, np.ndarray]:
    """Eager in float64, its positions resampled by ``F.interpolate``."""
    there = resized(model, images.shape[2:], exact=True)
    with torch.inference_mode():
        results = there.eager(dtype=torch.float64, outputs=outputs)(torch.from_numpy(images).double())
    tensors = results if isinstance(results, tuple) else (results,)
    return {name: tensor.numpy() for name, tensor in zip(outputs, tensors, strict=True)}


def noise(size: tuple[int, int], batch: int = 2) -> np.ndarray:
    return np.random.default_rng(4).standard_normal((batch, 3, *size), dtype=np.float32)


def check(model: Model, artefact: Artefact) -> None:
    """Equal to eager at every size, and at batches of 1 to 5."""
    with opened(artefact) as session:
        for batch, size in enumerate([model.config.image_size, *SIZES[1:], (8, 16)], 1):
            images = noise(size, batch)
            found = session.run({"pixel_values": images})
            for name, expected in truth(model, artefact.spec.output_names, images).items():
                assert found[name].shape == expected.shape, (size, name)
                assert np.linalg.norm(found[name] - expected) <= 3e-6 * np.linalg.norm(expected), (size, name)


@pytest.mark.parametrize("family", FAMILIES)
def test_torchscript_is_equal_to_eager_at_every_size(family: str, exported) -> None:
    check(*exported(family, "torchscript"))


@pytest.mark.parametrize("family", ONNX_FAMILIES)
def test_onnx_is_equal_to_eager_at_every_size(family: str, exported) -> None:
    check(*exported(family))


@pytest.mark.parametrize("family", ["rotary with a reference grid", "attention pooling"])
def test_lowered_graphs_are_equal_and_legal(family: str, exported, tmp_path: Path) -> None:
    model, artefact = exported(family)
    graph = ir.load(artefact.path)
    lower_opset(graph, 17)
    facts = lint(graph, model.config, artefact.spec)
    assert (facts.opset, facts.operators.get("Attention", 0)) == (17, 0)
    ir.save(graph, tmp_path / "model.onnx")
    check(model, replace(artefact, path=tmp_path / "model.onnx"))


def test_dimensions_have_names_in_the_graph(exported) -> None:
    graph = onnx.load(exported("learned")[1].path).graph

    def names(value: onnx.ValueInfoProto) -> list[object]:
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    assert names(graph.input[0]) == ["batch", 3, "height", "width"]
    shapes = {value.name: names(value) for value in graph.output}
    assert shapes == {"logits": ["batch", 7], "embedding": ["batch", 64], "tokens": ["batch", "tokens", 64]}
    words = {dim for value in graph.value_info for dim in names(value) if isinstance(dim, str)}
    assert {"batch", "tokens"} <= words
    letters = {word for dim in words for word in re.findall(r"[a-z]+\w*", dim)}
    assert letters == {"batch", "tokens", "height", "width"}  # no symbol of PyTorch's is left


def test_a_fixed_batch_and_a_free_size(tmp_path: Path) -> None:
    model = random_model(SMALL, "small", 1)
    artefact = export(model, tmp_path, "torchscript", ("tokens",), BatchRange(2, 2, 2))
    assert artefact.spec.inputs[0].shape == (2, 3, "height", "width")
    with opened(artefact) as session:
        images = noise((64, 24))
        expected = truth(model, ("tokens",), images)["tokens"]
        found = session.run({"pixel_values": images})["tokens"]
    assert np.linalg.norm(found - expected) <= 3e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("format", OPTIONS)
def test_a_size_that_patches_do_not_divide_is_refused(format: str, exported) -> None:
    _, artefact = exported("learned", format)
    with opened(artefact) as session, pytest.raises(RunFailed, match="images of 36x48 pixels"):
        session.run({"pixel_values": noise((36, 48))})


def test_inputs_are_staged_at_any_size(exported) -> None:
    _, artefact = exported("learned")
    with opened(artefact) as session:
        for size in SIZES:
            step = session.stage({"pixel_values": noise(size)})
            step()
            step.synchronize()


DEAD = [
    (SMALL, ("tokens",), ("head.",)),
    (FAMILIES["distilled"], ("embedding",), ("head.", "head_dist.")),
    (FAMILIES["projection"], ("embedding", "tokens"), ("projection.",)),
    (FAMILIES["attention pooling"], ("tokens",), ("attn_pool.",)),
    (replace(HEADLESS, representation_size=33), ("tokens",), ("pre_logits.",)),
    (FAMILIES["rotary with a reference grid"], ("tokens",), ("fc_norm.", "head.")),
]
"""Outputs, and the weights that they do not need."""


@pytest.mark.parametrize(("config", "outputs", "absent"), DEAD)
def test_torchscript_holds_only_what_the_outputs_need(
    config: ViTConfig, outputs: tuple[str, ...], absent: tuple[str, ...], tmp_path: Path
) -> None:
    model = random_model(config, "small", 1)
    held = constants(export(model, tmp_path, "torchscript", outputs).path)
    kept, unneeded = (
        [name for name in model.weights if name.startswith(absent) == dead] for dead in (False, True)
    )
    assert unneeded
    assert not [name for name in unneeded if is_among(model.weights[name].read(), held)]
    assert [name for name in kept if is_among(model.weights[name].read(), held)]


@pytest.mark.parametrize(("config", "outputs", "absent"), DEAD[1:4])
def test_onnx_holds_only_what_the_outputs_need(
    config: ViTConfig, outputs: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    model = random_model(config, "small", 1)
    graph = build_graph(model, config.io_spec(outputs), 23)
    assert not [name for name in graph.graph.initializers if name.startswith(absent)]
    assert [output.name for output in graph.graph.outputs] == list(outputs)


def is_among(values: torch.Tensor, held: list[torch.Tensor]) -> bool:
    return any(torch.equal(values, other) for other in held if other.shape == values.shape)


def constants(path: Path) -> list[torch.Tensor]:
    """Every tensor in an archive."""
    from vit_deploy.exporters.torchscript import quiet_deprecation

    with quiet_deprecation():
        module = torch.jit.load(str(path))
    nodes = [node for node in module.graph.nodes() if node.kind() == "prim::Constant"]
    return [node.t("value") for node in nodes if node.output().type().kind() == "TensorType"]


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("family", ["centred rotary", "mixed learned rotary", "attention pooling"])
def test_tensorrt_builds_with_a_profile_over_height_and_width(family: str, exported, tmp_path: Path) -> None:
    from vit_deploy.exporters._tensorrt_build import TensorRTOptions

    model, source = exported(family)
    exporter = registry.exporter("tensorrt")
    built = exporter.export(model, source.spec, TensorRTOptions(flavour="rtx"), tmp_path, Silent(), source)
    assert built.facts["profile"] == {"pixel_values": [[1, 3, 16, 24], [1, 3, 32, 48], [8, 3, 64, 96]]}
    assert built.facts["attention"]["layers"] == 1 + (family == "attention pooling")
