"""The layer table of any module, from running it once: shapes, parameters and multiply-accumulates.

Nothing is known of its layers, so their arithmetic is counted where it happens, in the operators that
PyTorch dispatches (``torch.utils.flop_counter``): matrix products, convolutions, and both products of
attention. Recurrent layers, which are one operator, count as nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.model.summary import LayerRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

    Shapes = dict[int, tuple[tuple[int, ...], tuple[int, ...]]]


def module_table(module: nn.Module, inputs: Sequence[Tensor], keywords: Sequence[str] = ()) -> list[LayerRow]:
    """The layers of a module in its own order, the whole module first.

    Args:
        module: in evaluation mode, on the CPU.
        inputs: what it is run on.
        keywords: the names by which ``forward`` takes them; they go by position where empty.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    shapes: Shapes = {}
    hooks = [part.register_forward_hook(_recorder(shapes), with_kwargs=True) for part in module.modules()]
    counter = FlopCounterMode(display=False)
    before = torch.backends.mha.get_fastpath_enabled()
    try:
        # One operator for a whole encoder layer, or for attention, hides the products that are counted.
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            module(**dict(zip(keywords, inputs, strict=True))) if keywords else module(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        for hook in hooks:
            hook.remove()
    root = type(module).__name__
    macs = {
        name.removeprefix(root).removeprefix("."): sum(counts.values()) // 2
        for name, counts in counter.get_flop_counts().items()
        if name == root or name.startswith(f"{root}.")
    }
    return list(_rows(module, "", 0, shapes, {**macs, "": counter.get_total_flops() // 2}))


def _recorder(shapes: Shapes) -> Any:
    def record(module: nn.Module, positional: Any, named: Any, returned: Any) -> None:
        shapes[id(module)] = (_first_shape((positional, named)), _first_shape(returned))

    return record


def _first_shape(value: Any) -> tuple[int, ...]:
    """The shape of the first tensor in whatever a layer was given, or gave."""
    from torch import Tensor
    from torch.utils._pytree import tree_leaves

    tensor = next((leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)), None)
    return () if tensor is None else tuple(tensor.shape)


def _rows(
    module: nn.Module, name: str, level: int, shapes: Shapes, macs: Mapping[str, int]
) -> Iterator[LayerRow]:
    from torch import nn

    parameters = sum(value.numel() for value in module.parameters())
    if isinstance(module, nn.ModuleList):  # a list is no layer: its parts are
        level -= 1
    elif parameters or macs.get(name) or not level:
        inside, outside = shapes.get(id(module), ((), ()))
        yield LayerRow(name, type(module).__name__, level, inside, outside, parameters, macs.get(name, 0))
    prefix = f"{name}." if name else ""
    if list(module.children()):  # a layer's own weight and bias are not worth a row
        for key, value in module.named_parameters(recurse=False):
            yield LayerRow(f"{prefix}{key}", "Parameter", level + 1, (), tuple(value.shape), value.numel(), 0)
    for key, child in module.named_children():
        yield from _rows(child, f"{prefix}{key}", level + 1, shapes, macs)
