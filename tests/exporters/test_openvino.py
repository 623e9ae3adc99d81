"""OpenVINO IR: what the ONNX artefact says is kept, nothing of this machine is in it, and it is read back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vit_deploy import openvino_library, registry
from vit_deploy.errors import BackendMissing, ExportFailed, HostileInput, OutputFailed
from vit_deploy.exporters import onnx as onnx_exporter
from vit_deploy.exporters.openvino import EXPORTER
from vit_deploy.facts import Device
from vit_deploy.graph.openvino_ir import read_ir
from vit_deploy.model.contract import contracted
from vit_deploy.model.sizes import size_range
from vit_deploy.parity import ParityCheck
from vit_deploy.protocols import Artefact, ExportedFiles, NoOptions, SessionOptions, Silent
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model

if not EXPORTER.available().ok:
    pytest.skip(f"OpenVINO is missing: {EXPORTER.available().mend}", allow_module_level=True)

RUNTIME = registry.runtime("openvino")


def to_onnx(
    model: Model, folder: Path, spec: IOSpec | None = None, precision: Precision = "fp32", **options: Any
) -> Artefact:
    folder.mkdir(parents=True, exist_ok=True)
    asked = onnx_exporter.OnnxOptions(**options)
    spec = spec or model.config.io_spec()
    made = onnx_exporter.EXPORTER.export(model, spec, asked, folder, Silent(), None, precision)
    path = folder / made.files[0]
    return Artefact(f"onnx-{precision}", "onnx", precision, path, made.spec, model.config, made.facts)


def to_ir(source: Artefact, folder: Path) -> Artefact:
    folder.mkdir(parents=True, exist_ok=True)
    made = exported(source, folder)
    return replace(
        source, name=f"openvino-{source.precision}", format="openvino", path=folder / made.files[0],
        spec=made.spec, facts=made.facts,
    )  # fmt: skip


def exported(source: Artefact, folder: Path) -> ExportedFiles:
    return EXPORTER.export(None, source.spec, NoOptions(), folder, Silent(), source)  # type: ignore[arg-type]


def run(artefact: Artefact, batch: int = 2) -> dict[str, np.ndarray]:
    (entry,) = artefact.spec.inputs
    shape = entry.at(artefact.spec.free_at(batch, (32, 48)))
    rng = np.random.default_rng(batch)
    pixels = (
        rng.integers(0, 256, shape, np.uint8)
        if entry.dtype == "uint8"
        else rng.standard_normal(shape, np.float32)
    )
    with RUNTIME.open(artefact, Device(), SessionOptions(threads=1)) as session:
        return dict(session.run({entry.name: pixels}))


@pytest.fixture(scope="module")
def source(wide_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    spec = wide_model.config.io_spec(("logits", "embedding", "tokens"))
    return to_onnx(wide_model, tmp_path_factory.mktemp("ein ünïcode Ordner"), spec)


@pytest.fixture(scope="module")
def artefact(source: Artefact, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return to_ir(source, tmp_path_factory.mktemp("ir ü"))


def test_facts_are_those_of_the_file(artefact: Artefact) -> None:
    depth, facts = 3, artefact.facts
    assert facts["operators"]["ScaledDotProductAttention"] == depth
    assert facts["operators"]["MVN"] == 2 * depth + 1
    assert facts["dtypes"]["linear"] == {"fp32": 4 * depth + 2}
    assert facts["dtypes"]["attention"] == {"fp32": depth}
    assert facts["dtypes"]["io"] == {"fp32": 4}
    assert facts["nodes"] == sum(facts["operators"].values())
    assert facts["version"] == openvino_library.load().__version__
    assert facts["quantisers"] == 0


def test_weights_are_not_compressed(artefact: Artefact, wide_model: Model) -> None:
    count = sum(int(np.prod(tensor.shape)) for tensor in wide_model.weights.values())
    assert artefact.facts["weights"]["f32"] == pytest.approx(count, rel=0.01)
    assert "f16" not in artefact.facts["weights"]
    assert artefact.path.with_suffix(".bin").stat().st_size > 4 * count * 0.99


def test_it_computes_what_the_onnx_file_computes_and_in_its_order(artefact: Artefact, source: Artefact) -> None:
    found, expected = run(artefact), run(source)
    assert list(found) == ["logits", "embedding", "tokens"]
    for name, array in expected.items():
        assert np.linalg.norm(found[name] - array) < 1e-6 * np.linalg.norm(array)


def test_the_source_is_left_alone_and_nothing_is_left_behind(
    source: Artefact, artefact: Artefact, tmp_path: Path
) -> None:
    before = source.path.read_bytes()
    exported(source, tmp_path)
    assert source.path.read_bytes() == before
    assert source.path.stat().st_nlink == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml"]


def test_weights_beside_the_graph_give_the_same_bytes(
    wide_model: Model, source: Artefact, artefact: Artefact, tmp_path: Path
) -> None:
    beside = to_onnx(wide_model, tmp_path / "beside", source.spec, external_data=True)
    assert beside.path.with_name("model.onnx.data").exists()
    other = to_ir(beside, tmp_path / "ir")
    for suffix in (".xml", ".bin"):
        assert other.path.with_suffix(suffix).read_bytes() == artefact.path.with_suffix(suffix).read_bytes()


def test_files_can_be_copied_where_they_cannot_be_linked(
    source: Artefact, artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("os.link", refuse)
    assert to_ir(source, tmp_path).path.read_bytes() == artefact.path.read_bytes()


def test_a_fixed_batch_and_free_sizes(wide_model: Model, tmp_path: Path) -> None:
    config = wide_model.config
    fixed = to_ir(
        to_onnx(wide_model, tmp_path / "one", config.io_spec((), BatchRange(2, 2, 2))), tmp_path / "two"
    )
    assert read_ir(fixed.path).inputs[0].shape == (2, 3, 32, 48)
    free = config.io_spec(sizes=size_range(config, None, None, (64, 64)))
    sized = to_ir(to_onnx(wide_model, tmp_path / "three", free), tmp_path / "four")
    assert read_ir(sized.path).inputs[0].shape == (None, 3, None, None)
    onnxruntime = registry.runtime("onnxruntime")
    onnx = replace(sized, format="onnx", path=tmp_path / "three" / "model.onnx")
    with (
        RUNTIME.open(sized, Device(), SessionOptions()) as session,
        onnxruntime.open(onnx, Device(), SessionOptions()) as reference,
    ):
        for shape in ((1, 3, 32, 48), (3, 3, 64, 16), (2, 3, 48, 64)):
            pixels = {"pixel_values": np.random.default_rng(1).standard_normal(shape, np.float32)}
            found, expected = session.run(pixels)["logits"], reference.run(pixels)["logits"]
            assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


def test_it_takes_pictures(wide_model: Model, tmp_path: Path) -> None:
    plain = wide_model.config.io_spec()
    spec = contracted(plain, "uint8", wide_model.config, wide_model.known_preprocessing, None)
    artefact = to_ir(to_onnx(wide_model, tmp_path / "onnx", spec), tmp_path / "ir")
    assert artefact.facts["dtypes"]["io"] == {"fp32": 1, "uint8": 1}
    verdict = ParityCheck(wide_model, threads=1).judge(artefact)
    assert (verdict.passed, verdict.backend) == (True, "openvino"), verdict.reason


@pytest.mark.parametrize(("precision", "weights"), [("bf16", "bf16"), ("fp16", "f16")])
def test_half_precision_is_that_of_the_graph(
    precision: Precision, weights: str, wide_model: Model, tmp_path: Path
) -> None:
    source = to_onnx(wide_model, tmp_path / "onnx", precision=precision)
    artefact = to_ir(source, tmp_path / "ir")
    assert read_ir(artefact.path).precision == precision
    assert max(artefact.facts["weights"], key=artefact.facts["weights"].get) == weights
    assert artefact.facts["dtypes"]["layernorm"] == {"fp32": 7}
    assert artefact.facts["dtypes"]["linear"] == {precision: 14}
    with RUNTIME.open(artefact, Device(), SessionOptions()) as session:
        told = session.facts
    assert told.precision == registry.computes(RUNTIME, precision) == told.dtypes["linear"].popitem()[0]  # type: ignore[attr-defined]
    assert np.allclose(run(artefact)["logits"], run(source)["logits"])


def test_int8_stays_int8_and_becomes_low_precision_layers(wide_model: Model, tmp_path: Path) -> None:
    source = to_onnx(wide_model, tmp_path / "onnx", precision="int8", calibration_images=16)
    artefact = to_ir(source, tmp_path / "ir")
    quantised = source.facts["dtypes"]["linear"]["int8"]
    assert artefact.facts["dtypes"]["linear"]["int8"] == quantised
    assert artefact.facts["quantisers"] > 0
    assert artefact.facts["weights"]["i8"] > artefact.facts["weights"]["f32"]
    with RUNTIME.open(artefact, Device(), SessionOptions()) as session:
        facts = session.facts
    assert facts.precision == "int8"
    assert facts.details["low_precision_layers"] == facts.dtypes["linear"]["int8"] == quantised
    assert np.allclose(run(artefact)["logits"], run(source)["logits"])


def test_another_precision_than_declared_is_refused(source: Artefact, tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="weights of the converted graph are fp32"):
        exported(replace(source, precision="fp16"), tmp_path)


def test_other_outputs_than_declared_are_refused(source: Artefact, tmp_path: Path) -> None:
    spec = replace(source.spec, outputs=source.spec.outputs[::-1])
    with pytest.raises(ExportFailed, match="outputs of the converted graph are"):
        exported(replace(source, spec=spec), tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello world" * 10, b"\x00" * 100])
def test_a_file_that_is_no_onnx_is_refused(source: Artefact, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises((ExportFailed, HostileInput)):
        exported(replace(source, path=tmp_path / "broken.onnx"), tmp_path)


def test_weights_outside_of_the_graphs_folder_are_refused(source: Artefact, tmp_path: Path) -> None:
    import onnx

    proto = onnx.load(source.path)
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    (folder / "w.data").rename(tmp_path / "w.data")
    light = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in light.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../w.data"
    (folder / "model.onnx").write_bytes(light.SerializeToString())
    with pytest.raises(HostileInput, match="outside its own folder"):
        exported(replace(source, path=folder / "model.onnx"), tmp_path)


def test_a_folder_that_cannot_be_written(source: Artefact, tmp_path: Path) -> None:
    with pytest.raises(OutputFailed, match="cannot be written"):
        exported(source, tmp_path / "is not there")


def test_a_full_disk_is_told(source: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO itself does not: what it wrote is read back."""
    openvino = openvino_library.load()
    save = openvino.save_model

    def cut(model: Any, target: Path, **settings: Any) -> None:
        save(model, target, **settings)
        weights = target.with_suffix(".bin")
        weights.write_bytes(weights.read_bytes()[:-1])

    monkeypatch.setattr(openvino, "save_model", cut)
    with pytest.raises(OutputFailed, match="not written whole"):
        exported(source, tmp_path)


def test_without_an_onnx_artefact(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="made from an ONNX artefact"):
        EXPORTER.export(None, None, NoOptions(), tmp_path, Silent(), None)  # type: ignore[arg-type]
    assert EXPORTER.needs == "onnx"


def test_where_openvino_is_missing(source: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_library, "package_version", lambda name: None)
    with pytest.raises(BackendMissing, match="not installed") as raised:
        exported(source, tmp_path)
    assert raised.value.next_command == openvino_library.INSTALL


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"])
def test_the_ir_of_a_timm_model_holds(architecture: str, tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is needed: pip install 'vit-deploy[timm]'")
    from tests.specimens.timm import SIZES, save
    from vit_deploy.weights import load_model

    save(tmp_path / "timm", 3, architecture=architecture, sizes=SIZES)
    model = load_model(str(tmp_path / "timm"))
    artefact = to_ir(to_onnx(model, tmp_path / "onnx"), tmp_path / "ir")
    verdict = ParityCheck(model, threads=1).judge(artefact)
    assert verdict.passed, verdict.reason
