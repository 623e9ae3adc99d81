"""A file that is not what it should be is the export's fault, and so are files of others' making."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch

from tests.blame.conftest import damaged_onnx, dead_head, write_torchscript
from tests.blame.stages.conftest import WrongRuntime, named, shifted
from vit_deploy import registry
from vit_deploy.blame.ladders import ladder_of
from vit_deploy.blame.stages import generic_ladder
from vit_deploy.facts import Device
from vit_deploy.parity import ParityCheck
from vit_deploy.protocols import SessionOptions
from vit_deploy.spec import BatchRange
from vit_deploy.weights.tensors import write_safetensors

if TYPE_CHECKING:
    from vit_deploy.protocols import Artefact
    from vit_deploy.weights.imported import Model


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
