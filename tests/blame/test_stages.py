"""Every stage between eager PyTorch and an artefact, really broken, is the one that is named."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch

from tests.blame.conftest import damaged_onnx, dead_head, judged, write_onnx, write_torchscript
from vit_deploy import registry
from vit_deploy.blame.ladders import ladder_of
from vit_deploy.blame.stages import Fall, Walk, generic_ladder
from vit_deploy.errors import RunFailed, UsageFailed
from vit_deploy.facts import Device, Verdict
from vit_deploy.model.contract import contracted
from vit_deploy.parity import ParityCheck
from vit_deploy.protocols import SessionOptions, Silent
from vit_deploy.spec import BatchRange
from vit_deploy.weights.random import random_model
from vit_deploy.weights.tensors import write_safetensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.protocols import Artefact
    from vit_deploy.weights.imported import Model

CPU = Device()
CAPTURED: dict[Any, Any] = {}


@pytest.fixture(scope="module")
def model() -> Model:
    from vit_deploy.model.config import ViTConfig

    config = ViTConfig(
        image_size=(32, 32), patch_size=8, embed_dim=64, depth=3, num_heads=4, mlp_dim=96, num_classes=7
    )
    return random_model(config, "stages", seed=5)


@pytest.fixture(scope="module")
def check(model: Model) -> ParityCheck:
    return ParityCheck(model, threads=1)


@pytest.fixture(scope="module")
def onnx_file(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return write_onnx(model, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(autouse=True)
def _captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capturing takes most of a ladder's time, and each test would do it anew."""
    from vit_deploy.graph import pipeline

    capture = pipeline.capture

    def once(build: Any, spec: Any) -> Any:
        key = (spec, build().blocks[0].attn.merge_heads.__class__.__name__)
        if key not in CAPTURED:
            CAPTURED[key] = capture(build, spec)
        return CAPTURED[key].clone()

    monkeypatch.setattr(pipeline, "capture", once)


@pytest.fixture
def climb(check: ParityCheck, tmp_path: Path) -> Callable[..., tuple[Fall | None, Walk]]:
    """Climb the ladder of an artefact that failed, or is taken to have failed."""

    def run(artefact: Artefact, runtime: Any = None, judge: Any = None) -> tuple[Fall | None, Walk]:
        runtime = runtime or registry.runtimes_for(artefact.format)[0]
        verdict = judge.judge(artefact, runtime=runtime, device=CPU) if judge else Verdict(passed=False)
        folder = tmp_path / "walk"
        folder.mkdir(exist_ok=True)
        chosen = judge or check
        case, limit = chosen.case(artefact, verdict), chosen.limit(artefact, verdict)

        def opened(backend: Any, form: Artefact, device: Device, options: SessionOptions) -> Any:
            return backend.open(form, device, replace(options, threads=1))

        walk = Walk(chosen, artefact, case, limit, runtime, CPU, opened, folder, Silent())
        return ladder_of(artefact.format)(walk), walk

    return run


def named(walk: Walk) -> list[tuple[str, str, bool | None]]:
    return [(reading.kind, reading.name, reading.holds) for reading in walk.readings]


@dataclass
class WrongRuntime:
    """A real backend whose outputs are changed, or that fails, where ``wrong`` says so."""

    inner: Any
    wrong: Callable[[SessionOptions], bool]
    harm: Callable[[dict[str, Any]], dict[str, Any]]
    opened: int = 0

    @property
    def name(self) -> str:
        return str(self.inner.name)

    @property
    def formats(self) -> frozenset[str]:
        return self.inner.formats  # type: ignore[no-any-return]

    def available(self, device: Device | None = None) -> Any:
        return self.inner.available(device)

    def devices(self) -> Any:
        return self.inner.devices()

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> Any:
        self.opened += 1
        session = self.inner.open(artefact, device, options)
        if self.wrong(options):
            run = session._run
            session._run = lambda inputs: self.harm(dict(run(inputs)))
        return session


def shifted(outputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value + np.float32(0.5) for name, value in outputs.items()}


def dying(_: dict[str, Any]) -> dict[str, Any]:
    raise RunFailed("the worker died of signal 11 (SIGSEGV)")


# Nothing is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_an_honest_artefact_holds_at_every_stage(
    format: str, model: Model, onnx_file: Artefact, climb: Any, tmp_path: Path
) -> None:
    artefact = onnx_file if format == "onnx" else write_torchscript(model, tmp_path / "ts")
    fall, walk = climb(artefact)
    assert fall is None
    kinds = [reading.kind for reading in walk.readings]
    assert kinds == sorted(kinds, key=["model", "export", "pass", "runtime", "precision"].index)
    assert {"model", "export", "runtime"} <= set(kinds)
    assert all(reading.holds and reading.worst_ratio < 4 for reading in walk.readings)
    assert walk.readings[-1].name.endswith("optimisations on")


def test_the_ladder_works_with_preprocessing_in_the_graph(model: Model, climb: Any, tmp_path: Path) -> None:
    spec = contracted(model.config.io_spec(), "image", model.config, model.preprocessing)
    honest = write_onnx(model, tmp_path / "input", spec=spec)
    fall, walk = climb(honest)
    assert fall is None, fall
    assert all(reading.holds for reading in walk.readings)


def test_swapped_channels_of_the_input_are_the_file_s_fault(model: Model, climb: Any, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    spec = contracted(model.config.io_spec(), "uint8", model.config, model.preprocessing)
    honest = write_onnx(model, tmp_path / "input", spec=spec)
    proto = onnx.load(honest.path)
    (kernel,) = (entry for entry in proto.graph.initializer if entry.name == "patch_embed.proj.weight")
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel)[:, ::-1].copy(), kernel.name))
    onnx.save(proto, honest.path)
    fall, _ = climb(honest)
    assert fall is not None
    assert fall.reading.kind == "export"
    assert fall.where == "embed"
    assert "patch_embed.proj.weight" in fall.because


# The model, the capture, the passes ------------------------------------------------------------------


def test_a_wrong_layout_for_export_is_the_model_s_fault(
    model: Model, climb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vit_deploy.model import layout

    merge = layout.RESHAPE.merge_heads

    class Louder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = merge()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * 1.01  # type: ignore[no-any-return]

    monkeypatch.setattr(type(layout.RESHAPE), "merge_heads", lambda *_: Louder(), raising=True)
    fall, walk = climb(write_onnx(model, tmp_path / "wrong"))
    assert fall is not None
    assert fall.reading.kind == "model"
    assert named(walk) == [("model", "eager PyTorch, layout for export", False)]


def test_a_wrong_capture_is_the_export_s_fault(
    onnx_file: Artefact, climb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir as ir

    from vit_deploy.graph import pipeline

    capture = pipeline.capture

    def careless(*args: Any) -> Any:
        graph = capture(*args)
        for node in graph.graph:
            if node.op_type == "Gelu":
                node.attributes.add(ir.AttrString("approximate", "tanh"))
        return graph

    monkeypatch.setattr(pipeline, "capture", careless)
    fall, walk = climb(onnx_file)
    assert fall is not None
    assert (fall.reading.kind, fall.reading.name) == ("export", "the graph as captured")
    assert "captures" in fall.because
    assert [kind for kind, *_ in named(walk)] == ["model", "export"]


def passes() -> list[str]:
    from vit_deploy.graph.pipeline import PASSES

    return [name for name, _ in PASSES]


@pytest.mark.parametrize("broken", passes())
def test_each_of_our_passes_is_named_when_it_is_broken(
    broken: str, onnx_file: Artefact, climb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir as ir

    from vit_deploy.graph import pipeline

    def scaling(apply: Any) -> Any:
        def run(graph: ir.Model, recipe: Any) -> None:
            apply(graph, recipe)
            value = next(entry for name, entry in graph.graph.initializers.items() if name == "norm.bias")
            before = value.const_value
            assert before is not None
            value.const_value = ir.tensor(before.numpy() * np.float32(1.01) + np.float32(0.01), name=value.name)

        return run

    table = tuple((name, scaling(apply) if name == broken else apply) for name, apply in pipeline.PASSES)
    monkeypatch.setattr(pipeline, "PASSES", table)
    fall, walk = climb(onnx_file)
    assert fall is not None
    assert (fall.reading.kind, fall.reading.name) == ("pass", broken)
    assert broken in fall.because
    tried = [reading.name for reading in walk.readings if reading.kind == "pass"]
    assert len(tried) <= 4, "it is found by bisection"
    assert tried == sorted(tried, key=passes().index)


def test_a_pass_that_raises_is_named(onnx_file: Artefact, climb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vit_deploy.graph import pipeline

    def stumble(*_: Any) -> None:
        raise KeyError("perm")

    table = tuple((name, stumble if name == "lower_opset" else apply) for name, apply in pipeline.PASSES)
    monkeypatch.setattr(pipeline, "PASSES", table)
    fall, walk = climb(onnx_file)
    assert fall is not None
    assert (fall.reading.kind, fall.reading.name) == ("pass", "lower_opset")
    assert fall.broke
    assert ("export", "the graph as captured", True) in named(walk)


# The file --------------------------------------------------------------------------------------------


def test_a_doctored_file_is_the_export_s_fault_and_the_tensor_is_named(
    model: Model, onnx_file: Artefact, climb: Any, check: ParityCheck, tmp_path: Path
) -> None:
    artefact = damaged_onnx(onnx_file, model, tmp_path, dead_head(1))
    fall, walk = climb(artefact, judge=check)
    assert fall is not None
    assert fall.reading.kind == "export"
    assert fall.where == "blocks.1.attn"
    assert "not what this version exports from these weights" in fall.because
    assert any("blocks.1.attn.proj.weight differs in columns 16–31 (head 1)" in note for note in walk.notes)
    assert named(walk)[1] == ("export", "the graph as this version makes it", True)


def test_a_file_of_another_wiring_is_told_from_one_of_other_weights(
    onnx_file: Artefact, climb: Any, tmp_path: Path
) -> None:
    import onnx

    proto = onnx.load(onnx_file.path)
    for node in proto.graph.node:
        if node.op_type == "Gelu":
            node.attribute[0].s = b"tanh"
    onnx.save(proto, tmp_path / "tanh.onnx")
    fall, walk = climb(replace(onnx_file, path=tmp_path / "tanh.onnx"))
    assert fall is not None
    assert fall.reading.kind == "export"
    assert any("wiring or attributes" in note for note in walk.notes)


def test_an_output_that_the_file_does_not_declare_is_the_export_s_fault(
    onnx_file: Artefact, climb: Any
) -> None:
    spec = onnx_file.config.io_spec(("logits", "tokens"), onnx_file.spec.batch)
    fall, _ = climb(replace(onnx_file, spec=spec))
    assert fall is not None
    assert fall.reading.kind == "export"
    assert "tokens" in fall.reading.note
    assert not fall.broke


def test_an_output_that_the_runtime_withholds_is_its_own_fault(onnx_file: Artefact, climb: Any) -> None:
    silent = WrongRuntime(registry.runtime("onnxruntime"), lambda _: True, lambda _: {})
    fall, _ = climb(onnx_file, silent)
    assert fall is not None
    assert fall.reading.kind == "runtime"
    assert "gives the outputs none" in fall.reading.note


def test_a_truncated_file_is_the_export_s_fault(onnx_file: Artefact, climb: Any, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    whole = onnx_file.path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    fall, _ = climb(replace(onnx_file, path=path))
    assert fall is not None
    assert fall.reading.kind == "export"
    assert fall.broke


def test_a_doctored_torchscript_archive_is_the_export_s_fault(model: Model, climb: Any, tmp_path: Path) -> None:
    fall, walk = climb(write_torchscript(model, tmp_path / "ts", dead_head(2)))
    assert fall is not None
    assert fall.reading.kind == "export"
    assert fall.where == "blocks.2.attn"
    assert any("blocks.2.attn.proj.weight differs in columns 16–31" in note for note in walk.notes)


# The runtime -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "name", "because"),
    [
        (lambda options: options.optimise, "optimisations on", "rightly with its optimisations off"),
        (lambda _: True, "optimisations off", "optimisations off too"),
    ],
    ids=["optimisations", "kernels"],
)
@pytest.mark.parametrize("harm", [shifted, dying], ids=["wrong", "dies"])
@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_a_wrong_runtime_is_at_fault_and_so_are_its_optimisations(
    format: str, harm: Any, wrong: Any, name: str, because: str, model: Model, onnx_file: Artefact,
    climb: Any, tmp_path: Path,
) -> None:  # fmt: skip
    artefact = onnx_file if format == "onnx" else write_torchscript(model, tmp_path / "ts")
    runtime = WrongRuntime(registry.runtimes_for(format)[0], wrong, harm)
    fall, walk = climb(artefact, runtime)
    assert fall is not None
    assert fall.reading.kind == "runtime"
    assert fall.reading.name.endswith(name)
    assert because in fall.because
    assert fall.broke is (harm is dying)
    assert [holds for *_, holds in named(walk)].count(False) == 1
    assert runtime.opened <= 2


def test_a_backend_that_has_no_form_without_optimisations_is_asked_with_them(
    onnx_file: Artefact, climb: Any
) -> None:
    class Stubborn(WrongRuntime):
        def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> Any:
            if not options.optimise:
                raise UsageFailed("it cannot do without its optimisations")
            return super().open(artefact, device, options)

    fall, walk = climb(onnx_file, Stubborn(registry.runtime("onnxruntime"), lambda _: True, shifted))
    assert fall is not None
    assert fall.reading.kind == "runtime"
    assert fall.because == "onnxruntime computes wrongly what holds up to there"
    off, on = walk.readings[-2:]
    assert (off.holds, on.holds) == (None, False)
    assert "cannot do without" in off.note


def test_a_fault_of_one_slot_of_one_batch_is_seen(onnx_file: Artefact, climb: Any, check: ParityCheck) -> None:
    def copied(outputs: dict[str, Any]) -> dict[str, Any]:
        (logits,) = outputs.values()
        if len(logits) == 3:
            logits[2] = logits[1]
        return {"logits": logits}

    runtime = WrongRuntime(registry.runtime("onnxruntime"), lambda _: True, copied)
    fall, walk = climb(onnx_file, runtime, judge=check)
    assert walk.case.batch_size == 3
    assert fall is not None
    assert fall.reading.kind == "runtime"


def test_a_backend_that_computes_in_less_than_declared_is_a_matter_of_precision(
    onnx_file: Artefact, climb: Any
) -> None:
    @dataclass
    class Rounding(WrongRuntime):
        def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> Any:
            session = super().open(artefact, device, options)
            session.facts = replace(session.facts, precision="bf16")
            return session

    fall, _ = climb(onnx_file, Rounding(registry.runtime("onnxruntime"), lambda _: False, shifted))
    assert fall is not None
    assert fall.reading.kind == "precision"
    assert fall.because == "onnxruntime computes in bf16 what is declared as fp32"


# Precision -------------------------------------------------------------------------------------------


def in_half(artefact: Artefact, folder: Path, *, grown: float = 1.0) -> Artefact:
    """The file's arithmetic in fp16 behind casts at its edges; the result may be blown up and back."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    proto = onnx.load(artefact.path)
    graph = proto.graph
    for entry in graph.initializer:
        if entry.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(entry).astype(np.float16)
            entry.CopyFrom(numpy_helper.from_array(values, entry.name))
    del graph.value_info[:]
    source, result = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        node.input[:] = [f"{source}.half" if name == source else name for name in node.input]
        node.output[:] = [f"{result}.half" if name == result else name for name in node.output]
    scale = [
        numpy_helper.from_array(np.array(factor, np.float16), name)
        for name, factor in (("up", grown), ("down", 1 / grown))
    ]
    graph.initializer.extend(scale)
    graph.node.insert(0, helper.make_node("Cast", [source], [f"{source}.half"], to=TensorProto.FLOAT16))
    graph.node.extend(
        [
            helper.make_node("Mul", [f"{result}.half", "up"], [f"{result}.up"]),
            helper.make_node("Mul", [f"{result}.up", "up"], [f"{result}.top"]),
            helper.make_node("Mul", [f"{result}.top", "down"], [f"{result}.less"]),
            helper.make_node("Mul", [f"{result}.less", "down"], [f"{result}.down"]),
            helper.make_node("Cast", [f"{result}.down"], [result], to=TensorProto.FLOAT),
        ]
    )
    path = folder / "half.onnx"
    onnx.save(proto, path)
    return replace(artefact, name="onnx-fp16", precision="fp16", path=path)


def test_an_honest_half_precision_file_holds(onnx_file: Artefact, climb: Any, tmp_path: Path) -> None:
    fall, walk = climb(in_half(onnx_file, tmp_path))
    assert fall is None, fall
    assert any(reading.kind == "precision" and reading.holds for reading in walk.readings)


def test_a_half_precision_file_that_overflows_is_a_matter_of_precision(
    onnx_file: Artefact, climb: Any, tmp_path: Path
) -> None:
    fall, walk = climb(in_half(onnx_file, tmp_path, grown=2.0**14))
    assert fall is not None
    assert fall.reading.kind == "precision"
    assert "without its roundings the file holds" in fall.because
    assert all(reading.holds for reading in walk.readings[:-1])


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
@pytest.mark.parametrize(("dtype", "word"), [(torch.bfloat16, "bf16"), (torch.float16, "fp16")])
def test_weights_that_were_rounded_and_declared_fp32_are_a_matter_of_precision(
    format: str, dtype: torch.dtype, word: str, model: Model, onnx_file: Artefact, climb: Any, tmp_path: Path
) -> None:
    def round_weights(vit: torch.nn.Module) -> None:
        for parameter in vit.parameters():
            parameter.data = parameter.data.to(dtype).float()

    if format == "onnx":
        artefact = damaged_onnx(onnx_file, model, tmp_path, round_weights)
    else:
        artefact = write_torchscript(model, tmp_path, round_weights)
    fall, _ = climb(artefact)
    assert fall is not None
    assert fall.reading.kind == "precision"
    assert f"weights are {word} numbers" in fall.because


def test_a_part_that_computes_in_bf16_behind_casts_is_a_matter_of_precision(
    onnx_file: Artefact, climb: Any, tmp_path: Path
) -> None:
    import onnx
    from onnx import TensorProto, helper

    proto = onnx.load(onnx_file.path)
    place, node = next((i, node) for i, node in enumerate(proto.graph.node) if node.op_type == "Gelu")
    source = node.input[0]
    casts = [
        helper.make_node("Cast", [source], ["low"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["low"], ["high"], to=TensorProto.FLOAT),
    ]
    node.input[0] = "high"
    for cast in reversed(casts):
        proto.graph.node.insert(place, cast)
    onnx.save(proto, tmp_path / "bf16.onnx")
    fall, _ = climb(replace(onnx_file, path=tmp_path / "bf16.onnx"))
    assert fall is not None
    assert fall.reading.kind == "precision"
    assert "less than the fp32" in fall.because


# Files of others, other formats ------------------------------------------------------------------------


def foreign(model: Model, folder: Path, damage: Any = None) -> Artefact:
    """The model as PyTorch's exporter writes it on its own, under its own names of the inside."""
    import onnx_ir as ir

    from vit_deploy.graph.capture import quiet

    spec = model.config.io_spec((), BatchRange(1, 1, 1))
    module = model.loaded(spec)
    if damage is not None:
        damage(module)
    with quiet():
        program = torch.onnx.export(
            module,
            (torch.zeros(spec.inputs[0].at_batch(1)),),
            dynamo=True,
            verbose=False,
            input_names=["pixel_values"],
            output_names=["logits"],
        )
    folder.mkdir(exist_ok=True)
    ir.save(program.model, folder / "theirs.onnx")
    from vit_deploy.protocols import Artefact

    return Artefact("theirs.onnx", "onnx", "fp32", folder / "theirs.onnx", spec, model.config)


def test_a_foreign_file_is_taken_as_it_is(model: Model, climb: Any, tmp_path: Path) -> None:
    fall, walk = climb(foreign(model, tmp_path / "good"))
    assert fall is None
    assert "the graph as this version makes it" not in [name for _, name, _ in named(walk)]
    fall, walk = climb(foreign(model, tmp_path / "bad", dead_head(0)))
    assert fall is not None
    assert fall.reading.kind == "export"
    assert fall.because == "the file does not compute what the model computes"


def test_a_foreign_archive_is_taken_as_it_is(model: Model, climb: Any, tmp_path: Path) -> None:
    from vit_deploy.exporters.torchscript import quiet_deprecation, trace_and_freeze
    from vit_deploy.protocols import Artefact

    spec = model.config.io_spec()
    module: Any = model.loaded(spec)
    dead_head(0)(module)
    with quiet_deprecation():
        torch.jit.save(trace_and_freeze(module, spec), str(tmp_path / "theirs.pt"))
    fall, walk = climb(Artefact("theirs", "torchscript", "fp32", tmp_path / "theirs.pt", spec, model.config))
    assert fall is not None
    assert fall.reading.kind == "export"
    assert [name for _, name, _ in named(walk)][1:] == ["the archive, optimisations off"]


def test_an_operator_that_the_standard_has_not_leaves_it_to_another_backend(
    onnx_file: Artefact, climb: Any, tmp_path: Path
) -> None:
    import onnx

    proto = onnx.load(onnx_file.path)
    for node in proto.graph.node:
        if node.op_type == "Gelu":
            node.domain = "com.microsoft"
            del node.attribute[:]
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(proto, tmp_path / "contrib.onnx")
    fall, walk = climb(replace(onnx_file, path=tmp_path / "contrib.onnx"))
    assert fall is None
    (unread,) = (reading for reading in walk.readings if reading.holds is None and "definition" in reading.name)
    assert "Gelu" in unread.note


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_reference_weights_have_a_ladder_too(
    precision: Any, model: Model, climb: Any, tmp_path: Path
) -> None:
    from vit_deploy.protocols import Artefact

    path = tmp_path / "weights.safetensors"
    with path.open("wb") as file:
        write_safetensors(model.weights, file)
    artefact = Artefact(
        f"pytorch-{precision}", "pytorch", precision, path, model.config.io_spec(), model.config
    )
    fall, walk = climb(artefact)
    assert fall is None
    assert walk.readings[-1].kind == ("precision" if precision == "bf16" else "runtime")
    wrong = WrongRuntime(registry.runtime("eager"), lambda _: True, shifted)
    fall, _ = climb(artefact, wrong)
    assert fall is not None
    assert fall.reading.kind == "runtime"


def test_a_format_without_a_ladder_gets_the_generic_one() -> None:
    assert ladder_of("no_such_format") is generic_ladder
    for format in registry.formats():
        assert callable(ladder_of(format))


class EngineRuntime:
    """Stands for TensorRT on a machine without a GPU: an engine is computed as the ONNX file beside it."""

    name: ClassVar[str] = "tensorrt"

    def __init__(self, own: Path, *, wrong_anew: bool) -> None:
        self.own = own
        self.wrong_anew = wrong_anew

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> Any:
        assert options.optimise, "an engine has no other form"
        anew = artefact.path.with_name("model.onnx")
        path = anew if anew.exists() else self.own
        inner = registry.runtime("onnxruntime")
        session = inner.open(replace(artefact, precision="fp32", path=path), device, options)
        session.facts = replace(session.facts, precision=artefact.precision)
        if anew.exists() and self.wrong_anew:
            run = session._run
            session._run = lambda inputs: shifted(dict(run(inputs)))
        return session


@pytest.mark.parametrize(
    ("precision", "wrong_anew", "kind"),
    [("fp32", False, "export"), ("fp32", True, "runtime"), ("fp16", False, "precision")],
)
@pytest.mark.usefixtures("rtx")
def test_an_engine_is_compared_with_one_built_anew(
    precision: Any, wrong_anew: bool, kind: str, model: Model, onnx_file: Artefact, climb: Any, tmp_path: Path
) -> None:
    damaged = damaged_onnx(onnx_file, model, tmp_path, dead_head(1))
    engine = replace(damaged, format="tensorrt", precision=precision, path=tmp_path / "model.plan")
    fall, walk = climb(engine, EngineRuntime(damaged.path, wrong_anew=wrong_anew))
    assert fall is not None, walk.notes
    assert fall.reading.kind == kind, named(walk)


# Sessions without optimisations --------------------------------------------------------------------------


def test_optimisations_are_really_off(model: Model, onnx_file: Artefact, tmp_path: Path) -> None:
    for optimise, level in ((True, "ORT_ENABLE_ALL"), (False, "ORT_DISABLE_ALL")):
        options = SessionOptions(threads=1, optimise=optimise)
        with registry.runtime("onnxruntime").open(onnx_file, CPU, options) as session:
            assert session.facts.details["graph_optimisation"] == level
    nodes = {}
    archive = write_torchscript(model, tmp_path)
    pixels = {"pixel_values": np.zeros((2, 3, 32, 32), np.float32)}
    for optimise in (True, False):
        options = SessionOptions(threads=1, optimise=optimise)
        with registry.runtime("torchscript").open(archive, CPU, options) as session:
            for _ in range(3):
                session.run(pixels)
        nodes[optimise] = len(list(torch.jit.last_executed_optimized_graph().nodes()))  # type: ignore[attr-defined]
    assert nodes[True] < nodes[False]


def test_an_engine_refuses_to_be_run_without_optimisations(onnx_file: Artefact) -> None:
    with pytest.raises(UsageFailed, match="without TensorRT's optimisations"):
        registry.runtime("tensorrt").open(onnx_file, Device("cuda"), SessionOptions(optimise=False))


def test_the_judgement_and_the_ladder_agree(onnx_file: Artefact, check: ParityCheck) -> None:
    _, verdict = judged(check, onnx_file)
    assert verdict.passed
