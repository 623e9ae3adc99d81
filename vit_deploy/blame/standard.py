"""An ONNX graph computed as the ONNX standard defines it, whatever any runtime makes of it.

That is ONNX's own reference evaluator, operator by operator in numpy
(https://onnx.ai/onnx/api/reference.html). It separates a wrong file from a wrong runtime. On two CPU cores a
ViT-B/16 takes some two seconds for one picture.

In half precision each of the large operators is computed in float32 and its result rounded to the dtype that
the graph says, which is what hardware for it does; numpy itself would take minutes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import HostileInput

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir

    from vit_deploy.protocols import Arrays

_LARGE = 1024
"""Bytes from which on an initializer is handed over beside the graph instead of copied into a message."""

_WIDE_OPERATORS = ("Attention", "Conv", "Gemm", "LayerNormalization", "MatMul", "Softmax")
"""What is computed in float32 where its inputs are in half precision."""

_LATER_OPERATORS, _LATER_OPSET = ("QuantizeLinear", "DequantizeLinear"), 19
"""What the evaluator has from this opset on; on 8-bit whole numbers it meant the same before."""


class NotEvaluated(Exception):
    """The evaluator does not get through a graph.

    Attributes:
        unknown: whether it knows an operator not, which says nothing against the graph.
    """

    def __init__(self, reason: str, *, unknown: bool) -> None:
        super().__init__(reason)
        self.unknown = unknown


def load_graph(path: Path) -> ir.Model:
    """An ONNX file as a graph, its weights where they are.

    Raises:
        HostileInput: when it is none.
    """
    import onnx_ir as ir
    from google.protobuf.message import DecodeError

    try:
        return ir.load(path)
    except (OSError, ValueError, TypeError, AttributeError, DecodeError, ir.serde.SerdeError) as error:
        raise HostileInput(
            f"{path.name!r} is no whole ONNX file", expected="a file as it was exported"
        ) from error


def evaluate(graph: ir.Model, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
    """The outputs of a graph, in its order.

    Args:
        graph: of standard operators; it stays as it is.
        inputs: by name, each of the dtype that the graph declares.

    Raises:
        NotEvaluated: for an operator that the standard does not define, or a graph that does not fit itself.
    """
    import numpy as np
    from onnx.reference import ReferenceEvaluator

    from vit_deploy.graph.stream import skeleton

    copy = graph.clone()
    weights = _set_aside(copy)
    try:
        proto = skeleton(copy, weights_as_inputs=True)
        evaluator = ReferenceEvaluator(proto, new_ops=_own_operators(copy.opset_imports.get("", 0)))
        with np.errstate(all="ignore"):
            feeds = {name: tensor.numpy() for name, tensor in weights.items()}
            return list(evaluator.run(None, {**feeds, **inputs}))
    except NotImplementedError as error:
        raise NotEvaluated(_first_line(error), unknown=True) from error
    except Exception as error:  # whatever numpy stumbles on in a graph that does not fit itself
        raise NotEvaluated(f"{type(error).__name__}: {_first_line(error)}", unknown=False) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _set_aside(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Mark the large initializers, and those in a file of their own, as unread; gives their tensors by name."""
    import onnx_ir as ir

    from vit_deploy.graph.capture import is_unread

    found: dict[str, ir.TensorProtocol] = {}
    declared = set(model.graph.inputs)
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or value in declared:
            continue
        beside = is_unread(tensor) or isinstance(tensor, ir.ExternalTensor)
        if tensor.nbytes < _LARGE and not beside:
            continue
        found[name] = tensor
        if not is_unread(tensor):
            shape = ir.Shape(tensor.shape.numpy())
            value.const_value = ir.LazyTensor(
                partial(_same, tensor), dtype=tensor.dtype, shape=shape, name=name
            )
        value.shape, value.type = tensor.shape, ir.TensorType(tensor.dtype)  # type: ignore[assignment]
    return found


def _same(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return tensor


def _own_operators(opset: int) -> list[type]:
    """Operators in place of the evaluator's: wide ones, and those that it has from a later opset on only."""
    from onnx.reference.op_run import RuntimeContextError
    from onnx.reference.ops._op_list import load_op

    wide = [_later(name) for name in _LATER_OPERATORS] if opset < _LATER_OPSET else []
    for name in _WIDE_OPERATORS:
        try:
            wide.append(_widened(name, load_op("", name, opset)))
        except (NotImplementedError, RuntimeContextError):  # the opset has no such operator
            continue
    return wide


def _later(name: str) -> type:
    from onnx.defs import get_schema
    from onnx.reference.ops._op_list import load_op

    base: Any = load_op("", name, _LATER_OPSET)
    return type(name, (base,), {"op_domain": "", "op_schema": get_schema(name, _LATER_OPSET, "")})


def _widened(name: str, base: Any) -> type:
    """An operator of the evaluator that computes half precision in float32 and rounds the result."""
    import numpy as np

    def run(self: Any, *arrays: Any, **attributes: Any) -> Any:
        halves = [array.dtype for array in arrays if _is_half(array)]
        if not halves:
            return base._run(self, *arrays, **attributes)
        raised = [array.astype(np.float32) if _is_half(array) else array for array in arrays]
        results = base._run(self, *raised, **attributes)
        return tuple(
            result.astype(halves[0]) if getattr(result, "dtype", None) == np.float32 else result
            for result in results
        )

    return type(name, (base,), {"op_domain": "", "_run": run})


def _is_half(array: Any) -> bool:
    return getattr(array, "dtype", None) is not None and array.dtype.name in ("float16", "bfloat16")
