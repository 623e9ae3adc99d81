from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from vit_deploy.diagnosis import software


def install(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Pretend that just these distributions are installed."""
    named = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(software, "package_version", named.get)


def python(monkeypatch: pytest.MonkeyPatch, *version: int) -> None:
    monkeypatch.setattr(software, "sys", SimpleNamespace(version_info=version))


@pytest.mark.parametrize(
    ("version", "verdict"),
    [((3, 9, 1), "bad"), ((3, 10, 0), "ok"), ((3, 13, 7), "ok"), ((3, 14, 0), "warn")],
)
def test_python(monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], verdict: str):
    python(monkeypatch, *version)
    found = software.check_python()
    assert found.verdict == verdict
    assert ("TorchScript" in found.fact) == (verdict == "warn")


def test_the_floors_are_those_of_our_own_metadata():
    floors = software.floors()
    assert floors["torch"] == "2.10"
    assert floors["onnxruntime"] == "1.23"
    assert "torch" in software.core()
    assert not {"onnxruntime", "pytest", "timm"} & set(software.core())


def test_versions_are_compared_as_numbers():
    assert software.numbers("2.13.0+cpu") == (2, 13, 0)
    assert software.numbers("2.9") < software.numbers("2.10")


def test_a_missing_core_package_is_bad_and_an_old_one_warns():
    missing = software.judge_versions({"onnx": None, "einops": "0.8.2"}, {"onnx": "1.20", "einops": "0.8"})
    assert (missing.verdict, missing.mend) == ("bad", "pip install onnx")
    old = software.judge_versions({"onnx": "1.9.1", "einops": "0.8.2"}, {"onnx": "1.20", "einops": "0.8"})
    assert (old.verdict, old.mend) == ("warn", "pip install --upgrade 'onnx>=1.20'")
    assert old.fact == "too old: onnx 1.9.1 (needs 1.20)"


def test_a_torch_that_is_too_old_warns_before_it_is_imported(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, torch="2.9.1+cu128")
    monkeypatch.setitem(sys.modules, "torch", None)
    found = software.check_torch()
    assert found.verdict == "warn"
    assert found.mend == "pip install --upgrade 'torch>=2.10'"


def test_no_torch_is_bad(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch)
    assert software.check_torch().verdict == "bad"


@pytest.mark.parametrize(
    ("cuda", "gpu", "reached", "verdict"),
    [
        (None, False, False, "ok"),
        (None, True, False, "warn"),
        ("13.0", False, False, "ok"),
        ("13.0", True, True, "ok"),
        ("13.0", True, False, "bad"),
    ],
)
def test_the_build_of_torch_against_the_gpu(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, gpu: bool, reached: bool, verdict: str
):
    from vit_deploy import tensorrt_flavours

    install(monkeypatch, torch="2.13.0")
    fake = SimpleNamespace(
        version=SimpleNamespace(cuda=cuda), cuda=SimpleNamespace(is_available=lambda: reached)
    )
    monkeypatch.setitem(sys.modules, "torch", fake)
    gpus = tensorrt_flavours.Gpus(("8.9",)) if gpu else tensorrt_flavours.Gpus(reason="none")
    monkeypatch.setattr(tensorrt_flavours, "find_gpus", lambda: gpus)
    assert software.check_torch().verdict == verdict


def test_no_onnx_runtime_only_warns(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch)
    found = software.check_onnxruntime()
    assert (found.verdict, found.mend) == ("warn", "pip install 'vit-deploy[cpu]'")


def test_two_onnx_runtimes_are_bad(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, onnxruntime="1.32.0", onnxruntime_gpu="1.32.0")
    found = software.check_onnxruntime()
    assert found.verdict == "bad"
    assert found.mend == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"


def test_an_onnx_runtime_that_does_not_load_is_bad(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, onnxruntime="1.32.0")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = software.check_onnxruntime()
    assert found.verdict == "bad"
    assert "does not load" in found.fact


def test_a_gpu_distribution_without_its_provider_was_written_over():
    cpu_only = ["AzureExecutionProvider", "CPUExecutionProvider"]
    found = software.judge_providers("onnxruntime-gpu", "1.32.0", cpu_only, "1.23")
    assert found.verdict == "bad"
    assert "written over" in found.fact
    whole = software.judge_providers("onnxruntime-gpu", "1.32.0", ["CUDAExecutionProvider", *cpu_only], "1.23")
    assert (whole.verdict, whole.fact) == ("ok", "onnxruntime-gpu 1.32.0: CUDA, Azure, CPU")
    assert software.judge_providers("onnxruntime", "1.22.1", cpu_only, "1.23").verdict == "warn"


def test_a_checkout_that_lost_its_link_is_bad(monkeypatch: pytest.MonkeyPatch):
    from vit_deploy import registry

    def gone() -> list[str]:
        raise ModuleNotFoundError("vit_deploy.exporters")

    monkeypatch.setattr(registry, "formats", gone)
    found = software.check_exporters()
    assert found.verdict == "bad"
    assert "git checkout -- vit_deploy/exporters" in found.mend


def test_nothing_but_eager_warns(monkeypatch: pytest.MonkeyPatch):
    from vit_deploy import registry

    monkeypatch.setattr(registry, "backends", lambda: ["eager"])
    found = software.check_backends()
    assert (found.verdict, found.mend) == ("warn", "pip install 'vit-deploy[cpu]'")
