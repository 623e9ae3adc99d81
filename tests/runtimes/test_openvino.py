"""OpenVINO: the precision is told, never left to it, and what it did is read back."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vit_deploy import openvino_library, registry
from vit_deploy.errors import BackendMissing, RunFailed, UsageFailed
from vit_deploy.exporters.onnx import EXPORTER, OnnxOptions
from vit_deploy.facts import Device
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.contract import contracted
from vit_deploy.model.sizes import size_range
from vit_deploy.parity import ParityCheck
from vit_deploy.parity.requirements import built, parse_requirements, unmet_from_built
from vit_deploy.protocols import Artefact, SessionOptions, Silent
from vit_deploy.runtimes import openvino as module
from vit_deploy.runtimes.openvino import RUNTIME, OpenVinoRuntime
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.spec import IOSpec
    from vit_deploy.weights.imported import Model

OUTPUTS = ("logits", "embedding", "tokens")

if not RUNTIME.available().ok:
    pytest.skip(f"OpenVINO is missing: {RUNTIME.available().mend}", allow_module_level=True)


def capabilities() -> list[str]:
    return list(module.load().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def export(model: Model, folder: Path, spec: IOSpec, opset: int = 23) -> Artefact:
    folder.mkdir(parents=True, exist_ok=True)
    made = EXPORTER.export(model, spec, OnnxOptions(opset=opset), folder, Silent())
    return Artefact("onnx-fp32", "onnx", "fp32", folder / made.files[0], spec, model.config, made.facts)


@pytest.fixture(scope="module")
def small_model() -> Model:
    config = ViTConfig(
        image_size=(32, 48), patch_size=8, embed_dim=60, depth=3, num_heads=5, mlp_dim=150, num_classes=7
    )
    return random_model(config, "small", seed=1)


@pytest.fixture(scope="module")
def artefact(small_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("ein ünïcode Ordner")
    return export(small_model, folder, small_model.config.io_spec(OUTPUTS))


def pixels(batch: int, height: int = 32, width: int = 48) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    return {"pixel_values": rng.standard_normal((batch, 3, height, width), dtype=np.float32)}


def test_what_was_told_is_read_back(artefact: Artefact) -> None:
    with RUNTIME.open(artefact, Device(), SessionOptions(threads=1)) as session:
        facts = session.facts
    assert (facts.precision_hint, facts.precision, facts.threads) == ("f32", "fp32", 1)
    assert (facts.streams, facts.details["cpu_pinning"]) == (1, False)
    assert list(facts.placement) == ["CPU"]
    assert facts.placement["CPU"] > 40
    assert facts.tf32 is None


@pytest.mark.parametrize("opset", [18, 23])
def test_layers_are_those_of_the_compiled_model(opset: int, small_model: Model, tmp_path: Path) -> None:
    config = small_model.config
    artefact = export(small_model, tmp_path, config.io_spec(), opset)
    with RUNTIME.open(artefact, Device(), SessionOptions()) as session:
        facts = session.facts
    assert facts.fused_attention == {"fused": config.depth, "of": config.depth}
    assert facts.dtypes["attention"] == {"fp32": config.depth}
    assert facts.dtypes["linear"] == {"fp32": 4 * config.depth + 2}
    assert facts.dtypes["layernorm"] == {"fp32": 2 * config.depth + 1}
    assert facts.dtypes["io"] == {"fp32": 2}
    assert sum(facts.details["attention_kernels"].values()) == config.depth


def test_left_to_itself_it_would_compute_in_bf16(small_model: Model, artefact: Artefact) -> None:
    """What the module guards against; where the processor has no bf16, OpenVINO has nothing to choose."""
    if "BF16" not in capabilities():
        pytest.skip("this processor has no bf16: run the test on one with AVX512_BF16 or AMX")
    core = module.load().Core()
    left_alone = core.compile_model(core.read_model(artefact.path), "CPU")
    assert left_alone.get_property("INFERENCE_PRECISION_HINT").to_string() == "bf16"
    with RUNTIME.open(artefact, Device(), SessionOptions()) as session:
        ours = built(artefact, session.facts)
    asked = parse_requirements("dtype=fp32,dtype.linear=fp32,precision-hint=f32,fused-attention=all")
    assert unmet_from_built(asked, ours) == []
    with OpenVinoRuntime("bf16").open(artefact, Device(), SessionOptions()) as session:
        assert session.facts.precision == "bf16"
        theirs = built(artefact, session.facts)
    found = unmet_from_built(asked, theirs)
    assert len(found) == 3
    assert found[0].startswith("dtype=fp32 was asked for: it is computed in bf16 in openvino on cpu; ")
    assert (
        "dtype.linear=fp32 was asked for: of the 14 layers of the class linear there are 14 in bf16" in found[1]
    )
    assert "the hint that was read back is bf16" in found[2]


def test_bf16_for_fp32_is_never_passed(small_model: Model, artefact: Artefact) -> None:
    if "BF16" not in capabilities():
        pytest.skip("this processor has no bf16: run the test on one with AVX512_BF16 or AMX")
    check = ParityCheck(small_model)
    assert check.judge(artefact, runtime=RUNTIME).passed
    verdict = check.judge(artefact, runtime=OpenVinoRuntime("bf16"))
    assert verdict.passed is False
    assert verdict.details["built"]["precision"] == "bf16"


def test_a_hint_that_was_changed_is_an_error(artefact: Artefact) -> None:
    if "FP16" in capabilities():
        pytest.skip("this processor computes in fp16; the test is for one that does not")
    with pytest.raises(RunFailed, match="was told to compute in f16"):
        OpenVinoRuntime("f16").open(artefact, Device(), SessionOptions())


@pytest.mark.parametrize(
    ("precision", "able", "hint"),
    [
        ("fp32", ["FP32", "BF16"], "f32"),
        ("bf16", ["FP32", "BF16"], "f32"),
        ("bf16", ["FP32"], "f32"),
        ("fp16", ["FP32", "BF16"], "f32"),
        ("fp16", ["FP32", "FP16"], "f16"),
        ("int8", ["FP32", "BF16", "INT8"], "bf16"),
        ("int8", ["FP32", "INT8"], "f32"),
    ],
)
def test_the_hint_is_one_that_the_processor_keeps(precision: str, able: list[str], hint: str) -> None:
    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return able

    assert module._hint(Core(), precision) == hint  # type: ignore[arg-type]


def test_it_takes_pictures(small_model: Model, tmp_path: Path) -> None:
    plain = small_model.config.io_spec()
    spec = contracted(plain, "uint8", small_model.config, small_model.known_preprocessing, None)
    artefact = export(small_model, tmp_path, spec)
    verdict = ParityCheck(small_model).judge(artefact, runtime=RUNTIME)
    assert verdict.passed, verdict.reason
    assert verdict.details["built"]["dtype"]["io"] == {"fp32": 1, "uint8": 1}


def test_batch_and_image_size_are_free(small_model: Model, tmp_path: Path) -> None:
    config = small_model.config
    artefact = export(small_model, tmp_path, config.io_spec(sizes=size_range(config, None, None, (64, 64))))
    other = registry.runtime("onnxruntime")
    with (
        RUNTIME.open(artefact, Device(), SessionOptions()) as session,
        other.open(artefact, Device(), SessionOptions()) as reference,
    ):
        for batch, height, width in ((1, 32, 48), (3, 64, 16), (2, 48, 64), (1, 32, 48)):
            inputs = pixels(batch, height, width)
            found, expected = session.run(inputs)["logits"], reference.run(inputs)["logits"]
            assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


def test_outputs_are_the_callers_own(artefact: Artefact) -> None:
    with RUNTIME.open(artefact, Device(), SessionOptions()) as session:
        first = session.run(pixels(2))
        kept = {name: array.copy() for name, array in first.items()}
        session.run({"pixel_values": -pixels(2)["pixel_values"]})
    for name, array in first.items():
        assert np.array_equal(array, kept[name])


def test_a_staged_step_computes_from_its_own_inputs(artefact: Artefact) -> None:
    with RUNTIME.open(artefact, Device(), SessionOptions()) as session:
        expected = session.run(pixels(2))["logits"]
        step = session.stage(pixels(2))
        session.run(pixels(3))
        step()
        step.synchronize()
        assert np.array_equal(step.request.get_tensor("logits").data, expected)


def test_another_precision_than_declared_is_an_error(artefact: Artefact) -> None:
    with pytest.raises(RunFailed, match=r"weights of 'model\.onnx' are fp32"):
        RUNTIME.open(replace(artefact, precision="fp16"), Device(), SessionOptions())


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_file_that_is_no_model_is_refused(artefact: Artefact, content: bytes, tmp_path: Path) -> None:
    artefact = replace(artefact, path=tmp_path / "model.onnx")
    artefact.path.write_bytes(content)
    with pytest.raises(RunFailed, match=r"OpenVINO refuses 'model\.onnx'") as raised:
        RUNTIME.open(artefact, Device(), SessionOptions())
    assert "\n" not in raised.value.found


def test_a_missing_file_is_refused(artefact: Artefact, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="OpenVINO refuses"):
        RUNTIME.open(replace(artefact, path=tmp_path / "none.onnx"), Device(), SessionOptions())


def test_what_it_cannot_honour_is_refused(artefact: Artefact) -> None:
    with pytest.raises(UsageFailed, match="CUDA graph"):
        RUNTIME.open(artefact, Device(), SessionOptions(cuda_graph=True))
    with pytest.raises(UsageFailed, match="without its own optimisations"):
        RUNTIME.open(artefact, Device(), SessionOptions(optimise=False))
    with pytest.raises(BackendMissing, match="the device is cuda") as raised:
        RUNTIME.open(artefact, Device("cuda"), SessionOptions())
    assert raised.value.next_command == "add --device cpu"


def test_where_it_is_missing_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_library, "package_version", lambda name: None)
    found = RUNTIME.available()
    assert (found.ok, found.mend) == (False, "pip install 'vit-deploy[openvino]'")
    assert RUNTIME.devices() == ()


def test_where_it_does_not_load_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("libtbb.so.12: cannot open shared object file")

    monkeypatch.setattr(openvino_library, "load", fail)
    found = RUNTIME.available()
    assert not found.ok
    assert "libtbb.so.12" in found.reason
    assert found.mend == "pip install --force-reinstall openvino"


def test_it_is_not_the_default_for_onnx() -> None:
    assert registry.runtime("ov") is RUNTIME
    able = [runtime.name for runtime in registry.runtimes_for("onnx")]
    assert able.index("onnxruntime") < able.index("openvino")


def test_its_telemetry_is_not_imported() -> None:
    code = (
        "import sys\n"
        "from vit_deploy.runtimes.openvino import load\n"
        "load()\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'openvino_telemetry'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
