"""A backend made of any Python function, so that honest and faulty artefacts can be judged alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from vit_deploy.facts import Availability, Device, RuntimeFacts
from vit_deploy.parity import ParityCheck
from vit_deploy.protocols import Artefact, BaseSession
from vit_deploy.spec import BatchRange
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.facts import Verdict
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.vit import ViT
    from vit_deploy.weights.imported import Model

OUTPUTS = ("logits", "embedding", "tokens")


class FunctionSession(BaseSession):
    def __init__(self, artefact: Artefact, runtime: FunctionRuntime) -> None:
        super().__init__(artefact)
        self.runtime = runtime
        self.facts = RuntimeFacts("function", "1", "cpu", runtime.precision)  # type: ignore[arg-type]

    def _run(self, inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
        (values,) = inputs.values()
        with torch.inference_mode():
            results = self.runtime.function(torch.from_numpy(values))
        if isinstance(results, dict):
            return results
        names = self.artefact.spec.output_names
        results = results if isinstance(results, tuple) else (results,)
        return {name: value.float().numpy() for name, value in zip(names, results, strict=True)}

    def stage(self, inputs: Any) -> Any:
        raise AssertionError("parity times nothing")

    def close(self) -> None:
        self.runtime.closed += 1


@dataclass
class FunctionRuntime:
    function: Callable[[torch.Tensor], Any] | None = None
    precision: str = "fp32"
    availability: Availability = field(default_factory=lambda: Availability.yes("1"))
    refusal: Exception | None = None
    closed: int = 0
    opened: list[tuple[Device, Any]] = field(default_factory=list)
    name = "function"
    description = "any Python function"
    formats = frozenset({"function"})

    def available(self, device: Device | None = None) -> Availability:
        return self.availability

    def devices(self) -> tuple[Device, ...]:
        return (Device(),)

    def open(self, artefact: Artefact, device: Device, options: Any) -> FunctionSession:
        self.opened.append((device, options))
        if self.refusal:
            raise self.refusal
        return FunctionSession(artefact, self)


def function_artefact(
    config: ViTConfig,
    precision: str = "fp32",
    outputs: tuple[str, ...] = OUTPUTS,
    batch: BatchRange | None = None,
) -> Artefact:
    spec = config.io_spec(outputs, batch or BatchRange(1, 1, 5))  # type: ignore[arg-type]
    return Artefact(f"function-{precision}", "function", precision, Path("none"), spec, config)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def model() -> Model:
    """A small ViT whose weights stand away from their initial values, and whose sizes all differ."""
    from vit_deploy.model.config import ViTConfig

    config = ViTConfig(
        image_size=(32, 48), patch_size=8, embed_dim=60, depth=3, num_heads=5, mlp_dim=150, num_classes=7
    )
    return random_model(config, "small", seed=1)


@pytest.fixture(scope="session")
def check(model: Model) -> ParityCheck:
    return ParityCheck(model, threads=1)


@pytest.fixture
def backend() -> type[FunctionRuntime]:
    return FunctionRuntime


@pytest.fixture
def declare() -> Callable[..., Artefact]:
    return function_artefact


@pytest.fixture
def vit(model: Model) -> ViT:
    """A float32 module of the model that a test may damage."""
    return model.eager(outputs=OUTPUTS)


@pytest.fixture
def judge(model: Model, check: ParityCheck) -> Callable[..., Verdict]:
    """Judge a function as if it were an artefact of the model."""

    def run(function: Callable[[torch.Tensor], Any], *, precision: str = "fp32", **artefact: Any) -> Verdict:
        runtime = FunctionRuntime(function, precision)
        verdict = check.judge(function_artefact(model.config, precision, **artefact), runtime=runtime)
        assert runtime.closed == 1
        return verdict

    return run
