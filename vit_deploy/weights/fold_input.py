"""Rescaling and normalising, folded into the patch embedding; see :mod:`vit_deploy.model.input_stage`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    import torch

    from vit_deploy.model.preprocess import Preprocessing

WEIGHT, BIAS = "patch_embed.proj.weight", "patch_embed.proj.bias"


def fold_input(weights: Weights, preprocessing: Preprocessing) -> Weights:
    """Weights of a patch embedding that takes levels of 0 to 255 less 128, unread; the rest as it is.

    The patch embedding has a bias afterwards, whether or not it had one.
    """
    weight, bias = weights[WEIGHT], weights.get(BIAS)

    def read_weight() -> torch.Tensor:
        return folded_weight(weight.read(), preprocessing).float()

    def read_bias() -> torch.Tensor:
        return folded_bias(weight.read(), None if bias is None else bias.read(), preprocessing).float()

    folded = {
        WEIGHT: WeightTensor(WEIGHT, weight.shape, "float32", read_weight),
        BIAS: WeightTensor(BIAS, weight.shape[:1], "float32", read_bias),
    }
    return Weights({**weights, **folded}.values())


def folded_weight(weight: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """``(d, c, s1, s2)`` in float64."""
    return weight.double() * (preprocessing.rescale_factor / _constant(preprocessing.std)).view(1, -1, 1, 1)


def folded_bias(weight: torch.Tensor, bias: torch.Tensor | None, preprocessing: Preprocessing) -> torch.Tensor:
    """``(d,)`` in float64."""
    from vit_deploy.model.input_stage import MIDDLE

    mean, std = _constant(preprocessing.mean), _constant(preprocessing.std)
    zero = (mean - MIDDLE * preprocessing.rescale_factor) / std
    taken = weight.double().sum(dim=(2, 3)) @ zero
    return -taken if bias is None else bias.double() - taken


def _constant(values: tuple[float, ...]) -> torch.Tensor:
    """The very numbers that :meth:`Preprocessing.normalise` has: float32, here in float64."""
    import torch

    return torch.tensor(values, dtype=torch.float32).double()
