"""Each library computes the products that it was asked for, all of them, on operands of their own."""

from __future__ import annotations

import importlib.util
from itertools import pairwise

import numpy as np
import onnx
import pytest

from vit_deploy.bench.ceiling import operands
from vit_deploy.bench.ceiling.operands import Noise, Wanted, activation, numpy_dtype
from vit_deploy.bench.ceiling.providers import NAMES, _onnx, able, provider
from vit_deploy.errors import RunFailed
from vit_deploy.facts import Device
from vit_deploy.model.counts import Gemm, gemm_shapes

GEMMS = (
    Gemm("patches", 6, 12, 16),
    Gemm("qkv", 7, 16, 48, times=3),
    Gemm("scores", 7, 8, 7, batch=2, times=3, weights=False),
    Gemm("values", 7, 7, 8, batch=2, times=3, weights=False),
    Gemm("head", 1, 16, 5),
)
CPU = Device("cpu")


def opened(name, precision, gemms=GEMMS):
    library = provider(name)
    if importlib.util.find_spec(library.NAME) is None:
        pytest.skip(f"{name} is not installed: pip install 'vit-deploy[cpu,openvino]'")
    return library.open_products(Wanted(gemms, precision, CPU, 1))


@pytest.mark.parametrize(
    ("name", "precision"), [(name, p) for name in NAMES for p in sorted(provider(name).COMPUTES["cpu"])]
)
def test_every_library_computes_in_every_precision_that_it_names(name, precision):
    try:
        step, version = opened(name, precision)
    except RunFailed as error:
        # A processor without the instructions: OpenVINO must say so, not compute in something else.
        if (name, precision) not in (("openvino", "bf16"), ("openvino", "fp16")):
            raise
        pytest.skip(f"this processor has no instructions for {precision}: {error}")
    step()
    step.synchronize()
    assert version


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_what_arrays_are_multiplied_is_every_product_on_weights_of_their_own(name):
    step, _ = opened(name, "fp32")
    step()
    assert len(step.runs) == sum(gemm.times for gemm in GEMMS)
    shapes = [(gemm, index) for gemm in GEMMS for index in range(gemm.times)]
    for (gemm, _), (left, right, result) in zip(shapes, step.runs, strict=True):
        batch = () if gemm.weights else (gemm.batch,)
        assert tuple(left.shape) == (*batch, gemm.m, gemm.k)
        assert tuple(right.shape) == (*batch, gemm.k, gemm.n)
        assert tuple(result.shape) == (*batch, gemm.m, gemm.n)
    left, right, result = (np.asarray(value) for value in step.runs[-1])
    np.testing.assert_allclose(result, left @ right, rtol=1e-4, atol=1e-5)
    weights = [np.asarray(step.runs[index][1]) for index in (1, 2, 3)]
    assert not any(np.shares_memory(one, other) for one, other in pairwise(weights))
    assert not any(np.array_equal(one, other) for one, other in pairwise(weights))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
def test_the_graphs_hold_every_product(tmp_path, precision):
    """Counted in the graphs themselves, by their inferred shapes."""
    gemms = gemm_shapes(_config(), batch_size=2)
    total = 0
    for gemm, path in _onnx.write_graphs(gemms, precision, tmp_path):
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(str(path))
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*inferred.graph.value_info, *inferred.graph.input)
        }
        shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "MatMul":
                inner, result = shapes[node.input[0]][-1], shapes[node.output[0]]
                total += 2 * inner * int(np.prod(result)) * _onnx.runs_of(gemm)
    assert total == sum(gemm.flops for gemm in gemms)


def _config():
    from vit_deploy.model.config import ViTConfig

    return ViTConfig(
        image_size=(16, 24), patch_size=8, embed_dim=32, depth=3, num_heads=4, mlp_dim=40, num_classes=5
    )


def test_a_graph_multiplies_by_the_weights_that_lie_in_the_block(tmp_path):
    pytest.importorskip("onnxruntime", reason="pip install 'vit-deploy[cpu]'")
    import onnxruntime as ort

    noise, place = Noise.for_gemms(GEMMS, np.dtype("float32")), 0
    for gemm, path in _onnx.write_graphs(GEMMS, "fp32", tmp_path):
        inputs = _onnx.inputs_of(gemm, "fp32")
        (kept,) = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, inputs)
        if gemm.weights:
            products = [inputs["a"] @ noise.weight(place + index, gemm) for index in range(gemm.times)]
            place += gemm.times
            assert len({float(product[0, 0]) for product in products}) == gemm.times
            np.testing.assert_allclose(kept.ravel(), [product[0, 0] for product in products], rtol=1e-4)
        else:
            np.testing.assert_allclose(kept.ravel(), (inputs["a"] @ inputs["b"])[0, 0, 0], rtol=1e-4)


def test_weights_of_8_bits_do_not_overlap_in_the_file(tmp_path):
    places = []
    for _, path in _onnx.write_graphs(GEMMS, "int8", tmp_path):
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            told = {entry.key: entry.value for entry in tensor.external_data}
            if told:
                places.append((int(told["offset"]), int(told["offset"]) + int(told["length"])))
    assert len(places) == sum(gemm.times for gemm in GEMMS if gemm.weights)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(places))
    assert all(begin % operands.STRIDE_BYTES == 0 for begin, _ in places)
    assert (tmp_path / _onnx.BLOCK).stat().st_size >= places[-1][1]


def test_attention_stays_in_floating_point_beside_8_bits():
    scores = next(gemm for gemm in GEMMS if gemm.name == "scores")
    assert {array.dtype.name for array in _onnx.inputs_of(scores, "int8").values()} == {"float32"}
    assert _onnx.inputs_of(GEMMS[0], "int8")["a"].dtype == np.int8


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
def test_noise_has_no_zeros_to_speak_of_and_nothing_that_is_no_number(precision):
    dtype = numpy_dtype(precision)
    for values in (Noise.for_gemms(GEMMS, dtype).block, activation((50, 40), dtype)):
        assert values.dtype == dtype
        plain = values.astype(np.float64)
        assert np.isfinite(plain).all()
        assert (plain == 0).mean() < 0.02
        assert plain.std() > 0.01


def test_which_libraries_multiply_in_a_precision():
    assert able("fp32", CPU) == list(NAMES)
    assert "numpy" not in able("bf16", CPU)
    assert able("fp8", CPU) == []
    assert able("fp16", Device("cuda")) == ["torch"]
    assert able("int8", Device("cuda")) == []


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_torch_multiplies_on_a_gpu(precision):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: run on a machine with an NVIDIA GPU and a CUDA build of torch")
    step, _ = provider("torch").open_products(Wanted(GEMMS, precision, Device("cuda"), 1))
    step()
    step.synchronize()
    left, right, result = step.runs[-1]
    assert torch.allclose(result.double(), left.double() @ right.double(), rtol=1e-2, atol=1e-2)
    assert not torch.backends.cuda.matmul.allow_tf32
