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

    Args:
        old: the number of samples there are.
        new: the number asked for; may be free while a graph is captured.
        resampling: the kernel.
        like: gives dtype and device.
    """
    cubic = resampling.startswith("bicubic")
    index = torch.arange(new, device=like.device).to(like.dtype)
    if resampling.endswith("_antialias"):
        return _antialiased(index, old, new, _cubic(-0.5) if cubic else _triangle)
    if resampling == "bicubic_aligned":
        place = index * (old - 1) / max(new - 1, 1)
    else:
        place = (index + 0.5) * old / new - 0.5
    return _clamped(place, old, _cubic(-0.75) if cubic else _triangle)


def _antialiased(index: Tensor, old: int, new: int, kernel: Kernel) -> Tensor:
    """The kernel is widened where the picture shrinks, and cut off and normalised at the edges."""
    centre = (index + 0.5) * old / new
    widening = torch.clamp(torch.ones_like(centre[:1]) * old / new, min=1.0)
    samples = torch.arange(old, device=index.device).to(index.dtype) + 0.5
    weights = kernel((samples.unsqueeze(0) - centre.unsqueeze(1)) / widening)
    return weights / weights.sum(dim=1, keepdim=True)


def _clamped(place: Tensor, old: int, kernel: Kernel) -> Tensor:
    """Taps that fall outside take the sample at the edge."""
    if old == 1:
        return torch.ones_like(place).unsqueeze(1)
    samples = torch.arange(-_BORDER, old + _BORDER, device=place.device).to(place.dtype)
    weights = kernel(samples.unsqueeze(0) - place.unsqueeze(1))
    first = weights[:, : _BORDER + 1].sum(dim=1, keepdim=True)
    last = weights[:, old + _BORDER - 1 :].sum(dim=1, keepdim=True)
    return torch.cat([first, weights[:, _BORDER + 1 : old + _BORDER - 1], last], dim=1)


def _cubic(a: float) -> Kernel:
    """Keys' cubic convolution kernel (https://doi.org/10.1109/TASSP.1981.1163711)."""

    def kernel(distance: Tensor) -> Tensor:
        x = distance.abs()
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * a
        return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))

    return kernel


def _triangle(distance: Tensor) -> Tensor:
    return torch.clamp(1 - distance.abs(), min=0)


def interpolate_positions(
    positions: Tensor, old: tuple[int, int], new: tuple[int, int], resampling: Resampling
) -> Tensor:
    """Resample ``(h·w, d)`` once, before export, with the very function that the sources call."""
    if old == new:
        return positions
    grid = torch.unflatten(positions.float(), 0, old).permute(2, 0, 1).unsqueeze(0)
    mode, _, how = resampling.partition("_")
    resized = F.interpolate(
        grid, size=new, mode=mode, align_corners=how == "aligned", antialias=how == "antialias"
    )
    return resized[0].permute(1, 2, 0).flatten(0, 1)
