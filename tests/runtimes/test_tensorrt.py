"""What can be tested of the TensorRT runtime without a GPU, and, marked ``gpu``, what cannot."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from vit_deploy import tensorrt_flavours
from vit_deploy.errors import BackendMissing, RunFailed, UsageFailed
from vit_deploy.exporters import onnx as onnx_exporter
from vit_deploy.exporters.tensorrt import EXPORTER, TensorRTOptions
from vit_deploy.facts import Availability, Device
from vit_deploy.protocols import Artefact, SessionOptions, Silent
from vit_deploy.runtimes import tensorrt
from vit_deploy.runtimes.tensorrt import RUNTIME
from vit_deploy.spec import BatchRange
from vit_deploy.tensorrt_flavours import FLAVOURS, Gpus
from vit_deploy.weights.imported import Model

if TYPE_CHECKING:
    from pathlib import Path

needs_rtx = pytest.mark.usefixtures("rtx")
CUDA = Device("cuda")
OUTPUTS = ("logits", "tokens")


@pytest.fixture(scope="module")
def artefact(wide_model: Model, tmp_path_factory) -> Artefact:
    folder: Path = tmp_path_factory.mktemp("tensorrt")
    config = wide_model.config
    spec = config.io_spec(OUTPUTS, BatchRange(1, 2, 4))
    files = onnx_exporter.EXPORTER.export(wide_model, spec, onnx_exporter.OnnxOptions(), folder, Silent()).files
    source = Artefact("onnx-fp32", "onnx", "fp32", folder / files[0], spec, config)
    exported = EXPORTER.export(wide_model, spec, TensorRTOptions(), folder, Silent(), source)
    path = folder / exported.files[0]
    return Artefact("tensorrt-fp32", "tensorrt", "fp32", path, spec, config, exported.facts)


def with_facts(artefact: Artefact, **facts: object) -> Artefact:
    return replace(artefact, facts={**artefact.facts, **facts})


def images(batch_size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch_size)
    return {"pixel_values": rng.standard_normal((batch_size, 3, 32, 48)).astype(np.float32)}


# Availability ---------------------------------------------------------------------------------------


@pytest.fixture
def no_gpu(monkeypatch):
    for module in (tensorrt_flavours, tensorrt):
        monkeypatch.setattr(module, "find_gpus", lambda: Gpus(reason="no NVIDIA driver was found"))


@pytest.fixture
def one_gpu(monkeypatch):
    """A machine whose driver and PyTorch say that there is one GPU of compute capability 8.9."""
    for module in (tensorrt_flavours, tensorrt):
        monkeypatch.setattr(module, "find_gpus", lambda: Gpus(("8.9",)))
    monkeypatch.setattr(tensorrt, "cuda_availability", lambda: Availability.yes("2.13"))


@needs_rtx
def test_without_a_gpu_every_open_says_what_to_do(artefact, no_gpu):
    assert RUNTIME.devices() == ()
    found = RUNTIME.available()
    assert (found.ok, found.reason) == (False, "no NVIDIA driver was found")
    assert found.version
    for broken in (artefact, with_facts(artefact, flavour="other"), replace(artefact, facts={})):
        with pytest.raises(BackendMissing, match="no NVIDIA driver was found") as caught:
            RUNTIME.open(broken, CUDA, SessionOptions())
        assert caught.value.exit_code == 4
        assert "NVIDIA GPU of compute capability 8.0" in caught.value.next_command
        assert "vit-deploy doctor" in caught.value.next_command


def test_the_missing_module_is_named_before_the_missing_gpu(no_gpu, monkeypatch):
    for flavour in FLAVOURS.values():
        monkeypatch.setitem(sys.modules, flavour.module, None)
    found = RUNTIME.available()
    assert found.reason == "TensorRT is not installed; TensorRT-RTX is not installed"
    assert "pip install 'vit-deploy[rtx]'" in found.mend
    assert "pip install 'vit-deploy[gpu]'" in found.mend


@needs_rtx
def test_a_gpu_that_pytorch_does_not_reach(one_gpu, monkeypatch):
    monkeypatch.setattr(tensorrt, "cuda_availability", lambda: Availability.no("it is a CPU build", "…"))
    found = RUNTIME.available()
    assert not found.ok
    assert "it is a CPU build" in found.reason
    assert found.mend.startswith("pip install torch")


@needs_rtx
def test_devices(one_gpu):
    assert RUNTIME.available().ok
    assert RUNTIME.devices() == (CUDA,)
    assert RUNTIME.available(Device("cpu")).mend == "add --device cuda"
    assert "there is no cuda:1" in RUNTIME.available(Device("cuda", 1)).reason


# What is compared before an engine is read ----------------------------------------------------------


@pytest.fixture
def never_opened(one_gpu, monkeypatch):
    """TensorRT must not get to see the engine."""

    def session(*arguments: object) -> None:
        raise AssertionError("the engine was opened")

    monkeypatch.setattr(tensorrt, "TensorRTSession", session)


@needs_rtx
def test_an_engine_that_fits_is_opened(artefact, never_opened):
    with pytest.raises(AssertionError, match="the engine was opened"):
        RUNTIME.open(artefact, CUDA, SessionOptions())


@needs_rtx
def test_unknown_flavour(artefact, never_opened):
    with pytest.raises(RunFailed, match="which flavour of TensorRT built it: None"):
        RUNTIME.open(with_facts(artefact, flavour=None), CUDA, SessionOptions())


@needs_rtx
def test_another_version(artefact, never_opened):
    with pytest.raises(BackendMissing, match=r"was built by TensorRT-RTX 1\.0\.0\.1") as caught:
        RUNTIME.open(with_facts(artefact, version="1.0.0.1"), CUDA, SessionOptions())
    assert "tensorrt_rtx==1.0.0.1" in caught.value.next_command


@needs_rtx
@pytest.mark.parametrize("content", [None, b"something else" * 100, b""])
def test_a_wrong_plan(artefact, never_opened, tmp_path, content):
    path = tmp_path / "model.plan"
    path.write_bytes(artefact.path.read_bytes()[:-1] if content is None else content)
    with pytest.raises(RunFailed, match=r"model\.plan"):
        RUNTIME.open(replace(artefact, path=path), CUDA, SessionOptions())


@needs_rtx
def test_another_gpu_than_it_was_built_for(artefact, never_opened):
    with pytest.raises(BackendMissing, match=r"built for compute capability 12\.0; this GPU has 8\.9"):
        RUNTIME.open(with_facts(artefact, compute_capabilities=["12.0"]), CUDA, SessionOptions())
    compatible = with_facts(artefact, compute_capabilities=["8.0"], hardware_compatibility="ampere+")
    with pytest.raises(AssertionError, match="the engine was opened"):
        RUNTIME.open(compatible, CUDA, SessionOptions())


@needs_rtx
def test_cpu_threads_are_refused(artefact, never_opened):
    with pytest.raises(UsageFailed, match="no use for 2 CPU threads"):
        RUNTIME.open(artefact, CUDA, SessionOptions(threads=2))


# With a GPU -----------------------------------------------------------------------------------------

with_gpu = pytest.mark.skipif(
    not RUNTIME.available().ok,
    reason=f"{RUNTIME.available().reason}: {RUNTIME.available().mend}, then `make gpu-check`",
)


@pytest.mark.gpu
@with_gpu
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_equals_eager(wide_model, artefact, batch_size):
    inputs = images(batch_size)
    with RUNTIME.open(artefact, CUDA, SessionOptions()) as session:
        found = session.run(inputs)
        again = session.run(inputs)
    with torch.inference_mode():
        results = wide_model.eager(outputs=OUTPUTS)(torch.from_numpy(inputs["pixel_values"]))
    assert tuple(found) == OUTPUTS
    for name, want in zip(OUTPUTS, results, strict=True):
        distance = np.linalg.norm(found[name] - want.numpy()) / np.linalg.norm(want.numpy())
        assert distance <= 1e-5, name
        np.testing.assert_array_equal(found[name], again[name])


@pytest.mark.gpu
@with_gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_staged_steps_of_two_batch_sizes_do_not_disturb_each_other(artefact, cuda_graph):
    with RUNTIME.open(artefact, CUDA, SessionOptions(cuda_graph=cuda_graph)) as session:
        alone = {size: session.run(images(size))["logits"] for size in (1, 4)}
        steps = {size: session.stage(images(size)) for size in (1, 4)}
        for size in (1, 4, 1):
            steps[size]()
            steps[size].synchronize()
            staged = steps[size].buffers.outputs["logits"].float().cpu().numpy()
            np.testing.assert_allclose(staged, alone[size], rtol=1e-5, atol=1e-6)
        assert session.facts.details["cuda_graph"] is cuda_graph


@pytest.mark.gpu
@with_gpu
def test_facts_are_read_back(artefact):
    with RUNTIME.open(artefact, CUDA, SessionOptions()) as session:
        facts = session.facts
        with pytest.raises(RunFailed, match="outside the engine's profile"):
            session.run(images(5))
    assert facts.precision == "fp32"
    assert facts.tf32 is False
    profile = facts.details["tensors"]["pixel_values"]["profile"]
    assert [shape[0] for shape in profile] == [1, 2, 4]
    assert facts.details["attention"]["layers"] == artefact.config.depth
