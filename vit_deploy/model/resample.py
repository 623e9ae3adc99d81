"""Resampling as products with small matrices, which every runtime computes alike.

Exporters translate PyTorch's bicubic interpolation wrongly or not at all once it is antialiased
(pytorch/pytorch#177138), and TensorRT has no such layer. Separable resampling is two matrix products,
and the matrices follow from the two sizes by plain arithmetic, also where a size is known only at run
time. The kernels are those of ``F.interpolate``; the antialiased ones are Pillow's too
(https://github.com/python-pillow/Pillow/blob/main/src/libImaging/Resample.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.model.config import Resampling

    Kernel = Callable[[Tensor], Tensor]

_BORDER = 3
"""Taps of a cubic kernel that may fall outside, on either side."""


def resample_grid(values: Tensor, old: tuple[int, int], new: tuple[int, int], resampling: Resampling) -> Tensor:
    """Resample ``(h·w, d)`` on a grid of ``old`` rows and columns to ``(h'·w', d)``.

    At the size it has, the grid comes back as it is, to the bit.
    """
    rows = interpolation_matrix(old[0], new[0], resampling, values)
    columns = interpolation_matrix(old[1], new[1], resampling, values)
    down = rows @ torch.unflatten(values, 0, old).flatten(1)  # h' (w d)
    across = columns @ torch.unflatten(down, 1, (old[1], -1))  # h' w' d
    return across.flatten(0, 1)


def interpolation_matrix(old: int, new: int, resampling: Resampling, like: Tensor) -> Tensor:
    """``(new, old)``: what each of ``new`` positions takes of each of ``old``.

    Every distance between two samples is a fraction, whose numerator and denominator are whole numbers
    that a float32 holds exactly: it is rounded once, however large the grid is.

    Args:
        old: the number of samples there are.
        new: the number asked for; may be free while a graph is captured.
        resampling: the kernel.
        like: gives dtype and device.
    """
    dtype = like.dtype if like.dtype == torch.float64 else torch.float32
    index = torch.arange(new, device=like.device).to(dtype).unsqueeze(1)  # new 1
    # The size as a tensor: arithmetic on sizes themselves is what exporters get wrong.
    count = index[-1:] + 1
    kernel = cubic(-0.5 if resampling.endswith("_antialias") else -0.75)
    kernel = kernel if resampling.startswith("bicubic") else triangle
    if resampling.endswith("_antialias"):
        weights = _antialiased(index, old, count, kernel)
    else:
        weights = _clamped(index, old, count, kernel, aligned=resampling.endswith("_aligned"))
    return weights.to(like.dtype)


def _antialiased(index: Tensor, old: int, count: Tensor, kernel: Kernel) -> Tensor:
    """The kernel is widened where the picture shrinks, and cut off and normalised at the edges."""
    samples = torch.arange(old, device=index.device).to(index.dtype)
    distance = (2 * samples + 1) * count - (2 * index + 1) * old
    weights = kernel(distance / (2 * torch.clamp(count, min=old)))
    return weights / weights.sum(dim=1, keepdim=True)


def _clamped(index: Tensor, old: int, count: Tensor, kernel: Kernel, *, aligned: bool) -> Tensor:
    """Taps that fall outside take the sample at the edge."""
    samples = torch.arange(-_BORDER, old + _BORDER, device=index.device)
    taps = samples.to(index.dtype)
    if aligned:
        steps = torch.clamp(count - 1, min=1)
        distance = (taps * steps - index * (old - 1)) / steps
    else:
        distance = ((2 * taps + 1) * count - (2 * index + 1) * old) / (2 * count)
    inside = torch.clamp(samples, min=0, max=old - 1).unsqueeze(1) == torch.arange(old, device=index.device)
    return kernel(distance) @ inside.to(index.dtype)


def cubic(a: float) -> Kernel:
    """Keys' cubic convolution kernel (https://doi.org/10.1109/TASSP.1981.1163711).

    Its two pieces are 0 at their ends, so they are added, each held inside its own range.
    """

    def kernel(distance: Tensor) -> Tensor:
        x = distance.abs()
        inner, outer = torch.clamp(x, max=1), torch.clamp(x, min=1, max=2)
        near = ((a + 2) * inner - (a + 3)) * inner * inner + 1
        far = (((outer - 5) * outer + 8) * outer - 4) * a
        return near + far

    return kernel


def triangle(distance: Tensor) -> Tensor:
    """The kernel of linear interpolation."""
    return torch.clamp(1 - distance.abs(), min=0)


def interpolate_positions(
    positions: Tensor, old: tuple[int, int], new: tuple[int, int], resampling: Resampling
) -> Tensor:
    """Resample ``(h·w, d)`` once, before export, with the very function that the sources call.

    In float64 where the positions are, otherwise in float32, as the sources do.
    """
    if old == new:
        return positions
    wide = positions if positions.dtype == torch.float64 else positions.float()
    grid = torch.unflatten(wide, 0, old).permute(2, 0, 1).unsqueeze(0)
    mode, _, how = resampling.partition("_")
    resized = F.interpolate(
        grid, size=new, mode=mode, align_corners=how == "aligned", antialias=how == "antialias"
    )
    return resized[0].permute(1, 2, 0).flatten(0, 1)
