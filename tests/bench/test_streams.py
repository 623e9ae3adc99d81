"""Steps of several streams run at the same time, each with its share of the threads, and give right outputs."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from vit_deploy import registry
from vit_deploy.environment import usable_cores
from vit_deploy.errors import UsageFailed
from vit_deploy.facts import Device
from vit_deploy.model.config import ViTConfig
from vit_deploy.protocols import Artefact, SessionOptions, Silent
from vit_deploy.runtimes._streams import share_of
from vit_deploy.weights.random import random_model
from vit_deploy.weights.tensors import write_safetensors

BACKENDS = ["eager", "torchscript", "onnxruntime", "openvino"]
BATCH = 8


@pytest.fixture(scope="module")
def model():
    """A step of it lasts some 10 ms: long beside what starts and ends one."""
    config = ViTConfig(
        image_size=(64, 64), patch_size=8, embed_dim=96, depth=4, num_heads=4, mlp_dim=384, num_classes=7
    )
    return random_model(config, "streams", seed=2)


@pytest.fixture(scope="module")
def artefact_of(model, tmp_path_factory):
    """The model in the format that a backend opens, made once for each format."""
    made = {}

    def make(backend):
        runtime = registry.runtime(backend)
        found = runtime.available(Device())
        if not found.ok:
            pytest.skip(f"{backend} cannot run here: {found.reason}; {found.mend}")
        name = sorted(runtime.formats)[0]
        if name not in made:
            made[name] = _export(name, model, tmp_path_factory.mktemp(name))
        return made[name]

    return make


def _export(name, model, folder):
    spec = model.config.io_spec()
    if name == "pytorch":
        with (folder / "weights.safetensors").open("wb") as file:
            write_safetensors(model.weights, file)
        return Artefact("pytorch-fp32", name, "fp32", folder / "weights.safetensors", spec, model.config)
    exporter = registry.exporter(name)
    files = exporter.export(model, spec, exporter.Options(), folder, Silent())
    return Artefact(
        f"{name}-fp32", name, "fp32", folder / files.files[0], files.spec, model.config, files.facts
    )


@pytest.fixture
def opened(artefact_of):
    """Open a backend; PyTorch's threads, which are the process's, are put back."""
    threads, sessions = torch.get_num_threads(), []

    def open_(backend, **options):
        artefact = artefact_of(backend)
        sessions.append(registry.runtime(backend).open(artefact, Device(), SessionOptions(**options)))
        return sessions[-1]

    yield open_
    for session in sessions:
        session.close()
    torch.set_num_threads(threads)


def pictures(seed):
    return {"pixel_values": np.random.default_rng(seed).standard_normal((BATCH, 3, 64, 64), dtype=np.float32)}


def output_of(step):
    """What the last call of a step gave, wherever the backend has put it."""
    if hasattr(step, "binding"):
        return step.binding.get_outputs()[0].numpy().copy()
    if hasattr(step, "request"):
        return step.request.get_output_tensor(0).data.copy()
    return step.results.numpy()


def in_threads(acts):
    """Each act in a thread of its own; the first failure of any is raised."""
    failures = []

    def run(act):
        try:
            act()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("threads", "streams"), [(1, 1), (2, 1), (2, 2), (4, 2), (3, 3)])
def test_what_was_asked_for_is_read_back(opened, backend, threads, streams):
    if backend == "openvino" and threads > usable_cores():
        pytest.skip("OpenVINO takes no more threads than cores, and says so: `check_facts` refuses it then")
    facts = opened(backend, threads=threads, streams=streams).facts
    assert (facts.threads, facts.streams) == (threads, streams)


@pytest.mark.parametrize("backend", BACKENDS)
def test_streams_that_cannot_share_the_threads_are_refused(opened, backend):
    for threads, streams in ((1, 2), (4, 3)):
        with pytest.raises(UsageFailed, match=f"shared evenly by {streams} streams") as raised:
            opened(backend, threads=threads, streams=streams)
        assert "--streams" in raised.value.next_command


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_stream_has_inputs_and_outputs_of_its_own(opened, backend, threads):
    session = opened(backend, threads=threads, streams=2)
    expected = [session.run(pictures(seed))["logits"] for seed in range(2)]
    assert not np.allclose(*expected, atol=1e-3)
    steps = [session.stage(pictures(seed)) for seed in range(2)]
    wrong = []

    def repeat(place):
        for _ in range(10):
            steps[place]()
            steps[place].synchronize()
            if not np.allclose(output_of(steps[place]), expected[place], rtol=1e-4, atol=1e-5):
                wrong.append(place)

    in_threads([lambda: repeat(0), lambda: repeat(1)])
    assert not wrong


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the states of threads are read in /proc")
@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_of_streams_run_at_the_same_time(opened, backend):
    """Two threads want the processor at once: one that waits for the other's lock would sleep."""
    session = opened(backend, threads=2, streams=2)
    steps = [session.stage(pictures(seed)) for seed in range(2)]
    one, both = busy_threads(steps[:1]), busy_threads(steps)
    assert both > one + 0.5, f"{one:.2f} threads compute with one step, {both:.2f} with two"


@pytest.mark.parametrize("backend", ["eager", "torchscript"])
def test_a_new_thread_of_pytorch_takes_over_the_share(opened, backend):
    opened(backend, threads=6, streams=3)
    found = []
    in_threads([lambda: found.append(torch.get_num_threads())] * 2)
    assert found == [2, 2]


def busy_threads(steps, seconds=0.6):
    """How many threads of this process run or want to, on average, while each step is repeated."""
    stop = threading.Event()
    started = threading.Barrier(len(steps) + 1)

    def repeat(step):
        step()
        started.wait()
        while not stop.is_set():
            step()
            step.synchronize()

    counts = []

    def watch():
        started.wait()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            counts.append(running_threads() - 1)  # without this one
            time.sleep(0.002)
        stop.set()

    in_threads([watch, *(lambda step=step: repeat(step) for step in steps)])
    return float(np.mean(counts))


def running_threads():
    """Those that run or are ready to: how busy the machine is makes no difference."""
    count = 0
    for name in os.listdir("/proc/self/task"):  # noqa: PTH208 - polled: paths would cost as much as they find
        try:
            text = Path(f"/proc/self/task/{name}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue  # it has ended since
        count += text.rpartition(")")[2].split()[0] == "R"
    return count


def test_onnx_runtime_opens_a_session_for_each_stream_of_several_threads(opened):
    """Two calls of one session would share its one pool."""
    sessions = {}
    for threads, streams in ((2, 2), (4, 2), (4, 1)):
        session = opened("onnxruntime", threads=threads, streams=streams)
        steps = [session.stage(pictures(0)) for _ in range(streams)]
        assert len({id(step.session) for step in steps}) == session.facts.details["sessions"]
        sessions[threads, streams] = session.facts.details["sessions"]
    assert sessions == {(2, 2): 1, (4, 2): 2, (4, 1): 1}


@pytest.mark.parametrize(("threads", "streams", "share"), [(1, 1, 1), (8, 2, 4), (8, 8, 1)])
def test_the_share_of_a_stream(threads, streams, share):
    assert share_of(threads, streams) == share


@pytest.mark.parametrize(("threads", "streams"), [(1, 2), (8, 3), (8, 0), (8, -1)])
def test_no_share_is_uneven(threads, streams):
    with pytest.raises(UsageFailed, match="shared evenly"):
        share_of(threads, streams)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["eager", "torchscript"])
def test_steps_of_a_gpu_have_streams_of_their_own(artefact_of, backend):
    options = SessionOptions(streams=2)
    with registry.runtime(backend).open(artefact_of(backend), Device("cuda"), options) as session:
        assert session.facts.streams == 2
        expected = [session.run(pictures(seed))["logits"] for seed in range(2)]
        steps = [session.stage(pictures(seed)) for seed in range(2)]
        assert steps[0].stream != steps[1].stream
        in_threads(steps)
        for step, wanted in zip(steps, expected, strict=True):
            step.synchronize()
            assert np.allclose(step.results.cpu().numpy(), wanted, rtol=1e-4, atol=1e-5)
