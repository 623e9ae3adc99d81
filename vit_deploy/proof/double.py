"""Runs somebody else's code in float64, whatever precision it names.

A library that is asked for a float64 model still computes parts of it in float32: rotary tables,
sine-cosine positions, norms and softmaxes "in full precision". Each such part is right to 1e-7, which
hides an epsilon of 1e-5 for 1e-6. Under :func:`all_float64` every narrower dtype that a call names is
read as float64, so that what is left between two implementations is the order of their sums.

The means is PyTorch's ``TorchFunctionMode`` (https://pytorch.org/docs/stable/torch.overrides.html). It
sees calls made through Python on the thread that entered it: a fused kernel that is narrow inside, or
code compiled by ``torch.jit.script``, stays as it is.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NARROW = frozenset({torch.float32, torch.float16, torch.bfloat16})
"""The dtypes that are read as float64. Integers, booleans and complex numbers stay."""

_TYPE_NAMES = frozenset({"torch.FloatTensor", "torch.HalfTensor", "torch.BFloat16Tensor"})
"""What ``Tensor.type`` calls them."""

_CASTS: frozenset[Callable[..., Any]] = frozenset(
    {torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16}
)
_REINTERPRETS: frozenset[Callable[..., Any]] = frozenset(
    {torch.Tensor.view, torch.frombuffer, torch.Tensor.set_}
)
"""Calls whose dtype says what bytes are, not what they shall become: how files of weights are read."""


class AllFloat64(TorchFunctionMode):
    """Reads every narrow floating dtype that a call names as float64.

    Attributes:
        narrow: the names of calls that took or gave narrow numbers all the same. While a checkpoint is
            loaded its weights are narrow; afterwards nothing should be.
    """

    def __init__(self) -> None:
        super().__init__()
        self.narrow: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func`` with the dtypes changed."""
        kwargs = kwargs or {}
        if func in _REINTERPRETS or _makes_nothing(func, args):
            return func(*args, **kwargs)
        if func in _CASTS:
            return torch.Tensor.double(*args, **kwargs)
        result = func(*map(_wide, args), **{name: _wide(value) for name, value in kwargs.items()})
        if _is_narrow([result, *args, *kwargs.values()]):
            self.narrow.add(resolve_name(func) or str(func))
        return result


def _makes_nothing(func: Any, args: tuple[Any, ...]) -> bool:
    """``torch.load`` makes a tensor of no elements and gives it the file's bytes, which have its dtype."""
    return func is torch.empty and bool(args) and args[0] == (0,)


def _wide(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return torch.float64 if value in NARROW else value
    return "torch.DoubleTensor" if isinstance(value, str) and value in _TYPE_NAMES else value


def _is_narrow(value: Any) -> bool:
    """Whether it is, or holds, a narrow tensor."""
    if isinstance(value, (list, tuple)):
        return any(map(_is_narrow, value))
    return isinstance(value, torch.Tensor) and torch.Tensor.dtype.__get__(value) in NARROW  # type: ignore[attr-defined]


@contextlib.contextmanager
def all_float64() -> Iterator[AllFloat64]:
    """A context in which models are built and run in float64; torch's default dtype is float64 in it."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with AllFloat64() as mode:
            yield mode
    finally:
        torch.set_default_dtype(default)
