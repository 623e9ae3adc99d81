"""What backends make of half precision: TensorRT fuses, OpenVINO proves bf16, a CPU's fp16 nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.graph.half_models import tiny
from vit_deploy import registry
from vit_deploy.errors import BackendMissing, ExportFailed
from vit_deploy.exporters import tensorrt
from vit_deploy.exporters.onnx import EXPORTER, OnnxOptions
from vit_deploy.facts import Availability, Device
from vit_deploy.parity import ParityCheck
from vit_deploy.parity.choosing import choose_runtime
from vit_deploy.protocols import Artefact, SessionOptions, Silent
from vit_deploy.runtimes.onnxruntime import RUNTIME as ORT

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.spec import Precision
    from vit_deploy.weights.imported import Model

CPU = Device()


def exported(model: Model, folder: Path, precision: Precision, **options: Any) -> Artefact:
    spec = model.config.io_spec()
    made = EXPORTER.export(model, spec, OnnxOptions(**options), folder, Silent(), precision=precision)
    return Artefact(
        f"onnx-{precision}", "onnx", precision, folder / made.files[0], made.spec, model.config, made.facts
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny(num_classes=40, embed_dim=64, num_heads=4)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_tensorrt_fuses_attention(precision: Precision, model: Model, tmp_path: Path) -> None:
    options = {"io_dtype": "float16", "keep_fp32": "blocks.1.residual"} if precision == "fp16" else {}
    source = exported(model, tmp_path, precision, **options)
    rtx = tensorrt.TensorRTOptions(flavour="rtx")
    plain = model.config.io_spec()
    built = tensorrt.EXPORTER.export(model, plain, rtx, tmp_path, Silent(), source, precision)
    depth = model.config.depth
    assert built.facts["attention"] == {"layers": depth, "decomposable": 0}
    assert built.facts["precision"] == precision
    assert built.facts["dtypes"]["attention"] == {precision: depth}
    assert built.facts["dtypes"]["linear"] == {precision: 4 * depth + 2}
    norms = {"fp16": 5, "fp32": 2} if options else {precision: 7}
    assert built.facts["dtypes"]["layernorm"] == norms
    assert built.spec == source.spec
    assert built.facts["inputs"]["pixel_values"]["dtype"] == ("HALF" if options else "FLOAT")


def test_a_network_with_other_inputs_than_declared_is_refused(model: Model) -> None:
    from vit_deploy.exporters._tensorrt_network import check_network

    spec = model.config.io_spec()
    described = {
        kind: {entry.name: {"dtype": "HALF", "shape": [-1, *entry.shape[1:]]} for entry in entries}
        for kind, entries in (("inputs", spec.inputs), ("outputs", spec.outputs))
    }
    with pytest.raises(ExportFailed, match="'pixel_values' is float16 in the parsed network"):
        check_network({**described, "precision": "fp16"}, spec, "fp16")


def test_onnx_runtimes_cpu_agrees_but_proves_nothing_of_fp16(model: Model, tmp_path: Path) -> None:
    artefact = exported(model, tmp_path, "fp16")
    verdict = ParityCheck(model, threads=1).judge(artefact, runtime=ORT, device=CPU)
    assert verdict.word == "unverified"
    assert "onnxruntime computes in fp32 what is declared as fp16: it agrees" in verdict.reason
    assert "run vit-deploy verify on a machine with an NVIDIA GPU" in verdict.reason
    assert verdict.worst_ratio is not None
    assert verdict.worst_ratio < 2
    assert verdict.details["built"]["fused_attention"] == {"fused": 3, "of": 3}


def test_onnx_runtimes_cpu_refuses_fp16_where_only_the_real_thing_will_do(model: Model, tmp_path: Path) -> None:
    artefact = exported(model, tmp_path, "fp16")
    with pytest.raises(BackendMissing, match="computes fp16 as fp32 behind casts on a CPU, slower") as told:
        ORT.open(artefact, CPU, SessionOptions(native=True))
    assert told.value.exit_code == 4
    assert "OpenVINO" in told.value.expected
    with ORT.open(artefact, CPU, SessionOptions(threads=1)) as session:
        found = session.run({"pixel_values": np.zeros((1, 3, 16, 24), np.float32)})["logits"]
    assert (found.shape, found.dtype) == ((1, 40), np.float32)


def test_bf16_cannot_be_judged_by_onnx_runtimes_cpu(model: Model, tmp_path: Path) -> None:
    artefact = exported(model, tmp_path, "bf16")
    with pytest.raises(BackendMissing, match="ONNX Runtime has no bf16 kernels on a CPU"):
        ORT.open(artefact, CPU, SessionOptions())
    verdict = ParityCheck(model, threads=1).judge(artefact, runtime=ORT, device=CPU)
    assert verdict.word == "unverified"
    assert verdict.reason.startswith("onnxruntime: it has no kernels for bf16 here; pip install")


@pytest.mark.parametrize("opset", [23, 17])
def test_openvino_proves_bf16(opset: int, model: Model, tmp_path: Path) -> None:
    runtime = pytest.importorskip("openvino") and registry.runtime("openvino")
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16: run the test on one with avx512_bf16 or amx_bf16")
    artefact = exported(model, tmp_path, "bf16", opset=opset)
    chosen, found = choose_runtime(artefact, None, CPU)
    assert (chosen and chosen.name, found.ok) == (runtime.name, True)
    verdict = ParityCheck(model, threads=1).judge(artefact, device=CPU)
    assert (verdict.word, verdict.backend, verdict.reason) == ("passed", "openvino", "")
    assert verdict.details["precision"] == "bf16"


class Fake:
    """A runtime that computes what it is told."""

    formats = frozenset({"onnx"})
    cuda_graphs = False
    description = ""

    def __init__(self, name: str, computed: Precision | None, *, ok: bool = True) -> None:
        self.name = name
        self._computed = computed
        self._ok = ok

    def available(self, device: Device | None = None) -> Availability:
        return Availability.yes("1") if self._ok else Availability.no("missing", "install it")

    def devices(self) -> tuple[Device, ...]:
        return (CPU,)

    def computes(self, precision: Precision, device: Device | None = None) -> Precision | None:
        return self._computed


def test_backends_that_compute_in_the_precision_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = {
        "cannot": Fake("cannot", None),
        "emulates": Fake("emulates", "fp32"),
        "missing": Fake("missing", "bf16", ok=False),
        "real": Fake("real", "bf16"),
    }
    monkeypatch.setattr(registry, "backends", lambda: list(fakes))
    monkeypatch.setattr(registry, "runtime", fakes.__getitem__)
    ordered = [found.name for found in registry.runtimes_for("onnx", "bf16")]
    assert ordered == ["real", "emulates", "cannot", "missing"]
    assert [found.name for found in registry.runtimes_for("onnx")] == ["cannot", "emulates", "real", "missing"]
