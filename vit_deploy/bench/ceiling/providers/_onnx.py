"""Matrix products as ONNX graphs, for the libraries that run those.

A graph holds the products of one shape. Where they multiply by weights, each of them has its own. Floating
ones lie in one file beside the graph and overlap there: both libraries pack them into memory of their own
when they open the graph, so that what is read in an inference is distinct. Those of 8 bits ONNX Runtime
reads where they lie, so they lie side by side. Of each result one number is kept, so that nothing is left
out as unused and no result needs memory beyond the next product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.bench.ceiling.operands import STRIDE_BYTES, Noise, activation, count_weights, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import onnx

    from vit_deploy.model.counts import Gemm
    from vit_deploy.spec import Precision

OPSET = 21
BLOCK = "block.bin"
KEPT = "kept"


def write_graphs(gemms: Sequence[Gemm], precision: Precision, folder: Path) -> Iterator[tuple[Gemm, Path]]:
    """Write the graphs of ``gemms``, one after the other, into ``folder``.

    Yields:
        Each entry of ``gemms`` and its file, whose inputs are :func:`inputs_of` it.
    """
    import onnx

    dtype = numpy_dtype(precision)
    offsets = _write_block(gemms, dtype, folder / BLOCK)
    for index, gemm in enumerate(gemms):
        graph = _with_weights(gemm, dtype, offsets) if gemm.weights else _of_activations(gemm, precision)
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10
        )
        path = folder / f"{index}.onnx"
        path.write_bytes(model.SerializeToString())
        yield gemm, path


def _write_block(gemms: Sequence[Gemm], dtype: np.dtype[Any], path: Path) -> Iterator[int]:
    """Write the weights of ``gemms``; where each of them begins, in order."""
    noise = Noise.for_gemms(gemms, dtype)
    if dtype.itemsize > 1:
        path.write_bytes(noise.block.tobytes())
        return iter(range(0, count_weights(gemms) * STRIDE_BYTES, STRIDE_BYTES))
    offsets: list[int] = []
    with path.open("wb") as file:
        for gemm in gemms:
            for _ in range(gemm.times if gemm.weights else 0):
                file.seek(-(-file.tell() // STRIDE_BYTES) * STRIDE_BYTES)
                offsets.append(file.tell())
                file.write(noise.weight(len(offsets) - 1, gemm).tobytes())
    return iter(offsets)


def runs_of(gemm: Gemm) -> int:
    """How often the graph of ``gemm`` is run in an inference: one without weights holds a single product."""
    return 1 if gemm.weights else gemm.times


def inputs_of(gemm: Gemm, precision: Precision) -> dict[str, np.ndarray[Any, Any]]:
    """The inputs of the graph of ``gemm``: ``a``, and ``b`` where that is no weight."""
    if gemm.weights:
        return {"a": activation((gemm.m, gemm.k), numpy_dtype(precision))}
    dtype = numpy_dtype(activation_precision(precision))
    return {
        "a": activation((gemm.batch, gemm.m, gemm.k), dtype),
        "b": activation((gemm.batch, gemm.k, gemm.n), dtype),
    }


def activation_precision(precision: Precision) -> Precision:
    """What products of two activations are computed in: those of attention stay in fp32 beside int8 weights."""
    return "fp32" if precision == "int8" else precision


def _with_weights(gemm: Gemm, dtype: np.dtype[Any], offsets: Iterator[int]) -> onnx.GraphProto:
    import onnx

    element = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    weights = [_stored(f"w{index}", gemm, element, next(offsets)) for index in range(gemm.times)]
    quantised = dtype == numpy_dtype("int8")
    multiply = _quantised_product if quantised else _product
    nodes: list[onnx.NodeProto] = []
    for index in range(gemm.times):
        nodes += multiply(f"w{index}", f"y{index}")
        nodes += [_first_of(f"y{index}", f"s{index}")]
    kept = [f"s{index}" for index in range(gemm.times)]
    nodes += [onnx.helper.make_node("Concat", kept, [KEPT], axis=0)]
    return onnx.helper.make_graph(
        nodes,
        "products",
        [onnx.helper.make_tensor_value_info("a", element, (gemm.m, gemm.k))],
        [onnx.helper.make_tensor_value_info(KEPT, element, (gemm.times, 1))],
        [*weights, *_corner(2), *(_scales() if quantised else [])],
    )


def _of_activations(gemm: Gemm, precision: Precision) -> onnx.GraphProto:
    import onnx

    element = onnx.helper.np_dtype_to_tensor_dtype(numpy_dtype(activation_precision(precision)))
    shapes = {"a": (gemm.batch, gemm.m, gemm.k), "b": (gemm.batch, gemm.k, gemm.n)}
    return onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["a", "b"], ["y"]), _first_of("y", KEPT)],
        "products",
        [onnx.helper.make_tensor_value_info(name, element, shape) for name, shape in shapes.items()],
        [onnx.helper.make_tensor_value_info(KEPT, element, (1, 1, 1))],
        _corner(3),
    )


def _product(weight: str, result: str) -> list[onnx.NodeProto]:
    import onnx

    return [onnx.helper.make_node("MatMul", ["a", weight], [result])]


def _quantised_product(weight: str, result: str) -> list[onnx.NodeProto]:
    """In the form that quantisers write, and that both libraries make one product in 8 bits of."""
    import onnx

    node = onnx.helper.make_node
    return [
        node("DequantizeLinear", ["a", "scale", "zero"], [f"{result}_a"]),
        node("DequantizeLinear", [weight, "scale", "zero"], [f"{result}_b"]),
        node("MatMul", [f"{result}_a", f"{result}_b"], [f"{result}_f"]),
        node("QuantizeLinear", [f"{result}_f", "scale", "zero"], [result]),
    ]


def _scales() -> list[onnx.TensorProto]:
    import numpy as np
    import onnx

    return [
        onnx.numpy_helper.from_array(np.array(0.01, np.float32), "scale"),
        onnx.numpy_helper.from_array(np.array(0, np.int8), "zero"),
    ]


def _first_of(name: str, result: str) -> onnx.NodeProto:
    import onnx

    return onnx.helper.make_node("Slice", [name, "zeros", "ones", "axes"], [result])


def _corner(rank: int) -> list[onnx.TensorProto]:
    """What the first element of a tensor is cut out by."""
    import numpy as np
    import onnx

    values = {"zeros": [0] * rank, "ones": [1] * rank, "axes": list(range(rank))}
    return [onnx.numpy_helper.from_array(np.array(value, np.int64), name) for name, value in values.items()]


def _stored(name: str, gemm: Gemm, element: int, offset: int) -> onnx.TensorProto:
    """A weight that lies in the block."""
    import onnx

    tensor = onnx.TensorProto(name=name, data_type=element, dims=(gemm.k, gemm.n))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    width = onnx.helper.tensor_dtype_to_np_dtype(element).itemsize
    told = {"location": BLOCK, "offset": offset, "length": gemm.k * gemm.n * width}
    for key, value in told.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor
