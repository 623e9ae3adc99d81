"""Sessions whose backend lives in a process of its own: what they give, how they fail, what they leave."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from vit_deploy import errors, registry
from vit_deploy.environment import usable_cores
from vit_deploy.errors import BackendDied, BackendMissing, HostileInput, RunFailed, UsageFailed, VitDeployError
from vit_deploy.facts import Device
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.module_config import ModuleConfig, Port
from vit_deploy.model.sizes import size_range
from vit_deploy.parity import ParityCheck
from vit_deploy.parity.array_file import ArrayFile
from vit_deploy.parity.crossing import artefact_data, artefact_from, error_data, error_from
from vit_deploy.parity.isolated import open_isolated
from vit_deploy.protocols import Artefact, SessionOptions, Silent
from vit_deploy.spec import BatchRange
from vit_deploy.weights.random import random_model
from vit_deploy.weights.tensors import write_safetensors

pytest.importorskip("onnxruntime", reason="ONNX Runtime is needed: pip install 'vit-deploy[cpu]'")

TIMEOUT_S = 60
CONFIG = ViTConfig(
    image_size=(16, 24), patch_size=8, embed_dim=40, depth=2, num_heads=4, mlp_dim=96, num_classes=5
)
OUTPUTS = ("logits", "tokens")
CPU = Device()


@pytest.fixture(scope="module")
def small():
    return random_model(CONFIG, "small", seed=2)


@pytest.fixture(scope="module")
def made(small, tmp_path_factory):
    """The small model in each format that runs on a CPU."""
    artefacts = {}
    spec = CONFIG.io_spec(OUTPUTS, BatchRange(1, 1, 3))
    for format in ("onnx", "torchscript"):
        exporter, folder = registry.exporter(format), tmp_path_factory.mktemp(format)
        exported = exporter.export(small, spec, exporter.Options(), folder, Silent())
        path = folder / exported.files[0]
        artefacts[format] = Artefact(
            f"{format}-fp32", format, "fp32", path, exported.spec, CONFIG, exported.facts
        )
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    with path.open("wb") as file:
        write_safetensors(small.weights, file)
    artefacts["pytorch"] = Artefact("pytorch-fp32", "pytorch", "fp32", path, spec, CONFIG)
    return artefacts


@pytest.fixture(scope="module")
def endless(made, tmp_path_factory):
    """The ONNX artefact with a loop in front that never ends."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(made["onnx"].path)
    (given,) = model.graph.input
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("carried", "kept")]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["carried"], ["kept"]),
            helper.make_node("Identity", ["going"], ["goes_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            values[0],
        ],
        [helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []), values[1]],
    )
    for node in model.graph.node:
        node.input[:] = ["looped" if name == given.name else name for name in node.input]
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    model.graph.initializer.append(yes)
    model.graph.node.insert(0, helper.make_node("Loop", ["", "yes", given.name], ["looped"], body=body))
    path = tmp_path_factory.mktemp("endless") / "endless.onnx"
    onnx.save(model, path)
    return replace(made["onnx"], path=path, name="endless")


@pytest.fixture
def opened():
    """Open artefacts that are closed in the end."""
    sessions = []

    def open_it(artefact, backend="onnxruntime", timeout_s=TIMEOUT_S, **options):
        session = open_isolated(
            registry.runtime(backend), artefact, CPU, SessionOptions(**options), timeout_s=timeout_s
        )
        sessions.append(session)
        return session

    yield open_it
    for session in sessions:
        session.close()


def batch(size=2):
    values = np.random.default_rng(size).standard_normal((size, 3, 16, 24), dtype=np.float32)
    return {"pixel_values": values}


def is_gone(pid, within_s=10):
    """Whether a process ends in time; one that nobody has waited for yet has ended too."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def later(act, *arguments, after_s=0.3):
    timer = threading.Timer(after_s, act, arguments)
    timer.start()
    return timer


@pytest.mark.parametrize(
    ("format", "backend"), [("onnx", "onnxruntime"), ("torchscript", "torchscript"), ("pytorch", "eager")]
)
def test_it_gives_what_the_backend_gives_and_says(made, opened, format, backend):
    runtime, artefact = registry.runtime(backend), made[format]
    session = opened(artefact, backend, threads=1)
    with runtime.open(artefact, CPU, SessionOptions(threads=1)) as here:
        for size in (1, 3):
            wanted, got = here.run(batch(size)), session.run(batch(size))
            assert list(got) == list(wanted) == list(OUTPUTS)
            for name in OUTPUTS:
                np.testing.assert_array_equal(got[name], wanted[name])
        assert session.facts == here.facts
    first = session.run(batch())["logits"]
    kept = first.copy()
    session.run({"pixel_values": -batch()["pixel_values"]})
    np.testing.assert_array_equal(first, kept)


def test_the_code_of_a_module_is_named_to_the_worker(opened, tmp_path):
    from vit_deploy.weights import load_model

    name = "tests.user_modules:cnn_transformer"
    model = load_model(f"py:{name}")
    path = tmp_path / "weights.safetensors"
    with path.open("wb") as file:
        write_safetensors(model.weights, file)
    artefact = Artefact(
        "pytorch-fp32", "pytorch", "fp32", path, model.config.io_spec(), model.config, code=name
    )
    with pytest.raises(UsageFailed):
        opened(replace(artefact, code=""), "eager")
    values = {"pixels": np.zeros((2, 3, 32, 32), dtype=np.float32)}
    assert opened(artefact, "eager").run(values)["logits"].shape == (2, 5)


def test_threads_are_those_that_were_asked_for(made, opened, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    asked, default = opened(made["pytorch"], "eager", threads=1), opened(made["pytorch"], "eager")
    assert (asked.facts.threads, default.facts.threads) == (1, usable_cores())
    told = psutil.Process(asked.pid).environ()
    assert (told["OMP_NUM_THREADS"], told["OMP_WAIT_POLICY"]) == ("1", "PASSIVE")


def test_the_users_own_number_of_threads_stays_where_none_is_asked_for(made, opened, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert opened(made["pytorch"], "eager").facts.threads == 1


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell: run it on Linux")
def test_a_worker_of_onnx_runtime_does_not_load_pytorch(made, opened):
    session = opened(made["onnx"])
    session.run(batch())
    loaded = Path(f"/proc/{session.pid}/maps").read_text()
    assert "onnxruntime" in loaded
    assert "libtorch" not in loaded


def refusal(kind, act):
    with pytest.raises(VitDeployError) as caught:
        act()
    assert type(caught.value) is kind
    return caught.value.found, caught.value.expected, caught.value.next_command


@pytest.mark.parametrize("case", ["broken", "device", "graph", "weights"])
def test_what_the_backend_raises_is_raised_here(made, tmp_path, case):
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x00no graph")
    other = replace(CONFIG, embed_dim=80)
    backend, artefact, device, options, kind = {
        "broken": ("onnxruntime", replace(made["onnx"], path=broken), CPU, SessionOptions(), RunFailed),
        "device": ("eager", made["pytorch"], Device("cuda", 7), SessionOptions(), BackendMissing),
        "graph": ("eager", made["pytorch"], CPU, SessionOptions(cuda_graph=True), UsageFailed),
        "weights": ("eager", replace(made["pytorch"], config=other), CPU, SessionOptions(), HostileInput),
    }[case]
    runtime = registry.runtime(backend)
    here = refusal(kind, lambda: runtime.open(artefact, device, options))
    there = refusal(kind, lambda: open_isolated(runtime, artefact, device, options, timeout_s=TIMEOUT_S))
    assert there == here


def test_a_failed_run_does_not_end_the_session(made, opened):
    # The file takes another size of picture than the artefact says.
    declared = replace(CONFIG, image_size=(24, 24)).io_spec(OUTPUTS, BatchRange(1, 1, 3))
    session = opened(replace(made["onnx"], spec=declared))
    values = {"pixel_values": np.zeros((1, 3, 24, 24), dtype=np.float32)}
    for _ in range(2):
        with pytest.raises(RunFailed, match=r"(?s)ONNX Runtime failed on onnx-fp32.*Expected: 16"):
            session.run(values)
    with pytest.raises(RunFailed, match="is float32 of shape"):
        session.run(batch())


@pytest.mark.parametrize("fatal", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_backend_that_dies_in_a_run_is_told_by_its_signal(endless, opened, fatal):
    session = opened(endless)
    timer = later(os.kill, session.pid, fatal)
    with pytest.raises(BackendDied) as caught:
        session.run(batch(3))
    timer.join()
    assert f"while endless ran on pixel_values 3x3x16x24, the worker was killed by {fatal.name}" in str(
        caught.value
    )
    started = time.monotonic()
    with pytest.raises(RunFailed, match=rf"nothing can be run any more: while endless .*{fatal.name}"):
        session.run(batch(1))
    assert time.monotonic() - started < 0.5


def test_a_backend_that_hangs_is_killed(endless, opened):
    session = opened(endless, timeout_s=5)
    session._timeout_s = 0.3
    with pytest.raises(BackendDied, match=r"2x3x16x24, the worker did not answer 'run' within 0.3 s") as caught:
        session.run(batch())
    assert "--timeout" in caught.value.next_command
    assert not psutil.pid_exists(session.pid)
    with pytest.raises(RunFailed, match="nothing can be run any more"):
        session.run(batch())


def test_a_hang_while_opening_leaves_no_worker(made):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(RunFailed, match=r"while onnx-fp32 was opened in onnxruntime, .* within 0.001 s"):
        open_isolated(registry.runtime("onnxruntime"), made["onnx"], CPU, SessionOptions(), timeout_s=0.001)
    after = psutil.Process().children(recursive=True)
    assert not [child for child in after if child.pid not in before]


def test_the_last_words_of_a_worker_that_ends_by_itself_are_told(made, monkeypatch, tmp_path):
    (tmp_path / "onnxruntime.py").write_text(
        "import os\nprint('no room left for tensors', flush=True)\nos._exit(7)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RunFailed, match=r"exit code 7 .*its last words: no room left for tensors"):
        open_isolated(registry.runtime("onnxruntime"), made["onnx"], CPU, SessionOptions(), timeout_s=TIMEOUT_S)


def test_an_interrupted_run_ends_the_worker(endless, opened):
    session = opened(endless)
    timer = later(os.kill, os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        session.run(batch())
    timer.join()
    assert is_gone(session.pid)
    with pytest.raises(RunFailed, match="it was interrupted"):
        session.run(batch())


def test_closing_ends_the_worker(made, opened):
    with opened(made["onnx"]) as session:
        assert psutil.pid_exists(session.pid)
    assert not psutil.pid_exists(session.pid)
    session.close()


COORDINATOR = """
import json, sys
from vit_deploy import registry
from vit_deploy.facts import Device
from vit_deploy.parity.crossing import artefact_from
from vit_deploy.parity.isolated import open_isolated
from vit_deploy.protocols import SessionOptions
import numpy as np

artefact = artefact_from(json.loads(sys.stdin.read()))
session = open_isolated(registry.runtime("onnxruntime"), artefact, Device(), SessionOptions(), timeout_s=60)
print(session.pid, flush=True)
session.run({"pixel_values": np.zeros((1, 3, 16, 24), dtype=np.float32)})
print("idle", flush=True)
import time; time.sleep(60)
"""


@pytest.mark.parametrize("doing", ["waits", "runs"])
def test_a_killed_coordinator_leaves_no_orphan(endless, made, doing):
    import json

    artefact = made["onnx"] if doing == "waits" else endless
    with subprocess.Popen(
        [sys.executable, "-c", COORDINATOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as coordinator:
        coordinator.stdin.write(json.dumps(artefact_data(artefact)))
        coordinator.stdin.close()
        worker = int(coordinator.stdout.readline())
        if doing == "waits":
            assert coordinator.stdout.readline() == "idle\n"
        assert psutil.pid_exists(worker)
        coordinator.kill()
    assert is_gone(worker)


def test_a_runtime_that_the_registry_does_not_hold_is_refused(made, backend):
    fake = backend()
    with pytest.raises(UsageFailed, match="'function' cannot be opened in another process") as caught:
        open_isolated(fake, made["onnx"], CPU, SessionOptions(), timeout_s=TIMEOUT_S)
    assert "onnxruntime" in caught.value.expected
    fake.name = "onnxruntime"
    with pytest.raises(UsageFailed):
        open_isolated(fake, made["onnx"], CPU, SessionOptions(), timeout_s=TIMEOUT_S)


def test_it_is_not_timed_from_here(made, opened):
    with pytest.raises(UsageFailed, match="cannot be timed from here"):
        opened(made["onnx"]).stage(batch())


def isolated(timeout_s=TIMEOUT_S):
    return functools.partial(open_isolated, timeout_s=timeout_s)


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_a_check_gives_the_same_verdict_either_way(small, made, format):
    verdicts = [
        ParityCheck(small, threads=1, open_session=opener).judge(made[format]) for opener in (None, isolated())
    ]
    assert verdicts[0].passed
    assert verdicts[0].worst_ratio == verdicts[1].worst_ratio
    assert verdicts[0].details == verdicts[1].details


def test_a_check_of_a_backend_that_dies_on_opening_is_a_failed_verdict(small, made):
    verdict = ParityCheck(small, threads=1, open_session=isolated(0.001)).judge(made["onnx"])
    assert verdict.passed is False
    assert "while onnx-fp32 was opened in onnxruntime" in verdict.reason
    assert verdict.evidence["broke_down"] is True


def test_a_check_of_a_backend_that_hangs_is_a_failed_verdict(small, endless):
    verdict = ParityCheck(small, threads=1, open_session=isolated(3)).judge(endless)
    assert verdict.passed is False
    assert "did not answer 'run' within 3 s and was killed" in verdict.reason
    assert "at batch 1: while endless ran on pixel_values 1x3x16x24" in verdict.reason
    assert verdict.evidence["broke_down"] is True


# --- what crosses -----------------------------------------------------------------------------------------

ARRAYS = {
    "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": np.arange(6, dtype=np.int64).reshape(2, 3).T,
    "none": np.zeros((0, 4), dtype=np.float16),
    "number": np.array(3.5),
    "bits": np.array([True, False]),
    "bytes": np.arange(5, dtype=np.uint8),
}


def test_arrays_of_any_shape_cross():
    import ml_dtypes

    given = {**ARRAYS, "brain": np.array([1.5, -2], dtype=ml_dtypes.bfloat16)}
    mine = ArrayFile()
    theirs = ArrayFile(os.dup(mine.descriptor))
    got = theirs.read(mine.write(given))
    for name, array in given.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        np.testing.assert_array_equal(got[name], array)
        assert got[name].flags.c_contiguous
        assert got[name].flags.writeable
    shorter = theirs.read(mine.write({"plain": ARRAYS["plain"]}))
    assert list(shorter) == ["plain"]
    for file in (mine, theirs, theirs):
        file.close()


def test_what_is_no_array_of_numbers_does_not_cross():
    file = ArrayFile()
    for value in (["a list"], np.array(["text"]), np.array([object()])):
        with pytest.raises(RunFailed, match="'logits' is a"):
            file.write({"logits": value})
    layout = [{"name": "logits", "dtype": "float32", "shape": [1000], "offset": 0}]
    with pytest.raises(RunFailed, match="0 of 4,000 bytes"):
        file.read(layout)
    file.close()


def test_an_artefact_crosses_whole():
    import json

    sizes = size_range(CONFIG, (16, 24), (16, 24), (32, 48))
    module = ModuleConfig("a.b:c", (Port("pixels", (3, 8, 8)),), (Port("y", (4,)),), depth=2, fixed_batch=2)
    facts = {"nodes": 3, "by": {"x": [1, 2]}, "fused": True, "version": None}
    for config, spec, code in (
        (CONFIG, CONFIG.io_spec(OUTPUTS, BatchRange(1, 2, 3), sizes=sizes), ""),
        (module, module.io_spec(), "a.b:c"),
    ):
        artefact = Artefact("a", "onnx", "fp16", Path("/a/b"), spec, config, facts, code)
        crossed = artefact_from(json.loads(json.dumps(artefact_data(artefact))))
        for field in fields(Artefact):
            assert getattr(crossed, field.name) == getattr(artefact, field.name), field.name


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VitDeployError)],
)
def test_an_error_crosses_with_its_class_and_its_three_parts(kind):
    crossed = error_from(error_data(kind("found", expected="expected", next_command="next")))
    assert type(crossed) is kind
    assert (crossed.found, crossed.expected, crossed.next_command) == ("found", "expected", "next")


def test_an_error_of_anyone_else_is_a_failed_run():
    crossed = error_from(error_data(ZeroDivisionError("by nothing")))
    assert type(crossed) is RunFailed
    assert crossed.found == "ZeroDivisionError: by nothing"
