"""A weight that is only ever used transposed is stored transposed.

``nn.Linear`` holds its matrix as ``(out, in)`` and ONNX's ``MatMul`` wants ``(in, out)``: the
exporter leaves a ``Transpose`` before each. Done when the weight is written, it costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.graph.capture import is_unread

if TYPE_CHECKING:
    import onnx_ir as ir


def transpose_weights(model: ir.Model) -> int:
    """Replace each ``Transpose`` of a weight by the transposed weight; returns how many."""
    count = 0
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or source.const_value is None or not is_unread(source.const_value):
            continue
        _replace(model, node, source)
        count += 1
    return count


def _replace(model: ir.Model, node: ir.Node, source: ir.Value) -> None:
    import onnx_ir as ir
    import torch

    tensor = source.const_value
    if tensor is None:
        return
    rank = len(tensor.shape)
    order = node.attributes.get_ints("perm", tuple(reversed(range(rank))))
    name = f"{source.name}.transposed"

    def read() -> ir.TensorProtocol:
        # PyTorch's copy uses every core; numpy's is several times slower.
        values = torch.from_numpy(tensor.numpy()).permute(*order).contiguous()
        return ir.tensor(values.numpy(), name=name)

    sizes = tensor.shape.numpy()
    shape = ir.Shape([sizes[axis] for axis in order])
    lazy = ir.LazyTensor(read, dtype=tensor.dtype, shape=shape, name=name)
    value = model.graph.initializers.get(name)
    if value is None:
        value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=lazy)
        model.graph.register_initializer(value)
    ir.convenience.replace_all_uses_with(node.outputs[0], value)
    model.graph.remove(node, safe=True)
    if not source.uses():
        del model.graph.initializers[source.name or ""]
