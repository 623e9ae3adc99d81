"""Small constants of a graph, as initializers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def constant(model: ir.Model, name: str, value: object, dtype: str) -> ir.Value:
    """A small initializer, made once for each name."""
    import numpy as np
    import onnx_ir as ir

    if name not in model.graph.initializers:
        tensor = ir.tensor(np.asarray(value, dtype=dtype), name=name)
        made = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)  # type: ignore[arg-type]
        model.graph.register_initializer(made)
    return model.graph.initializers[name]
