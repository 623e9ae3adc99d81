"""Reading the residual stream of our own ViT while it runs, by hooks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from vit_deploy.blame.taps import EMBED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import nn

    Keep = Callable[[str, torch.Tensor], object]


@contextlib.contextmanager
def watched(module: nn.Module, keep: Keep) -> Iterator[None]:
    """While it lasts, each pass of a ViT hands the stream at each tap to ``keep``, in order.

    Args:
        module: a :class:`vit_deploy.model.vit.ViT`; nothing is watched in any other.
        keep: given a tap's name and the stream there, ``(b, n, d)``.
    """
    from vit_deploy.model.vit import Block, ViT

    handles: list[Any] = []
    if isinstance(module, ViT):
        first = module.blocks[0]
        handles.append(first.register_forward_pre_hook(lambda _, args: keep(EMBED, args[0])))
        for index, block in enumerate(module.blocks):
            if not isinstance(block, Block):
                continue
            attended, whole = f"blocks.{index}.attn", f"blocks.{index}.mlp"
            handles.append(block.norm2.register_forward_pre_hook(_handing(keep, attended)))
            handles.append(block.register_forward_hook(_handing(keep, whole)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _handing(keep: Keep, tap: str) -> Callable[..., None]:
    """A hook that hands on the last thing it is given: of a pre-hook the inputs, else the result."""

    def hook(_: nn.Module, *given: Any) -> None:
        last = given[-1]
        keep(tap, last[0] if isinstance(last, tuple) else last)

    return hook
