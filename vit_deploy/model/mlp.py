"""The MLP of a block, plain or gated, and the activations of the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.model.config import Activation


class QuickGELU(nn.Module):
    """``x · σ(1.702 x)``, the GELU that OpenAI's CLIP was trained with."""

    def forward(self, tensor: Tensor) -> Tensor:
        """Elementwise."""
        return tensor * torch.sigmoid(1.702 * tensor)


ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "quick_gelu": QuickGELU,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
}


class MLP(nn.Module):
    """Two linear layers with an activation between: ``(b, n, d)`` to ``(b, n, d)``.

    Args:
        embed_dim: width of a token.
        mlp_dim: width inside.
        activation: between the layers, or on the gate.
        gated: ``fc1`` is twice as wide and gives gate, then value; ``act(gate) · value`` goes on
            (Shazeer 2020, https://arxiv.org/abs/2002.05202).
        norm_eps: epsilon of a LayerNorm before ``fc2``; none when ``None``.
        bias: whether the layers have biases.
    """

    def __init__(
        self,
        embed_dim: int,
        mlp_dim: int,
        activation: Activation = "gelu",
        *,
        gated: bool = False,
        norm_eps: float | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.gated = gated
        self.fc1 = nn.Linear(embed_dim, 2 * mlp_dim if gated else mlp_dim, bias=bias)
        self.act = ACTIVATIONS[activation]()
        self.norm = nn.LayerNorm(mlp_dim, eps=norm_eps) if norm_eps is not None else nn.Identity()
        self.fc2 = nn.Linear(mlp_dim, embed_dim, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(b, n, d)`` to ``(b, n, d)``."""
        hidden = self.fc1(tokens)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = self.act(gate) * value
        else:
            hidden = self.act(hidden)
        result: Tensor = self.fc2(self.norm(hidden))
        return result
