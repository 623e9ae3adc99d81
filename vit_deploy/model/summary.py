"""The layer table that ``vit-deploy inspect`` prints: shapes, parameters and multiply-accumulates.

torchinfo (https://github.com/TylerYep/torchinfo) runs the model once on the meta device, so the
largest model costs neither memory nor arithmetic, and gives each module's shapes and parameters.
Its own ``mult_adds`` are not used: it counts a linear layer over ``(b, n, d)`` once per image
rather than once per token, and knows nothing of ``scaled_dot_product_attention``. Counted here are
the matrix products, by the shapes that torchinfo saw:

* a linear layer: output elements × input features;
* the patch projection: output elements × ``c · s1 · s2``, as a convolution or as a linear layer;
* attention: ``2 · n² · d`` per block and image, for ``q · kᵀ`` and for the product with ``v``;
  ``2 · n · d`` for attention pooling, which has one query.

Additions, biases, LayerNorm, GELU and softmax are left out, as is the field's custom.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.errors import UsageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from vit_deploy.model.config import ViTConfig

Shape = tuple[int, ...]
_Seen = dict[int, tuple[Shape, Shape]]


@dataclass(frozen=True)
class LayerRow:
    """One line of the table. Figures include what is inside the layer.

    Attributes:
        name: dotted, as in the state dict; empty for the whole model.
        type: the class of the module, or ``Parameter`` for a learned token or positions.
        level: how deep it is nested: 0 the model, 1 its parts, 2 what is in a block, and so on.
        input_shape: shape of the first input; empty for a parameter, and for a layer that the
            chosen outputs do not need.
        output_shape: shape of the output, empty alike.
        parameters: learned numbers.
        macs: multiply-accumulates of one batch.
    """

    name: str
    type: str
    level: int
    input_shape: Shape
    output_shape: Shape
    parameters: int
    macs: int


@dataclass(frozen=True)
class Totals:
    """The sums of a layer table."""

    parameters: int
    macs: int

    @property
    def gmacs(self) -> float:
        """Multiply-accumulates in thousands of millions."""
        return self.macs / 1e9

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiply-accumulate is two."""
        return 2 * self.macs


def layer_table(model: nn.Module, config: ViTConfig, batch_size: int = 1) -> list[LayerRow]:
    """The layers of a model in its own order, the whole model first.

    A parameter that belongs to no layer (class token, positions) has a row of its own, so the
    parameters of the rows at one level inside a row add up to that row's. Modules that only move
    numbers about have no row, so both layouts give the same table.

    Args:
        model: a :class:`~vit_deploy.model.vit.ViT`, of any layout, mode, dtype and device; it is
            left as it was.
        config: its config, for the shape of the input.
        batch_size: images per batch.

    Raises:
        UsageFailed: for a batch size below 1.
    """
    if batch_size < 1:
        raise UsageFailed(f"the batch size is {batch_size}", expected="at least 1")
    twin = _on_meta(model)
    seen = _shapes(twin, (batch_size, config.in_channels, *config.image_size))
    return list(_rows(twin, "", 0, seen))


def totals(rows: list[LayerRow]) -> Totals:
    """The whole model's figures from its :func:`layer_table`."""
    return Totals(parameters=rows[0].parameters, macs=rows[0].macs)


def _on_meta(model: nn.Module) -> nn.Module:
    # A deep copy whose tensors are replaced on the way: nothing is read or allocated.
    from torch import nn

    replaced: dict[int, object] = {
        id(value): nn.Parameter(value.to("meta"), requires_grad=False) for value in model.parameters()
    }
    replaced.update((id(value), value.to("meta")) for value in model.buffers())
    return copy.deepcopy(model, replaced).eval()


def _shapes(model: nn.Module, input_shape: Shape) -> _Seen:
    """Input and output shape of every module that runs, by the module's identity."""
    import torch
    from torchinfo import summary

    dtype = next(model.parameters()).dtype
    pixel_values = torch.empty(input_shape, dtype=dtype, device="meta")
    with torch.inference_mode():
        found = summary(model, input_data=pixel_values, device="meta", depth=99, verbose=0)
    return {
        id(layer.module): (tuple(layer.input_size), tuple(layer.output_size))
        for layer in found.summary_list
        if layer.executed
    }


def _rows(
    module: nn.Module, name: str, level: int, seen: Mapping[int, tuple[Shape, Shape]]
) -> Iterator[LayerRow]:

    input_shape, output_shape = seen.get(id(module), ((), ()))
    inside = list(_inside(module, name, level, seen))
    parameters = sum(value.numel() for value in module.parameters())
    macs = _own_macs(module, input_shape, output_shape) + sum(
        row.macs for row in inside if row.level == level + 1
    )
    if parameters or macs or isinstance(module, _activations()):
        yield LayerRow(name, type(module).__name__, level, input_shape, output_shape, parameters, macs)
    yield from inside


def _activations() -> tuple[type[nn.Module], ...]:
    from torch import nn

    from vit_deploy.model.mlp import QuickGELU

    return nn.GELU, nn.SiLU, nn.ReLU, QuickGELU


def _inside(
    module: nn.Module, name: str, level: int, seen: Mapping[int, tuple[Shape, Shape]]
) -> Iterator[LayerRow]:
    from torch import nn

    prefix = f"{name}." if name else ""
    if list(module.children()):  # a layer's own weight and bias are not worth a row
        for key, value in module.named_parameters(recurse=False):
            yield LayerRow(f"{prefix}{key}", "Parameter", level + 1, (), tuple(value.shape), value.numel(), 0)
    for key, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            for index, part in enumerate(child):
                yield from _rows(part, f"{prefix}{key}.{index}", level + 1, seen)
        else:
            yield from _rows(child, f"{prefix}{key}", level + 1, seen)


def _own_macs(module: nn.Module, input_shape: Shape, output_shape: Shape) -> int:
    """Multiply-accumulates of a module itself, without what is inside it; 0 where it did not run."""
    from torch import nn

    from vit_deploy.model.attention import Attention
    from vit_deploy.model.patches import PatchEmbedding
    from vit_deploy.model.pooling import AttentionPool

    if not output_shape:
        return 0
    if isinstance(module, nn.Linear):
        return math.prod(output_shape) * module.in_features
    if isinstance(module, nn.Conv2d):
        return math.prod(output_shape) * math.prod(module.weight.shape[1:])
    if isinstance(module, PatchEmbedding) and module.form == "linear":
        return math.prod(output_shape) * math.prod(module.proj.weight.shape[1:])
    if isinstance(module, Attention):
        batch, tokens, dim = output_shape
        return 2 * batch * tokens * tokens * dim
    if isinstance(module, AttentionPool):
        batch, tokens, dim = input_shape
        return 2 * batch * (tokens - module.num_left_out) * dim
    return 0
