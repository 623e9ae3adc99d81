"""Weights in half precision: rounded when they are written, one at a time.

Rounding is to nearest, ties to even (IEEE 754), as PyTorch's ``tensor.half()`` and ``tensor.bfloat16()`` do it:
an artefact's weights are those of eager PyTorch at the same precision, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ExportFailed
from vit_deploy.graph.half_layers import is_weight, layer_of_weight

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch
    from numpy.typing import NDArray


def in_half(value: ir.Value, half: ir.DataType) -> ir.TensorProtocol:
    """The tensor of an initializer in half precision; that of a weight is read when it is written.

    Reading it raises :class:`ExportFailed` where a finite number is beyond the dtype's range.
    """
    import onnx_ir as ir

    tensor, name = value.const_value, value.name or ""
    if tensor is None:
        raise ValueError(f"{name} is no initializer")

    def read() -> ir.TensorProtocol:
        return ir.tensor(_rounded(tensor.numpy(), half, name), dtype=half, name=name)

    if not is_weight(value):
        return read()
    return ir.LazyTensor(read, dtype=half, shape=tensor.shape, name=name)  # type: ignore[arg-type]


def times(value: ir.Value, factor: float) -> ir.LazyTensor:
    """A weight times a factor, multiplied when it is read."""
    import onnx_ir as ir

    tensor, name = value.const_value, value.name
    if tensor is None:
        raise ValueError(f"{name} is no initializer")
    return ir.LazyTensor(
        lambda: ir.tensor(tensor.numpy() * tensor.numpy().dtype.type(factor), name=name),
        dtype=tensor.dtype,
        shape=tensor.shape,  # type: ignore[arg-type]
        name=name,
    )


def _rounded(array: NDArray[Any], half: ir.DataType, name: str) -> NDArray[Any]:
    """An array of float32 in another dtype.

    Raises:
        ExportFailed: for a number that becomes infinite.
    """
    import ml_dtypes
    import numpy as np
    import torch

    # PyTorch rounds on every core, and its tensors want memory that may be written to.
    exact = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if half.name == "BFLOAT16":
        rounded = exact.bfloat16()
        result: NDArray[Any] = rounded.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    else:
        rounded = exact.half()
        result = rounded.numpy()
    _refuse_overflow(exact, rounded, half, name)
    return result.reshape(array.shape)


def _refuse_overflow(exact: torch.Tensor, rounded: torch.Tensor, half: ir.DataType, name: str) -> None:
    import torch

    beyond = int((rounded.isinf() & ~exact.isinf()).sum())
    if beyond:
        layer = layer_of_weight(name)
        raise ExportFailed(
            f"{beyond} numbers of the weight {name!r} are beyond {half.name.lower()}: the largest is "
            f"{float(exact.abs().max()):.6g}",
            expected=f"weights within ±{torch.finfo(rounded.dtype).max:.6g}",
            next_command=f"add --keep-fp32 {layer}, or export with --dtype bf16",
        )
