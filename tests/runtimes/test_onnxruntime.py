"""ONNX Runtime: facts are read back, and a silent fall-back is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from vit_deploy.errors import BackendMissing, RunFailed
from vit_deploy.exporters.onnx import EXPORTER, OnnxOptions
from vit_deploy.facts import Device
from vit_deploy.protocols import Artefact, SessionOptions, Silent
from vit_deploy.runtimes.onnxruntime import RUNTIME

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.imported import Model


@pytest.fixture
def artefact(small_model: Model, tmp_path: Path) -> Artefact:
    spec = small_model.config.io_spec()
    exported = EXPORTER.export(small_model, spec, OnnxOptions(), tmp_path, Silent())
    return Artefact("onnx-fp32", "onnx", "fp32", tmp_path / exported.files[0], spec, small_model.config)


def test_facts_are_read_back(artefact: Artefact) -> None:
    with RUNTIME.open(artefact, Device(), SessionOptions(threads=1)) as session:
        facts = session.facts
    assert (facts.precision, facts.threads, facts.device) == ("fp32", 1, "cpu")
    assert facts.placement["CPUExecutionProvider"] > 40


def test_another_precision_than_declared_is_an_error(artefact: Artefact) -> None:
    from dataclasses import replace

    with pytest.raises(RunFailed, match="fp32"):
        RUNTIME.open(replace(artefact, precision="fp16"), Device(), SessionOptions())


def test_no_cuda_says_what_to_install(artefact: Artefact) -> None:
    if RUNTIME.available(Device("cuda")).ok:
        pytest.skip("this machine has ONNX Runtime's CUDA provider; the test is for one without")
    with pytest.raises(BackendMissing, match="CUDAExecutionProvider") as raised:
        RUNTIME.open(artefact, Device("cuda"), SessionOptions())
    assert "vit-deploy[gpu]" in raised.value.next_command


def test_a_fall_back_is_an_error(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime as ort

    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda self: ["OtherExecutionProvider"])
    with pytest.raises(RunFailed, match="fell back to OtherExecutionProvider"):
        RUNTIME.open(artefact, Device(), SessionOptions())


def test_arithmetic_put_elsewhere_is_an_error(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    import vit_deploy.runtimes.onnxruntime as module

    monkeypatch.setitem(module.PROVIDERS, "cpu", "FastExecutionProvider")
    monkeypatch.setattr("onnxruntime.InferenceSession.get_providers", lambda self: ["FastExecutionProvider"])
    with pytest.raises(RunFailed, match="elsewhere than on FastExecutionProvider"):
        module._placement(_open(artefact), "FastExecutionProvider")


def _open(artefact: Artefact) -> object:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return ort.InferenceSession(str(artefact.path), options, providers=["CPUExecutionProvider"])


def test_a_file_that_is_no_model_is_refused(artefact: Artefact) -> None:
    artefact.path.write_bytes(b"not a model")
    with pytest.raises(RunFailed, match="refuses"):
        RUNTIME.open(artefact, Device(), SessionOptions())


def test_bound_outputs_are_those_of_run(artefact: Artefact) -> None:
    pixels = np.random.default_rng(0).standard_normal((2, 3, 32, 48), dtype=np.float32)
    with RUNTIME.open(artefact, Device(), SessionOptions()) as session:
        expected = session.run({"pixel_values": pixels})["logits"]
        step = session.stage({"pixel_values": pixels})
        step()
        step.synchronize()
        assert np.array_equal(step.binding.copy_outputs_to_cpu()[0], expected)
