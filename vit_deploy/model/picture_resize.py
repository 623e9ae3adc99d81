"""Pillow's resize and the centre crop as two matrix products, inside a graph.

Pillow resizes 8-bit pictures in two passes, first along the rows and then along the columns, each
rounded to 8 bits. A filter's support is widened where the picture shrinks, and its weights are
normalised (https://github.com/python-pillow/Pillow/blob/main/src/libImaging/Resample.c). Here a pass is
a product with a matrix, which follows from the picture's size by plain arithmetic while the graph runs.
Only the rows and columns that survive the crop are in the matrices.

Sizes and distances are integers until the last moment: how far a sample is from a position is the ratio
of two exact integers, so float32 is enough at any size. Pillow's weights have 22 bits after the point
and its sums are integers; what is left of the difference is one level where a sum lies next to a half.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vit_deploy.model.contract import check_resizable
from vit_deploy.model.resample import cubic, triangle

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.model.preprocess import CropRounding, Preprocessing

WHITE = 255
"""The largest level of an 8-bit channel."""

WEIGHT_UNITS = 2.0**22
"""Pillow's weights are whole multiples of the inverse of this (``PRECISION_BITS``)."""


def _sinc(distance: Tensor) -> Tensor:
    one = torch.ones_like(distance)
    at_zero = distance == 0
    angle = distance * math.pi
    return torch.where(at_zero, one, torch.sin(angle) / torch.where(at_zero, one, angle))


def _lanczos(distance: Tensor) -> Tensor:
    inside = distance.abs() < 3
    return torch.where(inside, _sinc(distance) * _sinc(distance / 3), torch.zeros_like(distance))


def _hamming(distance: Tensor) -> Tensor:
    window = 0.54 + 0.46 * torch.cos(distance * math.pi)
    return torch.where(distance.abs() < 1, _sinc(distance) * window, torch.zeros_like(distance))


FILTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "bicubic": cubic(-0.5),
    "bilinear": triangle,
    "lanczos": _lanczos,
    "hamming": _hamming,
}
"""Pillow's filters: the weight of a sample by its distance, in samples of the coarser picture."""

BOX = "box"
"""The one filter with a step in it: on the edge it is Pillow's own rounding that decides."""


class PictureResize(nn.Module):
    """Resize and centre crop as a :class:`Preprocessing` says, of pictures of any size.

    Raises:
        UsageFailed: for a filter that has no like here.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        check_resizable(preprocessing)
        self.preprocessing = preprocessing

    def forward(self, levels: Tensor) -> Tensor:
        """``(b, c, h, w)`` of whole levels 0 to 255 in float32 to the same of the model's size."""
        rows = torch.arange(levels.shape[2], device=levels.device)
        columns = torch.arange(levels.shape[3], device=levels.device)
        # The sizes as tensors, which every tracer keeps free: one more than the last index.
        height, width = rows[-1:] + 1, columns[-1:] + 1
        new_height, new_width = self.resized(height, width)
        crop_height, crop_width = self.preprocessing.image_size
        across = self.matrix(columns, width, new_width, crop_width, levels.dtype)
        down = self.matrix(rows, height, new_height, crop_height, levels.dtype)
        return rounded(down @ rounded(levels @ across.transpose(0, 1)))

    def resized(self, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """The size before the crop, as :meth:`Preprocessing.resized` computes it; ``(1,)`` of int64."""
        target_height, target_width = self.preprocessing.resize_size
        if self.preprocessing.resize == "exact":
            return torch.full_like(height, target_height), torch.full_like(width, target_width)
        if self.preprocessing.resize == "shortest_edge":
            # Python divides exact integers and cuts off, which is the division of integers.
            longer_height = torch.clamp(height * target_height // width, min=target_height)
            longer_width = torch.clamp(width * target_width // height, min=target_width)
            return longer_height, longer_width
        # Python rounds a quotient of float64 numbers to even: the same operations, in the same type.
        tall, wide = height.double(), width.double()
        ratio = torch.minimum(tall / target_height, wide / target_width)
        return torch.round(tall / ratio).long(), torch.round(wide / ratio).long()

    def matrix(self, samples: Tensor, old: Tensor, new: Tensor, crop: int, dtype: torch.dtype) -> Tensor:
        """``(crop, old)``: what each position that survives the crop takes of each sample.

        Args:
            samples: the indices of the samples, ``(old,)`` of int64.
            old: how many there are, ``(1,)`` of int64.
            new: how many positions the resized picture has, ``(1,)`` of int64.
            crop: how many of them survive, around the centre.
            dtype: of the matrix.
        """
        start = offset(new - crop, self.preprocessing.crop_rounding)
        positions = (torch.arange(crop, device=samples.device) + start).unsqueeze(1)
        if self.preprocessing.interpolation == BOX:
            weights = _box(samples, positions, old, new).to(dtype)
        else:
            # Centres of samples and positions, times twice both sizes: their difference is exact.
            distances = (2 * samples + 1) * new - (2 * positions + 1) * old
            coarser = 2 * torch.maximum(old, new)
            weights = FILTERS[self.preprocessing.interpolation](distances.to(dtype) / coarser.to(dtype))
        shares = weights / weights.sum(dim=1, keepdim=True)
        # Halves are common, as both sizes are whole: which way one goes follows Pillow's last bit.
        return torch.floor(shares * WEIGHT_UNITS + 0.5) / WEIGHT_UNITS


def _box(samples: Tensor, positions: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Which samples lie in the box of each position, ``(crop, old)``: Pillow's float64 steps, one by one."""
    scale = old.double() / new.double()
    widening = torch.clamp(scale, min=1)
    centre = (positions.double() + 0.5) * scale
    first = torch.clamp((centre - widening / 2 + 0.5).long(), min=0)
    past = (centre + widening / 2 + 0.5).long()
    distance = (samples.double() - centre + 0.5) * (1 / widening)
    return (samples >= first) & (samples < past) & (distance > -0.5) & (distance <= 0.5)


def offset(spare: Tensor, rounding: CropRounding) -> Tensor:
    """Where the crop starts, of ``spare`` rows or columns that it leaves; as :class:`Preprocessing`."""
    half = spare // 2
    # Half a pixel goes to the even one: up where the whole part is odd.
    return (spare + half % 2) // 2 if rounding == "even" else half


def rounded(levels: Tensor) -> Tensor:
    """To whole levels, halves up, between black and white; as Pillow's ``clip8``."""
    return torch.clamp(torch.floor(levels + 0.5), 0, WHITE)
