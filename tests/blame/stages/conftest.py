"""A small model, its artefacts, and the ladder between them; runtimes that are wrong on purpose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.blame.conftest import write_onnx
from vit_deploy import registry
from vit_deploy.blame.ladders import ladder_of
from vit_deploy.blame.stages import Fall, Walk
from vit_deploy.errors import RunFailed
from vit_deploy.facts import Device, Verdict
from vit_deploy.parity import ParityCheck
from vit_deploy.protocols import SessionOptions, Silent
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.protocols import Artefact
    from vit_deploy.weights.imported import Model

CPU = Device()
CAPTURED: dict[Any, Any] = {}


@pytest.fixture(scope="module")
def model() -> Model:
    from vit_deploy.model.config import ViTConfig

    config = ViTConfig(
        image_size=(32, 32), patch_size=8, embed_dim=64, depth=3, num_heads=4, mlp_dim=96, num_classes=7
    )
    return random_model(config, "stages", seed=5)


@pytest.fixture(scope="module")
def check(model: Model) -> ParityCheck:
    return ParityCheck(model, threads=1)


@pytest.fixture(scope="module")
def onnx_file(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return write_onnx(model, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(autouse=True)
def _captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capturing takes most of a ladder's time, and each test would do it anew."""
    from vit_deploy.graph import pipeline

    capture = pipeline.capture

    def once(build: Any, spec: Any) -> Any:
        key = (spec, build().blocks[0].attn.merge_heads.__class__.__name__)
        if key not in CAPTURED:
            CAPTURED[key] = capture(build, spec)
        return CAPTURED[key].clone()

    monkeypatch.setattr(pipeline, "capture", once)


@pytest.fixture
def climb(check: ParityCheck, tmp_path: Path) -> Callable[..., tuple[Fall | None, Walk]]:
    """Climb the ladder of an artefact that failed, or is taken to have failed."""

    def run(artefact: Artefact, runtime: Any = None, judge: Any = None) -> tuple[Fall | None, Walk]:
        runtime = runtime or registry.runtimes_for(artefact.format)[0]
        verdict = judge.judge(artefact, runtime=runtime, device=CPU) if judge else Verdict(passed=False)
        folder = tmp_path / "walk"
        folder.mkdir(exist_ok=True)
        chosen = judge or check
        case, limit = chosen.case(artefact, verdict), chosen.limit(artefact, verdict)

        def opened(backend: Any, form: Artefact, device: Device, options: SessionOptions) -> Any:
            return backend.open(form, device, replace(options, threads=1))

        walk = Walk(chosen, artefact, case, limit, runtime, CPU, opened, folder, Silent())
        return ladder_of(artefact.format)(walk), walk

    return run


def named(walk: Walk) -> list[tuple[str, str, bool | None]]:
    return [(reading.kind, reading.name, reading.holds) for reading in walk.readings]


@dataclass
class WrongRuntime:
    """A real backend whose outputs are changed, or that fails, where ``wrong`` says so."""

    inner: Any
    wrong: Callable[[SessionOptions], bool]
    harm: Callable[[dict[str, Any]], dict[str, Any]]
    opened: int = 0

    @property
    def name(self) -> str:
        return str(self.inner.name)

    @property
    def formats(self) -> frozenset[str]:
        return self.inner.formats  # type: ignore[no-any-return]

    def available(self, device: Device | None = None) -> Any:
        return self.inner.available(device)

    def devices(self) -> Any:
        return self.inner.devices()

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> Any:
        self.opened += 1
        session = self.inner.open(artefact, device, options)
        if self.wrong(options):
            run = session._run
            session._run = lambda inputs: self.harm(dict(run(inputs)))
        return session


def shifted(outputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value + np.float32(0.5) for name, value in outputs.items()}


def dying(_: dict[str, Any]) -> dict[str, Any]:
    raise RunFailed("the worker died of signal 11 (SIGSEGV)")
