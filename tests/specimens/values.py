"""Seeded values for every parameter of a module, away from what they were initialised to.

An identity LayerScale, a zero bias or a norm of ones would hide a mistake of an importer: it may be
dropped, doubled or taken from the wrong block, and nothing changes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_RULES: tuple[tuple[str, float, float], ...] = (
    (r"(^|\.)(gamma|gamma_[12]|ls[12]|lambda1|lambda_[12])$", 0.5, 0.2),
    (r"logit_(scale|bias)$|temperature", 1.0, 0.2),
    (r"freqs$", 0.0, 1.0),
    (r"bias_table$|rel_pos", 0.0, 0.5),
    (r"pos|token|latent|probe|query$|class_embedding|reg", 0.0, 0.5),
    (r"bias$", 0.0, 0.1),
)
"""Names of parameters that no matrix has, and the centre and half-width of their values."""


def _is_norm(module: torch.nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def randomise(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Give every parameter of ``module`` seeded values; evaluation mode.

    Norm weights are 1 ± 0.2, LayerScales 0.5 ± 0.2, positions, tokens and relative tables ± 0.5, biases
    ± 0.1, and matrices normal with a deviation of one over the root of their fan-in.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    norms = {name for name, child in module.named_modules() if _is_norm(child)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            owner, _, own = name.rpartition(".")
            parameter.copy_(_values(name, parameter, owner in norms and own == "weight", generator))
    return module.eval()


def _values(name: str, parameter: torch.Tensor, is_norm: bool, generator: torch.Generator) -> torch.Tensor:
    import torch

    uniform = 2 * torch.rand(parameter.shape, generator=generator) - 1
    if is_norm:
        return 1 + 0.2 * uniform
    own = name.rpartition(".")[2]
    # The weights of a layer called `pos_proj` are a matrix; only a parameter's own name tells.
    for pattern, centre, width in _RULES:
        if own != "weight" and re.search(pattern, own):
            return centre + width * uniform
    if parameter.ndim < 2:
        return 0.5 * uniform
    if re.search(r"(position|pos)_embed\w*\.weight$", name):
        return 0.5 * uniform
    fan_in = parameter.numel() // parameter.shape[0]
    return torch.randn(parameter.shape, generator=generator) / fan_in**0.5
