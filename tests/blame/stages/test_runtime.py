"""A backend that is wrong, or computes in less than declared, is named; so are its optimisations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.blame.conftest import judged, write_torchscript
from tests.blame.stages.conftest import CPU, WrongRuntime, dying, named, shifted
from vit_deploy import registry
from vit_deploy.errors import UsageFailed
from vit_deploy.facts import Device
from vit_deploy.parity import ParityCheck
from vit_deploy.protocols import SessionOptions

if TYPE_CHECKING:
    from vit_deploy.protocols import Artefact
    from vit_deploy.weights.imported import Model


@pytest.mark.parametrize(
    ("wrong", "name", "because"),
    [
        (lambda options: options.optimise, "optimisations on", "rightly with its optimisations off"),
        (lambda _: True, "optimisations off", "optimisations off too"),
    ],
    ids=["optimisations", "kernels"],
)
@pytest.mark.parametrize("harm", [shifted, dying], ids=["wrong", "dies"])
@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_a_wrong_runtime_is_at_fault_and_so_are_its_optimisations(
    format: str, harm: Any, wrong: Any, name: str, because: str, model: Model, onnx_file: Artefact,
    climb: Any, tmp_path: Path,
) -> None:  # fmt: skip
    artefact = onnx_file if format == "onnx" else write_torchscript(model, tmp_path / "ts")
    runtime = WrongRuntime(registry.runtimes_for(format)[0], wrong, harm)
    fall, walk = climb(artefact, runtime)
    assert fall is not None
    assert fall.reading.kind == "runtime"
    assert fall.reading.name.endswith(name)
    assert because in fall.because
    assert fall.broke is (harm is dying)
    assert [holds for *_, holds in named(walk)].count(False) == 1
    assert runtime.opened <= 2


def test_a_backend_that_has_no_form_without_optimisations_is_asked_with_them(
    onnx_file: Artefact, climb: Any
) -> None:
    class Stubborn(WrongRuntime):
        def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> Any:
            if not options.optimise:
                raise UsageFailed("it cannot do without its optimisations")
            return super().open(artefact, device, options)

    fall, walk = climb(onnx_file, Stubborn(registry.runtime("onnxruntime"), lambda _: True, shifted))
    assert fall is not None
    assert fall.reading.kind == "runtime"
    assert fall.because == "onnxruntime computes wrongly what holds up to there"
    off, on = walk.readings[-2:]
    assert (off.holds, on.holds) == (None, False)
    assert "cannot do without" in off.note


def test_a_fault_of_one_slot_of_one_batch_is_seen(onnx_file: Artefact, climb: Any, check: ParityCheck) -> None:
    def copied(outputs: dict[str, Any]) -> dict[str, Any]:
        (logits,) = outputs.values()
        if len(logits) == 3:
            logits[2] = logits[1]
        return {"logits": logits}

    runtime = WrongRuntime(registry.runtime("onnxruntime"), lambda _: True, copied)
    fall, walk = climb(onnx_file, runtime, judge=check)
    assert walk.case.batch_size == 3
    assert fall is not None
    assert fall.reading.kind == "runtime"


def test_a_backend_that_computes_in_less_than_declared_is_a_matter_of_precision(
    onnx_file: Artefact, climb: Any
) -> None:
    @dataclass
    class Rounding(WrongRuntime):
        def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> Any:
            session = super().open(artefact, device, options)
            session.facts = replace(session.facts, precision="bf16")
            return session

    fall, _ = climb(onnx_file, Rounding(registry.runtime("onnxruntime"), lambda _: False, shifted))
    assert fall is not None
    assert fall.reading.kind == "precision"
    assert fall.because == "onnxruntime computes in bf16 what is declared as fp32"


def test_optimisations_are_really_off(model: Model, onnx_file: Artefact, tmp_path: Path) -> None:
    for optimise, level in ((True, "ORT_ENABLE_ALL"), (False, "ORT_DISABLE_ALL")):
        options = SessionOptions(threads=1, optimise=optimise)
        with registry.runtime("onnxruntime").open(onnx_file, CPU, options) as session:
            assert session.facts.details["graph_optimisation"] == level
    nodes = {}
    archive = write_torchscript(model, tmp_path)
    pixels = {"pixel_values": np.zeros((2, 3, 32, 32), np.float32)}
    for optimise in (True, False):
        options = SessionOptions(threads=1, optimise=optimise)
        with registry.runtime("torchscript").open(archive, CPU, options) as session:
            for _ in range(3):
                session.run(pixels)
        nodes[optimise] = len(list(torch.jit.last_executed_optimized_graph().nodes()))  # type: ignore[attr-defined]
    assert nodes[True] < nodes[False]


def test_an_engine_refuses_to_be_run_without_optimisations(onnx_file: Artefact) -> None:
    with pytest.raises(UsageFailed, match="without TensorRT's optimisations"):
        registry.runtime("tensorrt").open(onnx_file, Device("cuda"), SessionOptions(optimise=False))


def test_the_judgement_and_the_ladder_agree(onnx_file: Artefact, check: ParityCheck) -> None:
    _, verdict = judged(check, onnx_file)
    assert verdict.passed
