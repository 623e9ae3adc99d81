"""The two layouts of one model: einops for reading, reshape-only for export.

A layout makes small parameter-free modules that move numbers about without computing any.
Both layouts give bit-identical results and the same ``state_dict``; which one a model uses is
injected (``ViT(config, layout=RESHAPE)``), never a global mode. The reshape twin uses only
reshape, transpose, unflatten, flatten and split, has no Python branch on a shape and never
bakes the batch in.

Letters: ``b`` batch, ``c`` channels, ``h w`` height and width in patches, ``s1 s2`` sides of a
patch, ``n`` tokens, ``d`` embed dim, ``k`` heads, ``dh`` width of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Layout(ABC):
    """Makes the modules that rearrange tensors."""

    name: str

    @abstractmethod
    def patchify(self, patch_size: int) -> nn.Module:
        """``b c (h s1) (w s2) -> b (h w) (s1 s2 c)``."""

    @abstractmethod
    def flatten_kernel(self) -> nn.Module:
        """``d c s1 s2 -> d (s1 s2 c)``: a convolution's kernel as the matrix of a linear layer."""

    @abstractmethod
    def grid_to_tokens(self) -> nn.Module:
        """``b d h w -> b (h w) d``."""

    @abstractmethod
    def split_heads(self, num_heads: int) -> nn.Module:
        """``b n (3 k dh)`` to q, k and v, each ``b k n dh``."""

    @abstractmethod
    def merge_heads(self) -> nn.Module:
        """``b k n dh -> b n (k dh)``."""


class _EinopsSplitHeads(nn.Module):
    def __init__(self, num_heads: int) -> None:
        super().__init__()
        from einops.layers.torch import Rearrange

        self.split = Rearrange("b n (qkv k dh) -> qkv b k n dh", qkv=3, k=num_heads)

    def forward(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.split(qkv)
        return query, key, value


class EinopsLayout(Layout):
    """Says what each dimension means; the form to read."""

    name = "einops"

    def patchify(self, patch_size: int) -> nn.Module:
        """See :class:`Layout`."""
        from einops.layers.torch import Rearrange

        return Rearrange("b c (h s1) (w s2) -> b (h w) (s1 s2 c)", s1=patch_size, s2=patch_size)

    def flatten_kernel(self) -> nn.Module:
        """See :class:`Layout`."""
        from einops.layers.torch import Rearrange

        return Rearrange("d c s1 s2 -> d (s1 s2 c)")

    def grid_to_tokens(self) -> nn.Module:
        """See :class:`Layout`."""
        from einops.layers.torch import Rearrange

        return Rearrange("b d h w -> b (h w) d")

    def split_heads(self, num_heads: int) -> nn.Module:
        """See :class:`Layout`."""
        return _EinopsSplitHeads(num_heads)

    def merge_heads(self) -> nn.Module:
        """See :class:`Layout`."""
        from einops.layers.torch import Rearrange

        return Rearrange("b k n dh -> b n (k dh)")


class _Patchify(nn.Module):
    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, images: Tensor) -> Tensor:
        side = self.patch_size
        columns = torch.unflatten(images, 3, (-1, side))
        patches = torch.unflatten(columns, 2, (-1, side))  # b c h s1 w s2
        return patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


class _FlattenKernel(nn.Module):
    def forward(self, kernel: Tensor) -> Tensor:
        return kernel.permute(0, 2, 3, 1).flatten(1)


class _GridToTokens(nn.Module):
    def forward(self, grid: Tensor) -> Tensor:
        return grid.flatten(2).transpose(1, 2)


class _SplitHeads(nn.Module):
    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (
            torch.unflatten(part, -1, (self.num_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1)
        )
        return query, key, value


class _MergeHeads(nn.Module):
    def forward(self, heads: Tensor) -> Tensor:
        return heads.transpose(1, 2).flatten(2)


class ReshapeLayout(Layout):
    """Only what every tracer and exporter understands."""

    name = "reshape"

    def patchify(self, patch_size: int) -> nn.Module:
        """See :class:`Layout`."""
        return _Patchify(patch_size)

    def flatten_kernel(self) -> nn.Module:
        """See :class:`Layout`."""
        return _FlattenKernel()

    def grid_to_tokens(self) -> nn.Module:
        """See :class:`Layout`."""
        return _GridToTokens()

    def split_heads(self, num_heads: int) -> nn.Module:
        """See :class:`Layout`."""
        return _SplitHeads(num_heads)

    def merge_heads(self) -> nn.Module:
        """See :class:`Layout`."""
        return _MergeHeads()


EINOPS: Layout = EinopsLayout()
RESHAPE: Layout = ReshapeLayout()
