"""A model with its artefacts in each format, and faults that are put into them at known taps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vit_deploy import registry
from vit_deploy.facts import Device
from vit_deploy.parity import ParityCheck
from vit_deploy.protocols import Artefact, Silent
from vit_deploy.spec import BatchRange
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.facts import Verdict
    from vit_deploy.model.vit import ViT
    from vit_deploy.weights.imported import Model

DEPTH = 5
BATCH = BatchRange(1, 1, 3)


@pytest.fixture(scope="session")
def deep_model() -> Model:
    """A ViT of five small blocks whose weights stand away from their initial values."""
    from vit_deploy.model.config import ViTConfig

    config = ViTConfig(
        image_size=(32, 32),
        patch_size=8,
        embed_dim=64,
        depth=DEPTH,
        num_heads=4,
        mlp_dim=96,
        num_classes=11,
        layer_scale=True,
    )
    return random_model(config, "deep", seed=3)


@pytest.fixture(scope="session")
def deep_check(deep_model: Model) -> ParityCheck:
    return ParityCheck(deep_model, threads=1)


def write_onnx(model: Model, folder: Path, outputs: tuple[str, ...] = ("logits",), **options: Any) -> Artefact:
    """An honest ONNX artefact of a model."""
    from vit_deploy.exporters.onnx import EXPORTER, OnnxOptions

    spec = options.pop("spec", None) or model.config.io_spec(outputs, BATCH)
    folder.mkdir(parents=True, exist_ok=True)
    exported = EXPORTER.export(model, spec, OnnxOptions(**options), folder, Silent())
    return Artefact("onnx-fp32", "onnx", "fp32", folder / exported.files[0], spec, model.config)


def write_torchscript(
    model: Model,
    folder: Path,
    damage: Callable[[ViT], Any] | None = None,
    outputs: tuple[str, ...] = ("logits",),
) -> Artefact:
    """A TorchScript artefact of a model, honest unless it is damaged."""
    from vit_deploy.exporters.torchscript import _save, trace_and_freeze

    spec = model.config.io_spec(outputs, BATCH)
    module: Any = model.loaded(spec)
    if damage is not None:
        damage(module)
    path = folder / "model.pt"
    folder.mkdir(parents=True, exist_ok=True)
    _save(trace_and_freeze(module, spec), path)
    return Artefact("torchscript-fp32", "torchscript", "fp32", path, spec, model.config)


def damaged_onnx(honest: Artefact, model: Model, folder: Path, damage: Callable[[ViT], Any]) -> Artefact:
    """The artefact with the weights, and the final norm's epsilon, of a damaged module."""
    import onnx
    from onnx import numpy_helper

    module: Any = model.loaded(honest.spec)
    damage(module)
    proto = onnx.load(honest.path)
    for entry in proto.graph.initializer:
        value = module.state_dict().get(entry.name.removesuffix(".transposed"))
        if value is None:
            continue
        turned = value.t() if entry.name.endswith(".transposed") else value
        if tuple(entry.dims) == tuple(turned.shape):
            entry.CopyFrom(numpy_helper.from_array(turned.contiguous().numpy(), entry.name))
    norms = [node for node in proto.graph.node if node.op_type == "LayerNormalization"]
    for attribute in norms[-1].attribute:
        if attribute.name == "epsilon":
            attribute.f = module.norm.eps
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "damaged.onnx"
    onnx.save(proto, path)
    return replace(honest, path=path)


@pytest.fixture(scope="session")
def honest_onnx(deep_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return write_onnx(deep_model, tmp_path_factory.mktemp("honest"))


def dead_head(block: int) -> Callable[[ViT], None]:
    def damage(vit: ViT) -> None:
        vit.blocks[block].attn.proj.weight.data[:, 16:32] = 0  # type: ignore[union-attr]

    return damage


def lost_bias(block: int) -> Callable[[ViT], None]:
    def damage(vit: ViT) -> None:
        vit.blocks[block].mlp.fc2.bias.data.zero_()  # type: ignore[union-attr]

    return damage


def nan_in_attention(block: int) -> Callable[[ViT], None]:
    def damage(vit: ViT) -> None:
        vit.blocks[block].attn.qkv.weight.data[3, 5] = torch.nan  # type: ignore[union-attr]

    return damage


def shifted_positions(vit: ViT) -> None:
    assert vit.pos_embed is not None
    vit.pos_embed.data[:, 1:] = vit.pos_embed.data[:, 1:].roll(1, dims=1)


def other_final_eps(vit: ViT) -> None:
    vit.norm.eps = 1e-4


def lost_head_bias(vit: ViT) -> None:
    assert vit.head is not None
    vit.head.bias.data.zero_()


FAULTS: dict[str, tuple[Callable[[ViT], None], str]] = {
    "shifted positions": (shifted_positions, "embed"),
    "dead head in block 0": (dead_head(0), "blocks.0.attn"),
    "dead head in block 3": (dead_head(3), "blocks.3.attn"),
    "lost MLP bias in block 2": (lost_bias(2), "blocks.2.mlp"),
    "lost MLP bias in block 4": (lost_bias(4), "blocks.4.mlp"),
    "NaN in block 1": (nan_in_attention(1), "blocks.1.attn"),
    "epsilon of the final norm": (other_final_eps, "tokens"),
    "lost head bias": (lost_head_bias, "logits"),
}


@dataclass
class Counted:
    """Opens sessions, and counts them and their runs."""

    opened: int = 0
    most_taps: int = 0

    def __call__(self, runtime: Any, artefact: Artefact, device: Device, options: Any) -> Any:
        self.opened += 1
        taps = [name for name in artefact.spec.output_names if name == "embed" or name.startswith("blocks.")]
        self.most_taps = max(self.most_taps, len(taps))
        return runtime.open(artefact, device, replace(options, threads=1))


@pytest.fixture
def counted() -> Counted:
    return Counted()


def judged(check: ParityCheck, artefact: Artefact) -> tuple[Any, Verdict]:
    """The runtime of an artefact's format, and the check's verdict by it."""
    runtime = registry.runtimes_for(artefact.format)[0]
    return runtime, check.judge(artefact, runtime=runtime, device=Device())
