"""Quantised graphs: what is chosen, what is written, and that three backends read it alike."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from vit_deploy import registry
from vit_deploy.assets import digits_directory, outliers_directory
from vit_deploy.bundle import Bundle
from vit_deploy.deploy.export import export_model
from vit_deploy.errors import UsageFailed
from vit_deploy.exporters.onnx import build_graph
from vit_deploy.facts import Device
from vit_deploy.graph.options import OnnxOptions
from vit_deploy.graph.precision import lower_precision
from vit_deploy.protocols import SessionOptions, Silent
from vit_deploy.quantisation import bias
from vit_deploy.quantisation.places import FIRST, LAST, find_places, wide_places
from vit_deploy.quantisation.smooth import smooth
from vit_deploy.quantisation.weights import LEVELS, QuantisedWeight
from vit_deploy.weights import load_model

FEW = {"calibration_images": 16}


@pytest.fixture(scope="module")
def digits():
    return load_model(str(digits_directory()))


@pytest.fixture
def graph(small_model):
    return build_graph(small_model, small_model.config.io_spec(), 23)


def lowered(model, precision="int8", **options):
    spec = model.config.io_spec()
    graph = build_graph(model, spec, 23)
    found = lower_precision(graph, model, spec, precision, OnnxOptions(**{**FEW, **options}), Silent())
    return graph, found.facts["quantisation"]


def test_every_product_with_a_weight_is_a_place_named_as_its_layer(graph, small_model):
    places = find_places(graph)
    depth = small_model.vit_config.depth
    inside = {
        f"blocks.{block}.{layer}"
        for block in range(depth)
        for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    assert inside <= {place.name for place in places}
    assert {place.name for place in places} - inside == {"patch_embed.proj", "head"}
    assert all(place.bias for place in places if place.name in inside)


def test_the_first_and_the_last_stay_wide_and_so_does_what_is_asked_for(graph):
    places = find_places(graph)
    wide = wide_places(graph, places, "blocks.1.mlp")
    assert wide["patch_embed.proj"] == FIRST
    assert wide["head"] == LAST
    assert {name for name in wide if name.startswith("blocks")} == {"blocks.1.mlp.fc1", "blocks.1.mlp.fc2"}
    with pytest.raises(UsageFailed, match=r"blocks\.9"):
        wide_places(graph, places, "blocks.9")


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_weight_is_within_half_a_step_of_its_codes(kind):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 5, generator=generator) * torch.logspace(-3, 3, 5)
    plain = QuantisedWeight(lambda: weight, axis=1, inner=0, kind=kind, search=False)
    assert plain.scales().shape == (5,)
    assert torch.allclose(plain.scales() * LEVELS[kind], weight.abs().amax(0))
    error = (plain.dequantised() - weight).abs()
    limit = plain.scales() / 2 if kind == "int8" else weight.abs() * 2**-4 + plain.scales() * 2**-10
    assert (error <= limit * 1.0001).all()
    searched = QuantisedWeight(lambda: weight, axis=1, inner=0, kind=kind)
    assert ((searched.dequantised() - weight) ** 2).sum() <= (error**2).sum() * 1.0001


def test_what_counts_more_is_rounded_better():
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(64, 3, generator=generator)
    weight[0] = 6.0
    power = torch.ones(64)
    power[0] = 1e-6
    told = QuantisedWeight(lambda: weight, axis=1, inner=0, kind="int8", power=power)
    untold = QuantisedWeight(lambda: weight, axis=1, inner=0, kind="int8")

    def rest(found):
        return ((found.dequantised() - weight)[1:] ** 2).sum()

    assert rest(told) < rest(untold)


def test_smoothing_changes_no_output(graph, small_model, tmp_path):
    from vit_deploy.graph.stream import write_model

    places = [place for place in find_places(graph) if place.operator != "Conv"]
    generator = np.random.default_rng(0)
    spec = small_model.config.io_spec()
    (entry,) = spec.inputs
    pixels = generator.standard_normal(entry.at_batch(2)).astype(np.float32)

    def run(name):
        import onnxruntime

        write_model(graph, tmp_path / name)
        session = onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"])
        return session.run(None, {entry.name: pixels})[0]

    before = run("before.onnx")
    widths = {place.source: value.shape[-1] for place in places for value in values_of(graph, place.source)}
    largest = {name: generator.uniform(0.1, 50.0, width) for name, width in widths.items()}
    counted = smooth(graph, places, largest, 0.5)
    depth = small_model.vit_config.depth
    assert counted["LayerNormalization"] >= 2 * depth
    assert np.allclose(run("after.onnx"), before, rtol=1e-4, atol=1e-5)
    assert smooth(graph, places, largest, 0.0) == {}


def values_of(graph, name):
    return [value for node in graph.graph for value in node.outputs if value.name == name]


def test_a_quantised_graph_is_symmetric_per_channel_and_has_no_int32(small_model, tmp_path):
    outcome = export_model(small_model, tmp_path / "b", ["onnx"], precision="int8", options=FEW, verify=False)[
        0
    ]
    assert outcome.error is None
    told = outcome.record.facts["quantisation"]
    proto = onnx.load(Bundle.open(tmp_path / "b").artefact("onnx-int8").path)
    numbers = {entry.name: onnx.numpy_helper.to_array(entry) for entry in proto.graph.initializer}
    counted = [node.op_type for node in proto.graph.node]
    assert counted.count("QuantizeLinear") == told["quantised"] == 4 * small_model.vit_config.depth
    assert counted.count("DequantizeLinear") == 2 * told["quantised"]
    assert all(array.dtype != np.int32 for array in numbers.values())
    zero_points = [node.input[2] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert {(numbers[name].dtype.name, int(numbers[name])) for name in zero_points} == {("int8", 0)}
    per_channel = [
        node for node in proto.graph.node if node.op_type == "DequantizeLinear" and len(node.input) == 2
    ]
    assert len(per_channel) == told["quantised"]
    for node in per_channel:
        codes, scales = numbers[node.input[0]], numbers[node.input[1]]
        axis = next(entry.i for entry in node.attribute if entry.name == "axis")
        assert codes.dtype == np.int8
        assert codes.min() >= -127
        assert scales.shape == (codes.shape[axis],)


def test_the_same_pictures_give_the_same_bytes(small_model, tmp_path):
    for name in ("a", "b"):
        export_model(small_model, tmp_path / name, ["onnx"], precision="int8", options=FEW, verify=False)
    first, second = (Bundle.open(tmp_path / name).records["onnx-int8"].files for name in ("a", "b"))
    assert [entry.sha256 for entry in first] == [entry.sha256 for entry in second]


def test_one_graph_passes_in_onnx_runtime_and_openvino(digits, tmp_path):
    (outcome,) = export_model(digits, tmp_path / "b", ["onnx"], precision="int8", options=FEW)
    assert outcome.error is None, outcome.error
    assert outcome.verdict.passed, outcome.verdict.reason
    artefact = Bundle.open(tmp_path / "b").artefact("onnx-int8")
    generator = np.random.default_rng(1)
    pixels = {
        entry.name: generator.standard_normal(entry.at_batch(3)).astype(np.float32)
        for entry in artefact.spec.inputs
    }
    found = []
    for name in ("onnxruntime", "openvino"):
        with registry.runtime(name).open(artefact, Device("cpu"), SessionOptions(threads=1)) as session:
            found.append(session.run(pixels)["logits"])
    assert np.abs(found[0] - found[1]).max() < 0.1 * np.abs(found[0]).max()


def test_tensorrt_builds_the_same_graph(small_model, tmp_path, rtx):
    outcomes = export_model(
        small_model, tmp_path / "b", ["onnx", "tensorrt"], precision="int8", options=FEW, verify=False
    )
    assert [outcome.error for outcome in outcomes] == [None, None]


def test_fp8_is_written_and_counted(small_model, tmp_path):
    export_model(small_model, tmp_path / "b", ["onnx"], precision="fp8", options=FEW, verify=False)
    proto = onnx.load(Bundle.open(tmp_path / "b").artefact("onnx-fp8").path)
    kinds = {entry.data_type for entry in proto.graph.initializer}
    assert onnx.TensorProto.FLOAT8E4M3FN in kinds
    assert onnx.TensorProto.INT8 not in kinds


def test_a_massive_token_does_not_spoil_the_correction_of_the_others():
    values = torch.randn(200, 8, generator=torch.Generator().manual_seed(3))
    values[0] *= 1e4
    ordinary = bias._ordinary(values)
    assert not ordinary[0]
    assert ordinary[1:].all()
    found = bias._moments(bias._sums(values, 1e4 / 127, "int8"))
    assert torch.allclose(found.mean, values[1:].mean(0), atol=1e-5)
    assert (found.power > 1e3).all()  # what a weight's error counts is of all tokens


def test_the_model_with_outliers_keeps_its_decisions(tmp_path):
    model = load_model(str(outliers_directory()))
    (outcome,) = export_model(
        model, tmp_path / "b", ["onnx"], precision="int8", options={"calibration_images": 64}
    )
    assert outcome.verdict.passed, outcome.verdict.reason


def test_a_budget_that_holds_keeps_nothing_more(digits):
    _, facts = lowered(digits, max_drop=50.0)
    assert facts["budget"]["kept"] == [name for name, why in facts["kept_fp32"].items() if why in (FIRST, LAST)]
    with pytest.raises(UsageFailed, match="--max-drop"):
        lowered(digits, max_drop=-1.0)


def test_what_makes_no_sense_is_refused(small_model):
    with pytest.raises(UsageFailed, match="--io-dtype"):
        lowered(small_model, io_dtype="float16")
    with pytest.raises(UsageFailed, match="--smooth-quant"):
        lowered(small_model, smooth_quant=1.5)
    with pytest.raises(UsageFailed, match="no layer is left"):
        lowered(small_model, keep_fp32="blocks")


def test_tensorrt_builds_fp8_as_well(small_model, tmp_path, rtx):
    outcomes = export_model(
        small_model, tmp_path / "b", ["onnx", "tensorrt"], precision="fp8", options=FEW, verify=False
    )
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert outcomes[1].record.facts["dtypes"]["linear"]["fp8"] == 4 * small_model.vit_config.depth


def test_other_ranges_take_no_second_look_at_the_pictures(small_model, tmp_path, monkeypatch):
    from vit_deploy.quantisation import cache

    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path))
    looks, real = [], cache.observe
    monkeypatch.setattr(cache, "observe", lambda *given, **named: looks.append(1) or real(*given, **named))
    lowered(small_model, ranges="mse")
    assert len(looks) == 2  # the channels, and the ranges once they are smoothed
    lowered(small_model, ranges="minmax")
    assert len(looks) == 2
    lowered(small_model, smooth_quant=0.3)
    assert len(looks) == 3
