from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vit_deploy.errors import BackendMissing, RunFailed, UsageFailed
from vit_deploy.exporters.torchscript import EXPORTER
from vit_deploy.facts import Device
from vit_deploy.protocols import Artefact, NoOptions, SessionOptions, Silent
from vit_deploy.runtimes import torchscript
from vit_deploy.runtimes.torchscript import RUNTIME
from vit_deploy.weights.imported import Model

OUTPUTS = ("logits", "embedding", "tokens")


@pytest.fixture
def artefact(small_model: Model, tmp_path: Path) -> Artefact:
    folder = tmp_path / "mit Leerzeichen & ü"
    folder.mkdir()
    spec = small_model.config.io_spec(OUTPUTS)
    exported = EXPORTER.export(small_model, spec, NoOptions(), folder, Silent())
    path = folder / exported.files[0]
    return Artefact("torchscript-fp32", "torchscript", "fp32", path, spec, small_model.config, exported.facts)


def images(batch_size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch_size)
    return {"pixel_values": rng.standard_normal((batch_size, 3, 32, 48)).astype(np.float32)}


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_equals_the_eager_reference(small_model, artefact, batch_size):
    inputs = images(batch_size)
    with RUNTIME.open(artefact, Device(), SessionOptions()) as session:
        found = session.run(inputs)
    with torch.inference_mode():
        results = small_model.eager(outputs=OUTPUTS)(torch.from_numpy(inputs["pixel_values"]))
    assert tuple(found) == OUTPUTS
    for name, want in zip(OUTPUTS, results, strict=True):
        assert found[name].dtype == np.float32
        distance = np.linalg.norm(found[name] - want.numpy()) / np.linalg.norm(want.numpy())
        assert distance <= 1e-5, name


def test_staged_step(artefact):
    with RUNTIME.open(artefact, Device(), SessionOptions()) as session:
        step = session.stage(images(2))
        step()
        step.synchronize()


def test_facts_are_read_back(artefact):
    threads = torch.get_num_threads()
    try:
        with RUNTIME.open(artefact, Device(), SessionOptions(threads=1)) as session:
            facts = session.facts
    finally:
        torch.set_num_threads(threads)
    assert (facts.backend, facts.device, facts.precision) == ("torchscript", "cpu", "fp32")
    assert facts.version == torch.__version__
    assert facts.threads == 1
    assert list(facts.placement) == ["cpu"]
    assert facts.details["attention"] == artefact.config.depth


def test_another_precision_than_declared_is_refused(artefact):
    with pytest.raises(RunFailed, match="holds constants of float32"):
        RUNTIME.open(replace(artefact, precision="fp16"), Device(), SessionOptions())


@pytest.mark.parametrize("content", [b"", b"no archive at all", None])
def test_a_file_that_is_no_archive_is_refused(artefact, content):
    whole = artefact.path.read_bytes()
    artefact.path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(RunFailed, match=r"TorchScript refuses model\.pt"):
        RUNTIME.open(artefact, Device(), SessionOptions())


def test_a_missing_file_is_refused(artefact):
    artefact.path.unlink()
    with pytest.raises(RunFailed, match="TorchScript refuses"):
        RUNTIME.open(artefact, Device(), SessionOptions())


def test_cuda_graph_is_refused(artefact):
    with pytest.raises(UsageFailed, match="CUDA graph"):
        RUNTIME.open(artefact, Device(), SessionOptions(cuda_graph=True))


def test_python_3_14_is_refused(artefact, monkeypatch):
    assert RUNTIME.available().ok
    monkeypatch.setattr(torchscript.sys, "version_info", (3, 14, 0))
    assert RUNTIME.devices() == ()
    with pytest.raises(BackendMissing, match=r"3\.14"):
        RUNTIME.open(artefact, Device(), SessionOptions())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device; needs one without")
def test_no_cuda_device(artefact):
    assert not RUNTIME.available(Device("cuda")).ok
    with pytest.raises(BackendMissing) as caught:
        RUNTIME.open(artefact, Device("cuda"), SessionOptions())
    assert caught.value.next_command


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="PyTorch reaches no CUDA device: run `make gpu-check` on a machine with an NVIDIA GPU",
)
def test_equals_eager_on_the_gpu(small_model, artefact):
    inputs = images(2)
    with RUNTIME.open(artefact, Device("cuda"), SessionOptions()) as session:
        found = session.run(inputs)
        facts = session.facts
    with torch.inference_mode():
        results = small_model.eager(outputs=OUTPUTS)(torch.from_numpy(inputs["pixel_values"]))
    assert list(facts.placement) == ["cuda:0"]
    assert facts.threads is None
    for name, want in zip(OUTPUTS, results, strict=True):
        np.testing.assert_allclose(found[name], want.numpy(), rtol=1e-3, atol=1e-4)
