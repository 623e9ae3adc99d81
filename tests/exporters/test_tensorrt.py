"""Real engines, built by TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import importlib.util
import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from vit_deploy import tensorrt_flavours
from vit_deploy.errors import BackendMissing, ExportFailed, OutputFailed, RunFailed, UsageFailed
from vit_deploy.exporters import _tensorrt_build as build
from vit_deploy.exporters import onnx as onnx_exporter
from vit_deploy.exporters._tensorrt_progress import BuildProgress
from vit_deploy.exporters.tensorrt import EXPORTER, TensorRTOptions
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.model.vit import ViT
from vit_deploy.protocols import Artefact, ExportedFiles, Silent
from vit_deploy.spec import BatchRange
from vit_deploy.tensorrt_flavours import FLAVOURS, Gpus, check_plan, check_version, choose_flavour
from vit_deploy.weights.imported import Model, Source
from vit_deploy.weights.tensors import Weights, WeightTensor

HAS_RTX = importlib.util.find_spec("tensorrt_rtx") is not None
needs_rtx = pytest.mark.skipif(
    not HAS_RTX, reason="tensorrt_rtx is not installed: pip install 'vit-deploy[rtx]'"
)
RTX = TensorRTOptions(flavour="rtx")
BATCH = BatchRange(1, 2, 4)
# A head is 16 wide: the fused attention of fp16 wants a multiple of 8.
CONFIG = ViTConfig(
    image_size=(32, 48), patch_size=8, embed_dim=64, depth=3, num_heads=4, mlp_dim=150, num_classes=7
)


def random_model(config: ViTConfig) -> Model:
    generator = torch.Generator().manual_seed(0)
    shapes = {name: tuple(value.shape) for name, value in ViT(config).state_dict().items()}
    state = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    weights = Weights(
        WeightTensor(name, tuple(value.shape), "float32", lambda value=value: value)
        for name, value in state.items()
    )
    size = config.image_size
    preprocessing = Preprocessing(size, "exact", size, "bicubic", (0.5,) * 3, (0.5,) * 3)
    return Model(config, weights, preprocessing, (), Source("random", "test", "0" * 64))


MODEL = random_model(CONFIG)


def onnx_artefact(
    folder: Path, opset: int = 23, *, external: bool = False, batch: BatchRange = BATCH, outputs=("logits",)
) -> Artefact:
    folder.mkdir(parents=True, exist_ok=True)
    spec = CONFIG.io_spec(outputs, batch)
    options = onnx_exporter.OnnxOptions(opset=opset, external_data=external)
    exported = onnx_exporter.EXPORTER.export(MODEL, spec, options, folder, Silent())
    return Artefact("onnx-fp32", "onnx", "fp32", folder / exported.files[0], spec, CONFIG, exported.facts)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Artefact:
    return onnx_artefact(tmp_path_factory.mktemp("onnx"))


def in_half(artefact: Artefact, folder: Path) -> Artefact:
    """The same graph with every float tensor in fp16."""
    graph_model = onnx.load(artefact.path)
    graph = graph_model.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype("float16")
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    del graph.value_info[:]
    onnx.save(graph_model, folder / "half.onnx")
    return replace(artefact, name="onnx-fp16", precision="fp16", path=folder / "half.onnx")


def export(source: Artefact | None, folder: Path, options=RTX, progress=None, batch=BATCH) -> ExportedFiles:
    folder.mkdir(exist_ok=True)
    spec = CONFIG.io_spec(source.spec.output_names if source else (), batch)
    return EXPORTER.export(MODEL, spec, options, folder, progress or Silent(), source)


class Recorder(Silent):
    def __init__(self, cancel_after: int | None = None) -> None:
        self.phases: list[tuple[str, int | None]] = []
        self.steps = 0
        self.cancel_after = cancel_after

    def phase(self, text: str, total: int | None = None) -> None:
        self.phases.append((text, total))

    def advance(self, steps: int = 1) -> None:
        self.steps += steps

    @property
    def cancelled(self) -> bool:
        return self.cancel_after is not None and len(self.phases) > self.cancel_after


@needs_rtx
def test_engine_and_its_facts(source, tmp_path, capfd):
    exported = export(source, tmp_path)
    facts = exported.facts
    assert exported.files == ("model.plan",)
    assert facts["attention"] == {"layers": CONFIG.depth, "decomposable": CONFIG.depth}
    assert facts["layers"]["NORMALIZATION"] == 2 * CONFIG.depth + 1
    assert facts["precision"] == "fp32"
    assert facts["tf32"] is False
    assert facts["flavour"] == "rtx"
    assert exported.tools == {"tensorrt_rtx": facts["version"]}
    assert facts["compute_capabilities"] == ["default"]
    assert facts["inputs"] == {"pixel_values": {"dtype": "FLOAT", "shape": [-1, 3, 32, 48]}}
    assert facts["outputs"] == {"logits": {"dtype": "FLOAT", "shape": [-1, 7]}}
    assert facts["profile"] == {"pixel_values": [[size, 3, 32, 48] for size in (1, 2, 4)]}
    assert facts["plan"]["bytes"] == facts["engine_bytes"] == (tmp_path / "model.plan").stat().st_size
    assert facts["plan"]["version"] == facts["version"]
    assert capfd.readouterr() == ("", "")


@needs_rtx
def test_several_outputs(tmp_path):
    facts = export(onnx_artefact(tmp_path / "onnx", outputs=("tokens", "logits")), tmp_path).facts
    assert facts["outputs"]["tokens"] == {"dtype": "FLOAT", "shape": [-1, 25, 64]}
    assert sorted(facts["outputs"]) == ["logits", "tokens"]


@needs_rtx
def test_outputs_that_the_graph_does_not_have(source, tmp_path):
    other = replace(source, spec=CONFIG.io_spec(("embedding",), BATCH))
    with pytest.raises(ExportFailed, match="has the outputs logits") as caught:
        export(other, tmp_path)
    assert caught.value.expected == "embedding"


@needs_rtx
def test_fp16_attention_is_fused(source, tmp_path):
    facts = export(in_half(source, tmp_path), tmp_path).facts
    assert facts["attention"] == {"layers": CONFIG.depth, "decomposable": 0}
    assert facts["precision"] == "fp16"
    assert "FLOAT" not in facts["tensors"]


@needs_rtx
def test_precision_other_than_declared_is_refused(source, tmp_path):
    with pytest.raises(ExportFailed, match="arithmetic of the parsed network is fp32") as caught:
        export(replace(source, precision="fp16"), tmp_path)
    assert "fp16" in caught.value.expected


@needs_rtx
@pytest.mark.parametrize("opset", [17, 22])
def test_graphs_that_spell_attention_out(tmp_path, opset):
    facts = export(onnx_artefact(tmp_path / "onnx", opset), tmp_path).facts
    assert facts["attention"] == {"layers": 0, "decomposable": 0}
    assert facts["layers"]["SOFTMAX"] == CONFIG.depth


@needs_rtx
def test_two_builds_are_byte_equal_and_external_data_is_found(source, tmp_path):
    beside = onnx_artefact(tmp_path / "mit Leerzeichen ü", external=True)
    export(source, tmp_path / "one")
    export(beside, tmp_path / "two")
    one, two = ((tmp_path / name / "model.plan").read_bytes() for name in ("one", "two"))
    assert one == two


@needs_rtx
def test_plan_holds_no_path_of_this_machine(source, tmp_path):
    export(source, tmp_path)
    plan = (tmp_path / "model.plan").read_bytes()
    for path in (source.path.parent, tmp_path, Path(__file__).parents[2], Path(torch.__file__).parent):
        assert str(path).encode() not in plan


@needs_rtx
def test_fixed_batch(tmp_path):
    fixed = BatchRange(2, 2, 2)
    facts = export(onnx_artefact(tmp_path / "onnx", batch=fixed), tmp_path, batch=fixed).facts
    assert facts["profile"]["pixel_values"] == [[2, 3, 32, 48]] * 3


@needs_rtx
def test_a_fixed_graph_cannot_be_freed(tmp_path):
    fixed = onnx_artefact(tmp_path / "onnx", batch=BatchRange(2, 2, 2))
    with pytest.raises(ExportFailed, match=r"'pixel_values' has shape \[2, 3, 32, 48\]"):
        export(fixed, tmp_path)


@needs_rtx
def test_progress_shows_the_builders_phases(source, tmp_path):
    recorder = Recorder()
    export(source, tmp_path, progress=recorder)
    names = [name for name, _ in recorder.phases]
    assert names[0] == "Reading the ONNX graph into TensorRT"
    assert names[-1] == "Writing the engine"
    inner = [total for name, total in recorder.phases if name.startswith("TensorRT: ")]
    assert len(inner) > 3
    assert all(inner)
    assert recorder.steps > 10


@needs_rtx
@pytest.mark.parametrize("after", [-1, 3])
def test_cancel_before_and_during_the_build(source, tmp_path, after):
    with pytest.raises(ExportFailed, match="cancelled"):
        export(source, tmp_path, progress=Recorder(cancel_after=after))
    assert not list(tmp_path.iterdir())


@needs_rtx
def test_ctrl_c_inside_a_callback_stops_the_build_and_is_raised_after_it(source, tmp_path):
    class Interrupted(Recorder):
        def advance(self, steps: int = 1) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path, progress=Interrupted())


@needs_rtx
def test_the_parsers_own_words_are_in_the_error(source, tmp_path):
    value = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 3, 32, 48])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, 32, 48])
    node = helper.make_node("Mystery", ["pixel_values"], ["logits"], name="the_node", domain="com.example")
    graph = helper.make_graph([node], "graph", [value], [result])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "mystery.onnx")
    with pytest.raises(ExportFailed, match=r"Mystery 'the_node': .*Plugin not found"):
        export(replace(source, path=tmp_path / "mystery.onnx"), tmp_path)


@needs_rtx
@pytest.mark.parametrize("content", [b"", b"hello world" * 10, b"\x00" * 100])
def test_a_file_that_is_no_onnx_is_refused(source, tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ExportFailed):
        export(replace(source, path=tmp_path / "broken.onnx"), tmp_path)


@needs_rtx
def test_what_tensorrt_says_when_it_cannot_build(source, tmp_path):
    with pytest.raises(ExportFailed, match="Turing"):
        export(source, tmp_path, TensorRTOptions("rtx", compute_capabilities="7.5"))


@needs_rtx
def test_compute_capabilities_are_set_in_one_order(source, tmp_path):
    export(source, tmp_path / "none")  # TensorRT-RTX carries kernels over from a build that failed
    one = export(source, tmp_path / "one", TensorRTOptions("rtx", compute_capabilities="12.0, 8.9"))
    two = export(source, tmp_path / "two", TensorRTOptions("rtx", compute_capabilities="8.9,12.0,8.9"))
    assert one.facts == two.facts
    assert sorted(one.facts["compute_capabilities"]) == ["12.0", "8.9"]
    assert (tmp_path / "one/model.plan").read_bytes() == (tmp_path / "two/model.plan").read_bytes()


@needs_rtx
def test_compute_capabilities_that_do_not_exist(source, tmp_path, monkeypatch):
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
def test_flags_of_the_other_flavour_are_refused(source, tmp_path, flag, setting):
    with pytest.raises(UsageFailed, match=f"TensorRT-RTX has nothing like {flag}"):
        export(source, tmp_path, TensorRTOptions("rtx", **setting))


@needs_rtx
def test_workspace_limit(source, tmp_path):
    assert export(source, tmp_path, TensorRTOptions("rtx", workspace=64)).files
    with pytest.raises(UsageFailed, match="--trt-workspace"):
        export(source, tmp_path, TensorRTOptions("rtx", workspace=-1))


@needs_rtx
def test_a_folder_that_cannot_be_written(source, tmp_path):
    with pytest.raises(OutputFailed, match="cannot be written"):
        EXPORTER.export(MODEL, source.spec, RTX, tmp_path / "is not there", Silent(), source)


@pytest.mark.slow
@needs_rtx
def test_vit_b_16_has_twelve_attention_layers(tmp_path):
    config = ViTConfig()
    spec = config.io_spec(("logits",), BATCH)
    model = random_model(config)
    files = onnx_exporter.EXPORTER.export(model, spec, onnx_exporter.OnnxOptions(), tmp_path, Silent()).files
    source = Artefact("onnx-fp32", "onnx", "fp32", tmp_path / files[0], spec, config)
    facts = EXPORTER.export(model, spec, RTX, tmp_path, Silent(), source).facts
    assert facts["attention"] == {"layers": 12, "decomposable": 12}


def test_without_an_onnx_artefact(tmp_path):
    with pytest.raises(ExportFailed, match="built from an ONNX artefact"):
        export(None, tmp_path)
    assert EXPORTER.needs == "onnx"


# Flavours -------------------------------------------------------------------------------------------


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(tensorrt_flavours, "find_gpus", lambda: Gpus(reason="there is no driver"))


@pytest.fixture
def one_gpu(monkeypatch):
    for module in (tensorrt_flavours, build):
        monkeypatch.setattr(module, "find_gpus", lambda: Gpus(("9.0",)))


@pytest.fixture
def none_installed(monkeypatch):
    for flavour in FLAVOURS.values():
        monkeypatch.setitem(sys.modules, flavour.module, None)


def test_nothing_installed(none_installed, one_gpu, source, tmp_path):
    found = EXPORTER.available()
    assert not found.ok
    assert found.reason == "TensorRT is not installed; TensorRT-RTX is not installed"
    assert found.mend == "pip install 'vit-deploy[gpu]', or pip install 'vit-deploy[rtx]'"
    with pytest.raises(BackendMissing, match="TensorRT-RTX is not installed"):
        export(source, tmp_path, TensorRTOptions())
    with pytest.raises(BackendMissing) as caught:
        export(source, tmp_path, RTX)
    assert caught.value.next_command == "pip install 'vit-deploy[rtx]'"


def test_installed_but_broken(monkeypatch):
    def broken(name: str) -> None:
        raise OSError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr(tensorrt_flavours.importlib, "import_module", broken)
    found = FLAVOURS["tensorrt"].installed()
    assert "does not load: libnvinfer.so.11" in found.reason


def test_auto_prefers_the_data_centre_flavour_where_there_is_a_gpu(monkeypatch, one_gpu):
    for flavour in FLAVOURS.values():
        monkeypatch.setitem(sys.modules, flavour.module, SimpleNamespace(__version__="11.1.0"))
    assert choose_flavour("auto").name == "tensorrt"
    monkeypatch.setattr(tensorrt_flavours, "find_gpus", lambda: Gpus(reason="there is no driver"))
    assert choose_flavour("auto").name == "rtx"
    with pytest.raises(
        BackendMissing, match="TensorRT builds on the GPU it builds for, and there is no driver"
    ):
        choose_flavour("tensorrt")


def test_unknown_flavour():
    with pytest.raises(UsageFailed, match=r"'rtxx' \(did you mean 'rtx'\?\)"):
        choose_flavour("rtxx")


@needs_rtx
def test_data_centre_path_with_a_stand_in(source, tmp_path, monkeypatch, one_gpu):
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


# Plans and messages ---------------------------------------------------------------------------------


@needs_rtx
def test_a_wrong_plan_is_refused_before_tensorrt_reads_it(source, tmp_path, monkeypatch):
    recorded = dict(export(source, tmp_path).facts["plan"])
    path = tmp_path / "model.plan"
    plan = path.read_bytes()
    check_plan(path, recorded)
    for wrong in (plan[:-1], b"other" * 1000, source.path.read_bytes(), plan[:24] + b"\x02" + plan[25:]):
        path.write_bytes(wrong)
        with pytest.raises(RunFailed, match="is not the plan that was built") as caught:
            check_plan(path, recorded)
        assert caught.value.next_command
    path.write_bytes(plan[:10])
    with pytest.raises(RunFailed, match="holds 10 bytes"):
        check_plan(path, recorded)


def test_versions():
    rtx, data_centre = FLAVOURS["rtx"], FLAVOURS["tensorrt"]
    check_version(rtx, "1.7.1.116", "1.7.1.116", later_is_fine=False)
    check_version(data_centre, "11.2.0", "10.13.3", later_is_fine=True)
    with pytest.raises(BackendMissing) as caught:
        check_version(rtx, "1.8.0.1", "1.7.1.116", later_is_fine=False)
    assert "pip install 'tensorrt_rtx==1.7.1.116'" in caught.value.next_command
    with pytest.raises(BackendMissing):
        check_version(data_centre, "10.13.3", "11.2.0", later_is_fine=True)


def test_messages_go_to_logging_and_are_kept(caplog):
    messages = tensorrt_flavours.Messages()
    with caplog.at_level(logging.DEBUG, logger="vit_deploy.tensorrt"):
        for severity, text in enumerate(["internal", "error", "warning", "info", "verbose"]):
            messages.add(severity, text)
            messages.add(severity, text)
    assert [record.levelname for record in caplog.records[::2]] == [
        "ERROR",
        "ERROR",
        "WARNING",
        "INFO",
        "DEBUG",
    ]
    assert messages.errors == ["internal", "error"]
    assert messages.warnings == ["warning"]
    assert messages.reason() == "error; internal"


def test_progress_returns_to_the_outer_phase():
    recorder = Recorder()
    reporter = BuildProgress(recorder)
    reporter.start("outer", 3)
    assert reporter.step("outer")
    reporter.start("inner", 2)
    assert reporter.step("inner")
    reporter.finish("inner")
    assert reporter.step("outer")
    assert recorder.phases == [("TensorRT: outer", 3), ("TensorRT: inner", 2), ("TensorRT: outer", 3)]
    # one step of outer, one of inner, then outer again with the two it has done
    assert recorder.steps == 1 + 1 + 2


@pytest.fixture
def fresh_search():
    tensorrt_flavours.find_gpus.cache_clear()
    yield tensorrt_flavours.find_gpus
    tensorrt_flavours.find_gpus.cache_clear()


def test_no_driver(monkeypatch, fresh_search):
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(tensorrt_flavours.ctypes, "CDLL", missing)
    found = fresh_search()
    monkeypatch.undo()
    assert "no NVIDIA driver was found" in found.reason


@pytest.mark.parametrize(
    ("status", "count", "expected"),
    [
        (100, 0, Gpus(reason="the NVIDIA driver found no usable GPU (CUDA error 100)")),
        (0, 0, Gpus(reason="the NVIDIA driver shows no GPU to this process")),
        (0, 2, Gpus(("9.0", "9.1"))),
    ],
)
def test_what_the_driver_answers(monkeypatch, fresh_search, status, count, expected):
    monkeypatch.setattr(tensorrt_flavours.ctypes, "CDLL", lambda name: FakeDriver(status, count))
    found = fresh_search()
    monkeypatch.undo()
    assert found == expected


class FakeDriver:
    """Two GPUs of compute capability 9.0 and 9.1, through the C interface."""

    def __init__(self, status: int, count: int) -> None:
        self.status, self.count = status, count

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the driver's own name
        return self.status

    def cuDeviceGetCount(self, count) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, device, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetAttribute(self, value, attribute: int, device) -> int:  # noqa: N802
        value._obj.value = {75: 9, 76: device.value}[attribute]
        return 0
