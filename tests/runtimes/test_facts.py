"""What sessions tell of their layers and attentions, backend by backend."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vit_deploy import registry
from vit_deploy.exporters.torchscript import quiet_deprecation
from vit_deploy.facts import Device
from vit_deploy.graph.expected import counted_attentions
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.contract import contracted
from vit_deploy.protocols import Artefact, SessionOptions, Silent
from vit_deploy.runtimes import _torchscript_layers, eager, onnxruntime
from vit_deploy.weights.random import random_model
from vit_deploy.weights.tensors import write_safetensors

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.facts import RuntimeFacts
    from vit_deploy.weights.imported import Model

CONFIG = ViTConfig(
    image_size=(32, 48),
    patch_size=8,
    embed_dim=64,
    depth=2,
    num_heads=4,
    mlp_dim=150,
    num_classes=7,
    pool="map",
)
LINEAR = 1 + 4 * 2 + 5 + 1
"""Patches, blocks, the pool with an MLP of its own, head."""


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(CONFIG, "pooled by attention", seed=1)


def exported(model: Model, folder: Path, name: str, contract: str = "pixel_values", **options: Any) -> Artefact:
    exporter = registry.exporter(name)
    plain = model.config.io_spec()
    spec = contracted(plain, contract, model.config, model.known_preprocessing, None)
    made = exporter.export(model, spec, exporter.Options(**options), folder, Silent())
    return Artefact(f"{name}-fp32", name, "fp32", folder / made.files[0], spec, model.config, made.facts)


def facts_of(artefact: Artefact, backend: str) -> RuntimeFacts:
    with registry.runtime(backend).open(artefact, Device(), SessionOptions(threads=1)) as session:
        return session.facts


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_eager(precision: str, model: Model, tmp_path: Path) -> None:
    with (tmp_path / "w.safetensors").open("wb") as file:
        write_safetensors(model.weights, file)
    spec = CONFIG.io_spec()
    artefact = Artefact("pytorch", "pytorch", precision, tmp_path / "w.safetensors", spec, CONFIG)  # type: ignore[arg-type]
    facts = facts_of(artefact, "eager")
    assert facts.fused_attention == {"fused": 3, "of": 3}
    assert facts.dtypes["linear"] == {precision: LINEAR}
    assert facts.dtypes["attention"] == {precision: 3}
    assert facts.dtypes["activation"] == {precision: 3}
    assert "softmax" not in facts.dtypes  # it is inside the kernel


def test_pytorchs_own_choice_of_a_kernel_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = (16, torch.float32, Device())
    assert eager.sdpa_is_fused(*ask, masked=True) is True
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert eager.sdpa_is_fused(*ask, masked=False) is False
    monkeypatch.delattr(torch, "_fused_sdp_choice")
    assert eager.sdpa_is_fused(*ask, masked=False) is None


def test_torchscript(model: Model, tmp_path: Path) -> None:
    facts = facts_of(exported(model, tmp_path, "torchscript", "uint8"), "torchscript")
    assert facts.fused_attention == {"fused": 3, "of": 3}
    assert facts.dtypes["linear"] == {"fp32": LINEAR - 1}  # the pool's query is made of weights alone: frozen
    assert facts.dtypes["attention"] == {"fp32": 3}
    assert facts.dtypes["layernorm"] == {"fp32": 6}
    assert facts.dtypes["activation"] == {"fp32": 3}
    assert facts.dtypes["io"] == {"fp32": 1, "uint8": 1}


def test_torchscript_follows_conversions() -> None:
    class Mixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(4, 4)
            self.second = torch.nn.Linear(4, 4).half()

        def forward(self, tensor: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.second(torch.relu(self.first(tensor)).half()).float(), -1)

    with quiet_deprecation():
        traced = torch.jit.trace(Mixed().eval(), torch.zeros(1, 4), check_trace=False)
        frozen = torch.jit.freeze(traced)
    found = _torchscript_layers.count_layers(frozen.graph, [torch.float32])
    assert found == {
        "linear": {"fp16": 1, "fp32": 1},
        "activation": {"fp32": 1},
        "softmax": {"fp32": 1},
        "io": {"fp32": 2},
    }


@pytest.mark.parametrize(("opset", "fused"), [(23, 3), (18, 0)])
def test_onnxruntime(opset: int, fused: int, model: Model, tmp_path: Path) -> None:
    facts = facts_of(exported(model, tmp_path, "onnx", opset=opset), "onnxruntime")
    assert facts.fused_attention == {"fused": fused, "of": 3}
    assert facts.dtypes["linear"] == {"fp32": LINEAR}
    assert facts.dtypes["softmax"] == {"fp32": 3}
    assert facts.details["shape_nodes"] == {}


def test_onnxruntimes_cpu_computes_half_precision_in_fp32() -> None:
    graph = {"linear": {"fp16": 8, "fp32": 1}, "layernorm": {"bf16": 2}, "io": {"fp16": 2}}
    assert onnxruntime.on_the_cpu(graph) == {
        "linear": {"fp32": 9},
        "layernorm": {"bf16": 2},
        "io": {"fp16": 2},
    }


def test_tensorrt_says_at_the_build_what_its_layers_are(model: Model, tmp_path: Path, rtx: None) -> None:
    source = exported(model, tmp_path, "onnx")
    engine = registry.exporter("tensorrt")
    (tmp_path / "plan").mkdir()
    made = engine.export(model, source.spec, engine.Options(), tmp_path / "plan", Silent(), source)
    dtypes = made.facts["dtypes"]
    assert dtypes["linear"] == {"fp32": LINEAR}
    assert (dtypes["attention"], dtypes["layernorm"]) == ({"fp32": 3}, {"fp32": 6})
    # fp32 has no fused kernel: what may be decomposed is not counted as fused.
    assert counted_attentions(replace(source, facts=made.facts)) == {"fused": 0, "of": 3}
