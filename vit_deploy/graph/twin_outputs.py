"""Outputs that are one and the same value: each gets a node, so that each can have a name.

Attention pooling without a projection (SigLIP) gives ``image_embeds`` that are the ``embedding``. A
value of an ONNX graph has one name, and PyTorch's exporter gives it that of the last output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from vit_deploy.spec import IOSpec


def part_twin_outputs(model: ir.Model, spec: IOSpec) -> None:
    """Give every output its own value, under its name in ``spec``; in place."""
    import onnx_ir as ir

    outputs = model.graph.outputs
    for index, value in enumerate(outputs):
        if all(value is not earlier for earlier in outputs[:index]):
            continue
        node = ir.node("Identity", [value])
        copy = node.outputs[0]
        copy.shape, copy.type = value.shape, value.type
        model.graph.append(node)
        outputs[index] = copy
    for value, entry in zip(outputs, spec.outputs, strict=True):
        value.name = entry.name
