"""A backend that runs any of our modules and gives taps, so that a search can be put to every test."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vit_deploy.blame.formats import with_tap_specs
from vit_deploy.blame.taps import TOKENS, stream_taps
from vit_deploy.blame.watching import watched
from vit_deploy.facts import Availability, Device, RuntimeFacts
from vit_deploy.protocols import Artefact, BaseSession
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from vit_deploy.model.config import ViTConfig

    Mischief = Callable[[dict[str, np.ndarray[Any, Any]], tuple[str, ...], int], None]

FORMAT = "function"


class FunctionSession(BaseSession):
    def __init__(self, artefact: Artefact, runtime: FunctionRuntime) -> None:
        super().__init__(artefact)
        self.runtime = runtime
        self.facts = RuntimeFacts("function", "1", "cpu", artefact.precision)

    def _run(self, inputs: Any) -> Any:
        self.runtime.runs += 1
        (values,) = inputs.values()
        kept: dict[str, Any] = {}
        module = self.runtime.module
        with torch.inference_mode(), watched(module, lambda tap, stream: kept.update({tap: stream.numpy()})):
            results = module(torch.from_numpy(values))
        kept |= {name: result.numpy() for name, result in zip(module.outputs, results, strict=True)}
        names = self.artefact.spec.output_names
        outputs = {name: kept[name].copy() for name in names}
        taps = tuple(name for name in names if name == "embed" or name.startswith("blocks."))
        self.runtime.mischief(outputs, taps, len(values))
        return outputs

    def stage(self, inputs: Any) -> Any:
        raise AssertionError("nothing is timed")


@dataclass
class FunctionRuntime:
    """Runs ``module``, which gives tokens, embedding and logits; ``mischief`` changes what it gives."""

    module: Any
    mischief: Mischief = lambda outputs, taps, size: None
    runs: int = 0
    taps: list[tuple[str, ...]] = field(default_factory=list)
    name = "function"
    description = "any module"
    formats = frozenset({FORMAT})
    cuda_graphs = False

    def available(self, device: Device | None = None) -> Availability:
        return Availability.yes("1")

    def devices(self) -> tuple[Device, ...]:
        return (Device(),)

    def open(self, artefact: Artefact, device: Device, options: Any) -> FunctionSession:
        self.taps.append(tuple(artefact.spec.output_names))
        return FunctionSession(artefact, self)


def artefact_of(
    config: ViTConfig, folder: Path, precision: Any = "fp32", outputs: tuple[str, ...] = ("logits",)
) -> Artefact:
    spec = config.io_spec(outputs, BatchRange(1, 1, 3))  # type: ignore[arg-type]
    return Artefact(f"function-{precision}", FORMAT, precision, folder / "none", spec, config)


def install_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the format one that can be looked into, as a file of its own would."""
    module = ModuleType(f"vit_deploy.blame.formats.{FORMAT}")

    def found_taps(artefact: Artefact) -> tuple[str, ...]:
        stream = stream_taps(artefact.config.depth)
        return stream if TOKENS in artefact.spec.output_names else (*stream, TOKENS)

    def tapped(artefact: Artefact, taps: tuple[str, ...], folder: Path) -> Artefact:
        return with_tap_specs(artefact, taps, folder / "function")

    vars(module).update(found_taps=found_taps, tapped=tapped)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def of_depth(config: ViTConfig, depth: int) -> ViTConfig:
    return replace(config, image_size=(16, 16), embed_dim=16, num_heads=2, mlp_dim=16, depth=depth)
