"""From an image to patch tokens."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn

from vit_deploy.model.layout import EINOPS, Layout

PatchForm = Literal["conv", "linear"]


class PatchEmbedding(nn.Module):
    """Cut an image into patches and project each: ``(b, c, H, W) -> (b, h·w, d)``.

    The projection is computed as a convolution of stride ``patch_size``, or as a linear layer over
    ``rearrange(x, 'b c (h s1) (w s2) -> b (h w) (s1 s2 c)')``. Both use the same parameters
    (``proj.weight`` of shape ``(d, c, s1, s2)``, ``proj.bias``) and are the same function: equal
    up to the order of the sum. With ``drop_remainder``, pixels beyond the last whole patch are left out,
    as a convolution does by itself.
    """

    def __init__(
        self,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 768,
        *,
        bias: bool = True,
        drop_remainder: bool = False,
        form: PatchForm = "conv",
        layout: Layout = EINOPS,
    ) -> None:
        super().__init__()
        self.form = form
        self.patch_size = patch_size
        self.drop_remainder = drop_remainder
        self.proj = nn.Conv2d(in_channels, embed_dim, kernel_size=patch_size, stride=patch_size, bias=bias)
        self.grid_to_tokens = layout.grid_to_tokens()
        self.patchify = layout.patchify(patch_size)
        self.flatten_kernel = layout.flatten_kernel()

    def forward(self, images: Tensor) -> Tensor:
        """``(b, c, H, W)`` to ``(b, h·w, d)``, row by row."""
        if self.form == "linear":
            if self.drop_remainder:
                height, width = (side // self.patch_size * self.patch_size for side in images.shape[2:])
                images = images[:, :, :height, :width]
            return F.linear(self.patchify(images), self.flatten_kernel(self.proj.weight), self.proj.bias)
        tokens: Tensor = self.grid_to_tokens(self.proj(images))
        return tokens
