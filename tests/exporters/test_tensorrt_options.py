"""Every option of the TensorRT exporter: set, refused, and left to the flavour that has it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from vit_deploy import tensorrt_flavours
from vit_deploy.errors import BackendMissing, ExportFailed, OutputFailed, UsageFailed
from vit_deploy.exporters import _tensorrt_build as build
from vit_deploy.exporters.tensorrt import EXPORTER, TensorRTOptions
from vit_deploy.tensorrt_flavours import FLAVOURS, Gpus

needs_rtx = pytest.mark.usefixtures("rtx")


@needs_rtx
def test_what_tensorrt_says_when_it_cannot_build(source, tmp_path, export):
    with pytest.raises(ExportFailed, match="Turing"):
        export(source, tmp_path, TensorRTOptions("rtx", compute_capabilities="7.5"))


@needs_rtx
def test_compute_capabilities_are_set_in_one_order(source, tmp_path, export):
    export(source, tmp_path / "none")  # TensorRT-RTX carries kernels over from a build that failed
    one = export(source, tmp_path / "one", TensorRTOptions("rtx", compute_capabilities="12.0, 8.9"))
    two = export(source, tmp_path / "two", TensorRTOptions("rtx", compute_capabilities="8.9,12.0,8.9"))
    assert one.facts == two.facts
    assert sorted(one.facts["compute_capabilities"]) == ["12.0", "8.9"]
    assert (tmp_path / "one/model.plan").read_bytes() == (tmp_path / "two/model.plan").read_bytes()


@needs_rtx
def test_compute_capabilities_that_do_not_exist(source, tmp_path, monkeypatch, export):
    with pytest.raises(UsageFailed, match=r"unknown compute capability '8\.8'"):
        export(source, tmp_path, TensorRTOptions("rtx", compute_capabilities="8.8"))
    monkeypatch.setattr(build, "find_gpus", lambda: Gpus(reason="there is no driver"))
    with pytest.raises(UsageFailed, match="there is no driver"):
        export(source, tmp_path, TensorRTOptions("rtx", compute_capabilities="current"))


@needs_rtx
@pytest.mark.parametrize(
    ("flag", "setting"),
    [
        ("--timing-cache", {"timing_cache": "cache"}),
        ("--trt-version-compatible", {"version_compatible": True}),
        ("--trt-hardware-compatibility", {"hardware_compatibility": "ampere+"}),
    ],
)
def test_flags_of_the_other_flavour_are_refused(source, tmp_path, flag, setting, export):
    with pytest.raises(UsageFailed, match=f"TensorRT-RTX has nothing like {flag}"):
        export(source, tmp_path, TensorRTOptions("rtx", **setting))


@needs_rtx
def test_workspace_limit(source, tmp_path, export):
    assert export(source, tmp_path, TensorRTOptions("rtx", workspace=64)).files
    with pytest.raises(UsageFailed, match="--trt-workspace"):
        export(source, tmp_path, TensorRTOptions("rtx", workspace=-1))


@pytest.fixture
def one_gpu(monkeypatch):
    for module in (tensorrt_flavours, build):
        monkeypatch.setattr(module, "find_gpus", lambda: Gpus(("9.0",)))


@pytest.fixture
def none_installed(monkeypatch):
    for flavour in FLAVOURS.values():
        monkeypatch.setitem(sys.modules, flavour.module, None)


def test_nothing_installed(none_installed, one_gpu, source, tmp_path, export):
    found = EXPORTER.available()
    assert not found.ok
    assert found.reason == "TensorRT is not installed; TensorRT-RTX is not installed"
    assert found.mend == "pip install 'vit-deploy[gpu]', or pip install 'vit-deploy[rtx]'"
    with pytest.raises(BackendMissing, match="TensorRT-RTX is not installed"):
        export(source, tmp_path, TensorRTOptions())
    with pytest.raises(BackendMissing) as caught:
        export(source, tmp_path)
    assert caught.value.next_command == "pip install 'vit-deploy[rtx]'"


@needs_rtx
def test_data_centre_path_with_a_stand_in(source, tmp_path, monkeypatch, one_gpu, export):
    """TensorRT-RTX under the other's name: their Python interfaces are nearly one."""
    import tensorrt_rtx

    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_rtx)
    facts = export(source, tmp_path, TensorRTOptions("auto", version_compatible=False)).facts
    assert facts["flavour"] == "tensorrt"
    assert facts["compute_capabilities"] == ["9.0"]
    with pytest.raises(UsageFailed, match="TensorRT has nothing like --trt-compute-capabilities"):
        export(source, tmp_path, TensorRTOptions("tensorrt", compute_capabilities="8.9"))


class FakeConfig:
    """The timing cache's part of ``IBuilderConfig``."""

    def __init__(self, *, accepts: bool = True) -> None:
        self.accepts = accepts
        self.content = b""
        self.flags: list[str] = []

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)

    def create_timing_cache(self, content: bytes) -> SimpleNamespace:
        return SimpleNamespace(content=content, serialize=lambda: content + b"+timings")

    def set_timing_cache(self, cache: SimpleNamespace, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return self.accepts

    def get_timing_cache(self) -> SimpleNamespace:
        return self.cache


def test_timing_cache_is_made_then_extended(tmp_path):
    trt = SimpleNamespace(BuilderFlag=SimpleNamespace(EDITABLE_TIMING_CACHE="editable"))
    path = tmp_path / "timing.cache"
    for expected in (b"+timings", b"+timings+timings"):
        config = FakeConfig()
        build.load_timing_cache(trt, config, str(path))
        build.save_timing_cache(config, str(path))
        assert config.flags == ["editable"]
        assert path.read_bytes() == expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["timing.cache"]
    with pytest.raises(UsageFailed, match="refused the timing cache"):
        build.load_timing_cache(trt, FakeConfig(accepts=False), str(path))


def test_timing_cache_that_cannot_be_written(tmp_path):
    config = FakeConfig()
    config.cache = config.create_timing_cache(b"")
    with pytest.raises(OutputFailed, match="timing cache"):
        build.save_timing_cache(config, str(tmp_path / "is not there" / "cache"))
