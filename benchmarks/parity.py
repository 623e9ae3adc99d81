"""How much room the parity criterion has: honest backends beside faults that exports really have.

A ViT-S/16 with random weights (seeded, away from their initial values) is judged as its ONNX and
TorchScript artefacts, and as eager modules with one fault each. Beside the verdict stands what
``torch.allclose`` with the tolerances that export scripts commonly use says of the same outputs.

    python benchmarks/parity.py --output benchmarks/results/parity.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from vit_deploy.bundle import Bundle
from vit_deploy.deploy.export import export_model
from vit_deploy.environment import environment
from vit_deploy.facts import Availability, Device, RuntimeFacts
from vit_deploy.model.vit import ViT
from vit_deploy.parity import ParityCheck
from vit_deploy.protocols import Artefact, SessionOptions
from vit_deploy.runtimes.eager import TorchSession
from vit_deploy.weights import load_model

ARCH = "vit_small_patch16_224"


class DamagedRuntime:
    """Runs a damaged eager module as if it were a backend."""

    name: ClassVar[str] = "damaged"
    description: ClassVar[str] = "an eager module with one fault"
    formats: ClassVar[frozenset[str]] = frozenset({"damaged"})

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def available(self, device: Device | None = None) -> Availability:  # noqa: ARG002
        """It always is."""
        return Availability.yes()

    def devices(self) -> tuple[Device, ...]:
        """The CPU."""
        return (Device(),)

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> TorchSession:  # noqa: ARG002
        """The module as a session."""
        return TorchSession(artefact, self.module, device, RuntimeFacts("damaged", "1", "cpu", "fp32"))


def tanh_gelu(model: ViT) -> None:
    """GELU in its tanh form, as many exporters emit it."""
    for block in model.blocks:
        block.mlp.act = nn.GELU(approximate="tanh")


def other_eps(model: ViT) -> None:
    """LayerNorm with PyTorch's default eps of 1e-5 for timm's 1e-6."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


def lost_bias(model: ViT) -> None:
    """One block's q, k and v without their bias."""
    model.blocks[5].attn.qkv.bias.zero_()


def swapped_query_and_key(model: ViT) -> None:
    """q and k exchanged in one block."""
    weight = model.blocks[5].attn.qkv.weight
    query, key, value = weight.chunk(3)
    weight.copy_(torch.cat([key, query, value]))


def shifted_positions(model: ViT) -> None:
    """Position embeddings off by one token."""
    model.pos_embed.copy_(model.pos_embed.roll(1, dims=1))


def bf16_arithmetic(model: ViT) -> None:
    """Weights rounded to bf16, as a backend does that computes in bf16 unasked."""
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16().float())


FAULTS: dict[str, Callable[[ViT], None]] = {
    "GELU in its tanh form": tanh_gelu,
    "LayerNorm eps 1e-5 for 1e-6": other_eps,
    "one q/k/v bias lost": lost_bias,
    "q and k swapped in one block": swapped_query_and_key,
    "positions shifted by one": shifted_positions,
    "weights rounded to bf16": bf16_arithmetic,
}
TOLERANCES = (1e-3, 1e-4, 1e-5)


def main() -> None:
    """Judge all of them, print the table, and record it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    model = load_model(ARCH)
    check = ParityCheck(model)
    with tempfile.TemporaryDirectory() as folder:
        export_model(model, Path(folder) / "b", ["onnx", "torchscript"], verify=False)
        bundle = Bundle.open(Path(folder) / "b")
        rows = [_row(name, check.judge(bundle.artefact(name)), None) for name in bundle.records]
    pixels = torch.stack([torch.from_numpy(sample.pixel_values) for sample in check.samples])
    with torch.inference_mode():
        expected = model.eager()(pixels)
        for name, damage in FAULTS.items():
            module = model.eager()
            damage(module)
            artefact = Artefact(
                "damaged", "damaged", "fp32", Path("none"), model.config.io_spec(), model.config
            )
            verdict = check.judge(artefact, runtime=DamagedRuntime(module))
            rows.append(_row(name, verdict, _allclose(module(pixels), expected)))
    for row in rows:
        print(f"{row['case']:32} {row['verdict']:8} {row['worst_ratio']:>14,.2f}  allclose: {row['allclose']}")
    if arguments.output:
        document = {"schema": "vit-deploy/benchmark-parity/1", "environment": environment(), "arch": ARCH}
        text = json.dumps({**document, "rows": rows}, indent=2)
        arguments.output.write_text(text + "\n", encoding="utf-8")


def _allclose(found: torch.Tensor, expected: torch.Tensor) -> dict[str, bool]:
    return {f"{atol:g}": torch.allclose(found, expected, rtol=1e-3, atol=atol) for atol in TOLERANCES}


def _row(case: str, verdict: Any, allclose: dict[str, bool] | None) -> dict[str, Any]:
    return {
        "case": case,
        "verdict": verdict.word,
        "worst_ratio": float(f"{verdict.worst_ratio:.4g}"),
        "p95_ratio": float(f"{verdict.p95_ratio:.4g}"),
        "allclose": allclose,
    }


if __name__ == "__main__":
    main()
