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
from typing import Literal

import torch
from torch import Tensor, nn

Pairing = Literal["interleaved", "halves"]
"""Whether a pair stands side by side in a head, or half a head apart."""


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
    def split_one_head_set(self, num_heads: int) -> nn.Module:
        """``b n (k dh) -> b k n dh``: queries by themselves."""

    @abstractmethod
    def split_keys_and_values(self, num_heads: int) -> nn.Module:
        """``b n (2 k dh)`` to k and v, each ``b k n dh``."""

    @abstractmethod
    def merge_heads(self) -> nn.Module:
        """``b k n dh -> b n (k dh)``."""

    @abstractmethod
    def quarter_turn(self, pairing: Pairing) -> nn.Module:
        """Each pair ``(x, y)`` of the last dimension to ``(-y, x)``; the shape stays."""


class _EinopsSplitHeads(nn.Module):
    def __init__(self, num_heads: int, parts: int) -> None:
        super().__init__()
        from einops.layers.torch import Rearrange

        self.split = Rearrange("b n (parts k dh) -> parts b k n dh", parts=parts, k=num_heads)

    def forward(self, joined: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.split(joined))


class _EinopsQuarterTurn(nn.Module):
    def __init__(self, pairing: Pairing) -> None:
        super().__init__()
        from einops.layers.torch import Rearrange

        packed = "(p two)" if pairing == "interleaved" else "(two p)"
        self.split = Rearrange(f"... {packed} -> two ... p", two=2)
        self.join = Rearrange(f"two ... p -> ... {packed}")

    def forward(self, tensor: Tensor) -> Tensor:
        first, second = self.split(tensor)
        turned: Tensor = self.join(torch.stack([-second, first]))
        return turned


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
        return _EinopsSplitHeads(num_heads, parts=3)

    def split_one_head_set(self, num_heads: int) -> nn.Module:
        """See :class:`Layout`."""
        from einops.layers.torch import Rearrange

        return Rearrange("b n (k dh) -> b k n dh", k=num_heads)

    def split_keys_and_values(self, num_heads: int) -> nn.Module:
        """See :class:`Layout`."""
        return _EinopsSplitHeads(num_heads, parts=2)

    def merge_heads(self) -> nn.Module:
        """See :class:`Layout`."""
        from einops.layers.torch import Rearrange

        return Rearrange("b k n dh -> b n (k dh)")

    def quarter_turn(self, pairing: Pairing) -> nn.Module:
        """See :class:`Layout`."""
        return _EinopsQuarterTurn(pairing)


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


class _SplitOneHeadSet(nn.Module):
    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(self, joined: Tensor) -> Tensor:
        return torch.unflatten(joined, -1, (self.num_heads, -1)).transpose(1, 2)


class _SplitHeads(_SplitOneHeadSet):
    def __init__(self, num_heads: int, parts: int) -> None:
        super().__init__(num_heads)
        self.parts = parts

    def forward(self, joined: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        split = super().forward
        return tuple(split(part) for part in joined.chunk(self.parts, dim=-1))


class _TurnHalves(nn.Module):
    def forward(self, tensor: Tensor) -> Tensor:
        first, second = tensor.chunk(2, dim=-1)
        return torch.cat([-second, first], dim=-1)


class _TurnNeighbours(nn.Module):
    def forward(self, tensor: Tensor) -> Tensor:
        first, second = torch.unflatten(tensor, -1, (-1, 2)).chunk(2, dim=-1)
        return torch.cat([-second, first], dim=-1).flatten(-2)


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
        return _SplitHeads(num_heads, parts=3)

    def split_one_head_set(self, num_heads: int) -> nn.Module:
        """See :class:`Layout`."""
        return _SplitOneHeadSet(num_heads)

    def split_keys_and_values(self, num_heads: int) -> nn.Module:
        """See :class:`Layout`."""
        return _SplitHeads(num_heads, parts=2)

    def merge_heads(self) -> nn.Module:
        """See :class:`Layout`."""
        return _MergeHeads()

    def quarter_turn(self, pairing: Pairing) -> nn.Module:
        """See :class:`Layout`."""
        return _TurnHalves() if pairing == "halves" else _TurnNeighbours()


EINOPS: Layout = EinopsLayout()
RESHAPE: Layout = ReshapeLayout()
