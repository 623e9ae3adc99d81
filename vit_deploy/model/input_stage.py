"""What stands before the patches where an artefact takes 8-bit pictures.

Rescaling and normalising are ``x = (p · rescale - mean) / std`` for each channel, and the patch
embedding is ``W x + b``. Both are affine and the patch convolution has no padding, so that they are one:

    W x + b  =  W' (p - 128) + b'      W' = W · rescale / std
                                       b' = b - Σ W · (mean - 128 · rescale) / std

That is exact in real numbers. ``W'`` and ``b'`` are computed in float64 and rounded once
(:mod:`vit_deploy.weights.fold_input`), and ``p - 128`` is exact in float32. The 128 is there for the rounding:
without it the sum of ``W' p`` is far from 0 and ``b'`` takes it back, which doubles the error of the
patch embedding and at the worst makes it four times eager's own. With it the error is eager's,
whatever mean and std are (2.5e-7 and 2.7e-7 on the digits model, 4.8e-7 and 4.9e-7 on a ViT-S; the same as
with the normalisation left in the graph). So folding is always done, and a model whose patch embedding
has no bias (CLIP) gets one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vit_deploy.model.picture_resize import PictureResize

if TYPE_CHECKING:
    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.spec import Contract

MIDDLE = 128
"""Subtracted from each level of 0 to 255: a whole number, so that it is exact."""


class InputStage(nn.Module):
    """8-bit pictures ``(b, h, w, c)`` to levels around 0, ``(b, c, h, w)`` in float32.

    Args:
        preprocessing: of the model.
        resize: resize and crop pictures of any size; otherwise they must have the model's own.
    """

    def __init__(self, preprocessing: Preprocessing, *, resize: bool) -> None:
        super().__init__()
        self.resize = PictureResize(preprocessing) if resize else None

    def forward(self, images: Tensor) -> Tensor:
        """``(b, h, w, c)`` of uint8 to ``(b, c, H, W)``, less :data:`MIDDLE`."""
        levels = images.to(torch.float32).permute(0, 3, 1, 2)
        if self.resize is not None:
            levels = self.resize(levels)
        return levels - MIDDLE


def input_stage(contract: Contract, preprocessing: Preprocessing) -> InputStage | None:
    """The stage of a contract; none for ``pixel_values``.

    Raises:
        UsageFailed: for a resize that a graph cannot follow.
    """
    return None if contract == "pixel_values" else InputStage(preprocessing, resize=contract == "image")
