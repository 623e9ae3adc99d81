"""What every runtime promises; a new file in runtimes/ is held to it without a line here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from vit_deploy import registry
from vit_deploy.errors import BackendMissing, RunFailed, UsageFailed
from vit_deploy.facts import Device
from vit_deploy.protocols import Artefact, Runtime, SessionOptions
from vit_deploy.spec import BatchRange
from vit_deploy.weights.tensors import write_safetensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BACKENDS = registry.backends()
DEVICES = [
    pytest.param(Device("cpu"), id="cpu"),
    pytest.param(Device("cuda"), id="cuda", marks=pytest.mark.gpu),
]


@pytest.fixture
def artefact(
    request: pytest.FixtureRequest, exported: Callable, contract_model: object, tmp_path: Path
) -> Artefact:
    """An artefact that the runtime under test opens."""
    runtime = registry.runtime(request.getfixturevalue("name"))
    if "pytorch" in runtime.formats:
        with (tmp_path / "weights.safetensors").open("wb") as file:
            write_safetensors(contract_model.weights, file)
        spec = contract_model.config.io_spec(("logits", "embedding", "tokens"))
        return Artefact(
            "pytorch-fp32", "pytorch", "fp32", tmp_path / "weights.safetensors", spec, contract_model.config
        )
    return exported(sorted(runtime.formats)[0]).artefact


def opened(name: str, artefact: Artefact, device: Device) -> object:
    runtime = registry.runtime(name)
    found = runtime.available(device)
    if not found.ok:
        pytest.skip(f"{name} cannot run on {device} here: {found.reason}; {found.mend}")
    return runtime.open(artefact, device, SessionOptions(threads=2 if device.kind == "cpu" else None))


def pixels(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, 3, 32, 48), dtype=np.float32)


@pytest.mark.parametrize("name", BACKENDS)
def test_it_keeps_the_protocol(name: str) -> None:
    runtime = registry.runtime(name)
    assert isinstance(runtime, Runtime)
    assert runtime.name == name
    assert runtime.description
    assert runtime.formats
    for device in (None, Device("cpu"), Device("cuda")):
        found = runtime.available(device)
        assert found.ok or (found.reason and found.mend)
    assert bool(runtime.devices()) == runtime.available().ok


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", BACKENDS)
def test_it_computes_what_eager_computes(
    name: str, device: Device, artefact: Artefact, contract_model: object
) -> None:
    reference = contract_model.eager(dtype=torch.float64, outputs=artefact.spec.output_names)
    with opened(name, artefact, device) as session:
        for batch in (1, 2, 5, 8):
            found = session.run({"pixel_values": pixels(batch)})
            assert tuple(found) == artefact.spec.output_names
            with torch.inference_mode():
                expected = reference(torch.from_numpy(pixels(batch)).double())
            for output, array in zip(expected, found.values(), strict=True):
                assert array.dtype == np.float32
                assert array.shape == tuple(output.shape)
                error = np.linalg.norm(array - output.numpy()) / np.linalg.norm(output.numpy())
                assert error < 5e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", BACKENDS)
def test_facts_are_those_of_the_session(name: str, device: Device, artefact: Artefact) -> None:
    with opened(name, artefact, device) as session:
        facts = session.facts
    assert facts.backend == name
    assert facts.device.partition(":")[0] == device.kind
    assert facts.precision == "fp32"
    assert facts.version
    assert facts.threads == (2 if device.kind == "cpu" else None)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", BACKENDS)
def test_a_staged_step_can_be_repeated(name: str, device: Device, artefact: Artefact) -> None:
    with opened(name, artefact, device) as session:
        before = session.run({"pixel_values": pixels(2)})
        step = session.stage({"pixel_values": pixels(2)})
        for _ in range(3):
            step()
        step.synchronize()
        after = session.run({"pixel_values": pixels(2)})
    for name_ in before:
        assert np.array_equal(before[name_], after[name_])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", BACKENDS)
def test_streams_are_honoured_or_refused(name: str, device: Device, artefact: Artefact) -> None:
    runtime = registry.runtime(name)
    found = runtime.available(device)
    if not found.ok:
        pytest.skip(f"{name} cannot run on {device} here: {found.reason}; {found.mend}")
    options = SessionOptions(threads=2 if device.kind == "cpu" else None, streams=2)
    try:
        session = runtime.open(artefact, device, options)
    except UsageFailed:
        return
    with session:
        assert session.facts.streams == 2
        assert session.facts.threads == options.threads
        before = session.run({"pixel_values": pixels(2)})
        steps = [session.stage({"pixel_values": pixels(2, seed)}) for seed in range(2)]
        with ThreadPoolExecutor(2) as threads:  # what a step raises is raised here
            for _ in range(3):
                list(threads.map(lambda step: (step(), step.synchronize()), steps))
        after = session.run({"pixel_values": pixels(2)})
    for output in before:
        assert np.allclose(before[output], after[output], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"pixel_values": np.zeros((1, 3, 32, 32), np.float32)},
        {"pixel_values": np.zeros((1, 3, 32, 48), np.float64)},
        {"pixel_values": np.zeros((3, 32, 48), np.float32)},
    ],
    ids=["missing", "shape", "dtype", "rank"],
)
def test_wrong_inputs_are_refused(name: str, wrong: dict[str, np.ndarray], artefact: Artefact) -> None:
    with opened(name, artefact, Device()) as session, pytest.raises(RunFailed, match="pixel_values"):
        session.run(wrong)


@pytest.mark.parametrize("name", BACKENDS)
def test_inputs_need_not_be_contiguous(name: str, artefact: Artefact) -> None:
    strided = np.repeat(pixels(2), 2, axis=0)[::2]
    with opened(name, artefact, Device()) as session:
        expected = session.run({"pixel_values": pixels(2)})["logits"]
        assert np.array_equal(session.run({"pixel_values": strided})["logits"], expected)


@pytest.mark.parametrize("name", BACKENDS)
def test_what_cannot_run_here_says_what_to_do(name: str, artefact: Artefact) -> None:
    runtime = registry.runtime(name)
    missing = [device for device in (Device("cpu"), Device("cuda")) if not runtime.available(device).ok]
    if not missing:
        pytest.skip(f"{name} runs on every device here; the test is for one that does not")
    for device in missing:
        with pytest.raises(BackendMissing) as raised:
            runtime.open(artefact, device, SessionOptions())
        assert raised.value.exit_code == 4
        assert raised.value.next_command


@pytest.mark.parametrize("name", BACKENDS)
def test_a_batch_out_of_the_range_is_refused_or_computed(name: str, artefact: Artefact) -> None:
    """No runtime may give a wrong answer for a batch that it was not made for."""
    narrow = replace(artefact, spec=replace(artefact.spec, batch=BatchRange(1, 1, 4)))
    with opened(name, narrow, Device()) as session:
        try:
            found = session.run({"pixel_values": pixels(9)})
        except RunFailed:
            return
    assert found["logits"].shape == (9, 7)
