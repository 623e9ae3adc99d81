"""What a GPU tells beside the clock: on stand-ins here, on the real one with ``-m gpu``."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest

from vit_deploy.bench.gpu import GpuWatch, nvml, split, watch
from vit_deploy.bench.gpu.nvml import Card, Look
from vit_deploy.facts import Device
from vit_deploy.spec import BatchRange, IOSpec, TensorSpec


class NVMLError(Exception):
    """As NVIDIA's package calls it."""


def library(**answers):
    """A stand-in for ``pynvml``: what it answers, or raises, by the name of the call."""

    def answering(name):
        def call(*arguments):
            value = answers[name]
            if isinstance(value, Exception):
                raise value
            return value(*arguments) if callable(value) else value

        return call

    calls = (
        "nvmlInit",
        "nvmlDeviceGetHandleByUUID",
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetCurrentClocksEventReasons",
    )
    return SimpleNamespace(NVMLError=NVMLError, NVML_CLOCK_SM=1, **{name: answering(name) for name in calls})


def card(monkeypatch, **answers):
    told = {"nvmlInit": None, "nvmlDeviceGetHandleByUUID": lambda name: f"handle of {name}", **answers}
    monkeypatch.setitem(sys.modules, "pynvml", library(**told))
    return Card.open("GPU-1")


def test_a_look_at_a_card(monkeypatch):
    asked = []
    opened = card(
        monkeypatch,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: asked.append(handle) or 123_456,
        nvmlDeviceGetClockInfo=lambda handle, kind: asked.append((handle, kind)) or 1980,
        nvmlDeviceGetCurrentClocksEventReasons=0x01 | 0x04 | 0x40,
    )
    assert opened is not None
    assert opened.look() == Look(123_456, 1980, frozenset({"power", "thermal"}))
    assert asked == ["handle of GPU-1", ("handle of GPU-1", 1)]


@pytest.mark.parametrize(
    ("bits", "slowdowns"),
    [
        (0x01, set()),
        (0x02, set()),
        (0x100, set()),
        (0x08, {"hardware"}),
        (0x80, {"power"}),
        (0x20, {"thermal"}),
    ],
)
def test_an_idle_card_and_a_clock_set_by_hand_are_no_slowdowns(monkeypatch, bits, slowdowns):
    opened = card(
        monkeypatch,
        nvmlDeviceGetTotalEnergyConsumption=1,
        nvmlDeviceGetClockInfo=1,
        nvmlDeviceGetCurrentClocksEventReasons=bits,
    )
    assert opened is not None
    assert opened.look().slowdowns == slowdowns


def test_what_an_old_card_does_not_know_is_absent(monkeypatch):
    unknown = NVMLError("Not Supported")
    opened = card(
        monkeypatch,
        nvmlDeviceGetTotalEnergyConsumption=unknown,
        nvmlDeviceGetClockInfo=1500,
        nvmlDeviceGetCurrentClocksEventReasons=unknown,
    )
    assert opened is not None
    assert opened.look() == Look(None, 1500, frozenset())


def test_there_is_no_card_without_the_library_the_driver_or_the_card_itself(monkeypatch):
    assert card(monkeypatch, nvmlInit=NVMLError("Driver Not Loaded")) is None
    assert card(monkeypatch, nvmlDeviceGetHandleByUUID=NVMLError("Not Found")) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Card.open("GPU-1") is None


class Driver:
    """A stand-in for ``libcuda``: two devices."""

    def __init__(self, init=0):
        self.init = init

    def cuInit(self, flags):  # noqa: N802
        return self.init

    def cuDeviceGet(self, device, index):  # noqa: N802
        device._obj.value = index
        return 0 if index < 2 else 101

    def cuDeviceGetUuid(self, raw, device):  # noqa: N802
        raw._obj[:] = bytes(range(16)) if device.value == 1 else bytes(16)
        return 0


def test_the_uuid_of_a_device_is_the_drivers(monkeypatch):
    monkeypatch.setattr(nvml.ctypes, "CDLL", lambda name: Driver())
    assert nvml.uuid_of(1) == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert nvml.uuid_of(2) is None
    monkeypatch.setattr(nvml.ctypes, "CDLL", lambda name: Driver(init=100))
    assert nvml.uuid_of(0) is None


def test_no_driver_is_no_card(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(nvml.ctypes, "CDLL", missing)
    assert nvml.uuid_of(0) is None
    blind = GpuWatch(Device("cuda"))
    blind.look()
    assert blind.seen() == {}


class Looks:
    """A card that says one thing after the other."""

    def __init__(self, *looks):
        self._looks = iter(looks)

    def look(self):
        return next(self._looks)


def watching(monkeypatch, *looks):
    monkeypatch.setattr(watch, "_card_of", lambda device: Looks(*looks))
    monkeypatch.setattr(watch, "RAMP_NS", 0)
    return GpuWatch(Device("cuda"))


def test_clock_and_slowdowns_are_those_after_each_turn(monkeypatch):
    heat, both = frozenset({"thermal"}), frozenset({"power", "thermal"})
    looks = (Look(1, 1980, frozenset()), Look(2, 1900, heat), Look(3, 1700, both), Look(4, None, frozenset()))
    seen = watching(monkeypatch, *looks)
    for _ in looks:
        seen.look()
    assert seen.seen() == {"clock_mhz": 1900.0, "slowed_power": 0.25, "slowed_thermal": 0.5}


def test_energy_is_the_difference_of_the_counter_over_one_stretch(monkeypatch):
    step = Step(busy_s=0.005, stream=None)
    seen = watching(monkeypatch, Look(1_000, 1980, frozenset()), Look(31_000, 1980, frozenset()))
    monkeypatch.setattr(watch, "ENERGY_NS", 10**12)
    monkeypatch.setattr(watch, "MOST_INFERENCES", 20)
    told = seen.measure(step, SPEC, {"batch": 2})
    assert step.calls == 20 + 1  # and one on the ramp
    assert told["energy_j"] == pytest.approx(30 / 20)
    assert 30 / (20 * 0.05) < told["power_w"] <= 30 / (20 * 0.005)


def test_a_card_that_does_not_count_has_no_energy(monkeypatch):
    seen = watching(monkeypatch, Look(None, 1980, frozenset()), Look(None, 1980, frozenset()))
    monkeypatch.setattr(watch, "ENERGY_NS", 0)
    assert seen.measure(Step(stream=None), SPEC, {"batch": 2}) == {}


def test_nothing_is_watched_on_a_cpu():
    seen = GpuWatch(Device())
    seen.look()
    assert seen.seen() == {}
    assert seen.measure(Step(), SPEC, {"batch": 2}) == {}


SPEC = IOSpec(
    (TensorSpec("pixel_values", "float32", ("batch", 3, 8, 8)),),
    (TensorSpec("logits", "float32", ("batch", 5)),),
    BatchRange(),
)


class Step:
    """A step that takes a while to return."""

    def __init__(self, busy_s=0.0, stream="a stream"):
        self.stream = stream
        self.calls = 0
        self.busy_s = busy_s

    def __call__(self):
        self.calls += 1
        time.sleep(self.busy_s)

    def synchronize(self):
        pass


class Timeline:
    """A stream on which every act takes a known time: 2 ms in, 7 to compute, 1 out."""

    def __init__(self, step):
        self.step, self.now, self.seen, self.waits = step, 0.0, 0, 0

    def mark(self):
        self.now += 7.0 * (self.step.calls - self.seen)
        self.seen = self.step.calls
        return self.now

    def copy_in(self):
        self.now += 2.0

    def copy_out(self):
        self.now += 1.0

    def wait(self):
        self.waits += 1

    def between_ms(self, first, second):
        return second - first


def test_the_parts_of_an_inference():
    step = Step(busy_s=0.003)
    timeline = Timeline(step)
    told = split.measure_split(step, timeline, budget_ns=30_000_000)
    assert {name: told[name] for name in ("h2d_ms", "compute_ms", "d2h_ms")} == {
        "h2d_ms": 2.0,
        "compute_ms": 7.0,
        "d2h_ms": 1.0,
    }
    assert 3.0 <= told["enqueue_ms"] < 30.0
    assert split.WARM + split.LEAST <= step.calls == timeline.waits


def test_the_split_stops_at_its_most_and_takes_its_least(monkeypatch):
    step = Step()
    split.measure_split(step, Timeline(step), budget_ns=0)
    assert step.calls == split.WARM + split.LEAST
    monkeypatch.setattr(split, "MOST", 9)
    step = Step()
    split.measure_split(step, Timeline(step), budget_ns=10**12)
    assert step.calls == split.WARM + 9


def test_the_stream_of_a_step_is_its_executors_its_own_or_out_of_reach():
    from vit_deploy.runtimes.onnxruntime import OnnxRuntimeStep

    assert split.stream_of(SimpleNamespace(executor=SimpleNamespace(stream="engine's")), 0) == "engine's"
    assert split.stream_of(Step(), 0) == "a stream"
    assert split.stream_of(OnnxRuntimeStep(None, None), 0) is None


def test_the_copies_are_as_large_as_inputs_and_outputs(monkeypatch):
    monkeypatch.setattr(watch, "_card_of", lambda device: None)
    made = []
    monkeypatch.setattr(watch, "TorchTimeline", lambda *arguments: made.append(arguments) or Timeline(step))
    step = Step()
    told = GpuWatch(Device("cuda")).measure(step, SPEC, {"batch": 2})
    assert made == [("a stream", [((2, 3, 8, 8), "float32")], [((2, 5), "float32")])]
    assert told["compute_ms"] == 7.0


def test_a_gpu_without_room_for_the_copies_costs_the_split_alone(monkeypatch):
    def full(*arguments):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(watch, "_card_of", lambda device: None)
    monkeypatch.setattr(watch, "TorchTimeline", full)
    assert GpuWatch(Device("cuda")).measure(Step(), SPEC, {"batch": 2}) == {}


@pytest.fixture
def cuda():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: run on a machine with an NVIDIA GPU and a CUDA build of torch")
    return torch


@pytest.mark.gpu
def test_energy_and_clock_of_a_real_card(cuda):
    pytest.importorskip("pynvml", reason="pip install 'vit-deploy[gpu]'")
    from vit_deploy.runtimes.eager import TorchStep

    matrix = cuda.randn(4096, 4096, device="cuda")
    seen = GpuWatch(Device("cuda"))
    told = seen.measure(TorchStep(lambda value: value @ value, (matrix,), Device("cuda")), SPEC, {"batch": 2})
    seen.look()
    assert 10 < told["power_w"] < 2000
    assert told["energy_j"] > 0.01
    assert seen.seen()["clock_mhz"] > 100


@pytest.mark.gpu
def test_the_split_on_a_real_card(cuda):
    from vit_deploy.runtimes.eager import TorchStep

    images = cuda.randn(64, 3, 512, 512, device="cuda")
    step = TorchStep(lambda value: (value @ value).sum(), (images,), Device("cuda"))
    spec = IOSpec(
        (TensorSpec("pixel_values", "float32", ("batch", 3, 512, 512)),),
        (TensorSpec("logits", "float32", ("batch", 1)),),
        BatchRange(),
    )
    told = GpuWatch(Device("cuda"))._split(step, spec, {"batch": 64})
    assert set(told) == {"h2d_ms", "compute_ms", "d2h_ms", "enqueue_ms"}
    assert all(value > 0 for value in told.values())
    assert told["h2d_ms"] > 10 * told["d2h_ms"]  # 200 MB against a few hundred bytes
