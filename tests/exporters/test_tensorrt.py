"""Real engines, built by TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from vit_deploy.errors import ExportFailed, OutputFailed, RunFailed
from vit_deploy.exporters import onnx as onnx_exporter
from vit_deploy.exporters.tensorrt import EXPORTER, TensorRTOptions
from vit_deploy.graph.half import with_io_dtype
from vit_deploy.model.config import ViTConfig
from vit_deploy.protocols import Artefact, Silent
from vit_deploy.spec import BatchRange
from vit_deploy.tensorrt_flavours import check_plan
from vit_deploy.weights.random import random_model

needs_rtx = pytest.mark.usefixtures("rtx")
RTX = TensorRTOptions(flavour="rtx")
BATCH = BatchRange(1, 2, 4)


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
    spec = with_io_dtype(artefact.spec, "float16")
    return replace(artefact, name="onnx-fp16", precision="fp16", path=folder / "half.onnx", spec=spec)


@needs_rtx
def test_engine_and_its_facts(source, tmp_path, capfd, export):
    exported = export(source, tmp_path)
    facts = exported.facts
    assert exported.files == ("model.plan",)
    assert facts["attention"] == {"layers": source.config.depth, "decomposable": source.config.depth}
    assert facts["layers"]["NORMALIZATION"] == 2 * source.config.depth + 1
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
def test_several_outputs(tmp_path, onnx_artefact, export):
    facts = export(onnx_artefact(tmp_path / "onnx", outputs=("tokens", "logits")), tmp_path).facts
    assert facts["outputs"]["tokens"] == {"dtype": "FLOAT", "shape": [-1, 25, 64]}
    assert sorted(facts["outputs"]) == ["logits", "tokens"]


@needs_rtx
def test_outputs_that_the_graph_does_not_have(source, tmp_path, export):
    other = replace(source, spec=source.config.io_spec(("embedding",), BATCH))
    with pytest.raises(ExportFailed, match="has the outputs logits") as caught:
        export(other, tmp_path)
    assert caught.value.expected == "embedding"


@needs_rtx
def test_fp16_attention_is_fused(source, tmp_path, export):
    facts = export(in_half(source, tmp_path), tmp_path).facts
    assert facts["attention"] == {"layers": source.config.depth, "decomposable": 0}
    assert facts["precision"] == "fp16"
    assert "FLOAT" not in facts["tensors"]


@needs_rtx
def test_precision_other_than_declared_is_refused(source, tmp_path, export):
    with pytest.raises(ExportFailed, match="arithmetic of the parsed network is fp32") as caught:
        export(replace(source, precision="fp16"), tmp_path)
    assert "fp16" in caught.value.expected


@needs_rtx
@pytest.mark.parametrize("opset", [17, 22])
def test_graphs_that_spell_attention_out(wide_model, onnx_artefact, export, tmp_path, opset):
    facts = export(onnx_artefact(tmp_path / "onnx", opset), tmp_path).facts
    assert facts["attention"] == {"layers": 0, "decomposable": 0}
    assert facts["layers"]["SOFTMAX"] == wide_model.config.depth


@needs_rtx
def test_two_builds_are_byte_equal_and_external_data_is_found(source, tmp_path, onnx_artefact, export):
    beside = onnx_artefact(tmp_path / "mit Leerzeichen ü", external=True)
    export(source, tmp_path / "one")
    export(beside, tmp_path / "two")
    one, two = ((tmp_path / name / "model.plan").read_bytes() for name in ("one", "two"))
    assert one == two


@needs_rtx
def test_plan_holds_no_path_of_this_machine(source, tmp_path, export):
    export(source, tmp_path)
    plan = (tmp_path / "model.plan").read_bytes()
    for path in (source.path.parent, tmp_path, Path(__file__).parents[2], Path(torch.__file__).parent):
        assert str(path).encode() not in plan


@needs_rtx
def test_fixed_batch(tmp_path, onnx_artefact, export):
    fixed = BatchRange(2, 2, 2)
    facts = export(onnx_artefact(tmp_path / "onnx", batch=fixed), tmp_path, batch=fixed).facts
    assert facts["profile"]["pixel_values"] == [[2, 3, 32, 48]] * 3


@needs_rtx
def test_a_fixed_graph_cannot_be_freed(tmp_path, onnx_artefact, export):
    fixed = onnx_artefact(tmp_path / "onnx", batch=BatchRange(2, 2, 2))
    with pytest.raises(ExportFailed, match=r"'pixel_values' has shape \[2, 3, 32, 48\]"):
        export(fixed, tmp_path)


@needs_rtx
def test_the_parsers_own_words_are_in_the_error(source, tmp_path, export):
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
def test_a_file_that_is_no_onnx_is_refused(source, tmp_path, content, export):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ExportFailed):
        export(replace(source, path=tmp_path / "broken.onnx"), tmp_path)


@needs_rtx
def test_a_folder_that_cannot_be_written(source, tmp_path, wide_model):
    with pytest.raises(OutputFailed, match="cannot be written"):
        EXPORTER.export(wide_model, source.spec, RTX, tmp_path / "is not there", Silent(), source)


@pytest.mark.slow
@needs_rtx
def test_vit_b_16_has_twelve_attention_layers(tmp_path):
    config = ViTConfig()
    spec = config.io_spec(("logits",), BATCH)
    model = random_model(config, "vit_base", seed=1)
    files = onnx_exporter.EXPORTER.export(model, spec, onnx_exporter.OnnxOptions(), tmp_path, Silent()).files
    source = Artefact("onnx-fp32", "onnx", "fp32", tmp_path / files[0], spec, config)
    facts = EXPORTER.export(model, spec, RTX, tmp_path, Silent(), source).facts
    assert facts["attention"] == {"layers": 12, "decomposable": 12}


def test_without_an_onnx_artefact(tmp_path, export):
    with pytest.raises(ExportFailed, match="built from an ONNX artefact"):
        export(None, tmp_path)
    assert EXPORTER.needs == "onnx"


@needs_rtx
def test_a_wrong_plan_is_refused_before_tensorrt_reads_it(source, tmp_path, monkeypatch, export):
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
