"""Weights in 8 bits: symmetric, a scale for each output channel, computed when the file is written.

A channel's scale is its largest magnitude over the largest code, or a smaller one where that rounds the rest
so much better that what it clips is made good: the least squared error of a short search (Nagel et al. 2021,
"A White Paper on Neural Network Quantization", section 3.1, https://arxiv.org/abs/2106.08295). An error counts
as much as the square of what usually comes in on its input channel, where that is known: the squared error of
the product is then what is least, to the extent that input channels are uncorrelated.

The dtypes are int8, and float8 in E4M3 (Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    import torch

Kind = Literal["int8", "fp8"]
LEVELS: dict[Kind, int] = {"int8": 127, "fp8": 448}
"""The largest code."""

_SHRUNK = tuple(1 - step / 50 for step in range(16))
"""What part of the largest magnitude is tried as a threshold."""

_TINY = 2.0**-100
"""Below it a channel holds nothing; its scale only has to be finite and not zero."""


@dataclass
class QuantisedWeight:
    """A weight in 8 bits whose numbers are read when they are asked for.

    Args:
        read: gives the weight as float32, of any rank.
        axis: of the output channels.
        inner: of the input channels.
        kind: the dtype of the codes.
        power: float32 ``(inner,)``, what an error on each input channel counts; all the same when ``None``.
        search: look for smaller scales.
    """

    read: Callable[[], torch.Tensor]
    axis: int
    inner: int
    kind: Kind
    power: torch.Tensor | None = None
    search: bool = True
    _scales: torch.Tensor | None = None

    def scales(self) -> torch.Tensor:
        """float32 ``(c,)``; kept once they are known, as they are few."""
        if self._scales is None:
            self._scales = self._choose(self.read())
        return self._scales

    def codes(self) -> torch.Tensor:
        """The weight's codes as float32, or int8, in its own shape."""
        weight = self.read()
        if self._scales is None:
            self._scales = self._choose(weight)
        scaled = weight / self._along(self._scales, weight.dim())
        return rounded(scaled, self.kind)

    def dequantised(self) -> torch.Tensor:
        """float32, what the codes stand for."""
        codes = self.codes()
        return codes.float() * self._along(self.scales(), codes.dim())

    def _along(self, scales: torch.Tensor, rank: int) -> torch.Tensor:
        shape = [1] * rank
        shape[self.axis] = -1
        return scales.reshape(shape)

    def _choose(self, weight: torch.Tensor) -> torch.Tensor:
        import torch

        rows = weight.movedim(self.axis, 0)
        largest = rows.reshape(len(rows), -1).abs().amax(1)
        levels = LEVELS[self.kind]
        full = largest.clamp_min(_TINY) / levels
        if not self.search:
            return full
        counts = self._counts(rows)
        best, chosen = torch.full_like(full, float("inf")), full
        for part in _SHRUNK:
            scale = (full * part).clamp_min(_TINY)
            apart = scale.reshape(-1, *[1] * (rows.dim() - 1))
            missed = (rounded(rows / apart, self.kind).float() * apart).sub_(rows).square_()
            error = (missed * counts).reshape(len(rows), -1).sum(1)
            chosen = torch.where(error < best, scale, chosen)
            best = torch.minimum(error, best)
        return chosen

    def _counts(self, rows: torch.Tensor) -> torch.Tensor | float:
        """What an error counts, to be multiplied with ``rows``, whose first axis is that of the outputs."""
        if self.power is None:
            return 1.0
        shape = [1] * rows.dim()
        shape[self.inner if self.inner > self.axis else self.inner + 1] = -1
        return self.power.reshape(shape)


def rounded(scaled: torch.Tensor, kind: Kind) -> torch.Tensor:
    """The codes nearest to ``scaled``, clipped: int8, or float8 in E4M3; both round half to even."""
    import torch

    levels = LEVELS[kind]
    clipped = scaled.clamp(-levels, levels)
    return clipped.to(torch.float8_e4m3fn) if kind == "fp8" else clipped.round_().to(torch.int8)


def lazy_codes(weight: QuantisedWeight, shape: ir.Shape, name: str) -> ir.LazyTensor:
    """The codes as a tensor of a graph, computed whenever it is read."""
    import onnx_ir as ir

    dtype = _dtype(weight.kind)

    def read() -> Any:
        return ir.tensor(_as_numpy(weight.codes()), dtype=dtype, name=name)

    return ir.LazyTensor(read, dtype=dtype, shape=shape, name=name)


def lazy_scales(weight: QuantisedWeight, channels: int, name: str) -> ir.LazyTensor:
    """The scales as a tensor of a graph, ``(c,)``."""
    import onnx_ir as ir

    return ir.LazyTensor(
        lambda: ir.tensor(weight.scales().numpy(), name=name),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape([channels]),
        name=name,
    )


def _dtype(kind: Kind) -> ir.DataType:
    import onnx_ir as ir

    return ir.DataType.FLOAT8E4M3FN if kind == "fp8" else ir.DataType.INT8


def _as_numpy(codes: torch.Tensor) -> Any:
    """As numpy, which has no float8 of its own: onnx brings one."""
    import ml_dtypes
    import torch

    codes = codes.contiguous()
    if codes.dtype == torch.float8_e4m3fn:
        return codes.view(torch.uint8).numpy().view(ml_dtypes.float8_e4m3fn)
    return codes.numpy()
