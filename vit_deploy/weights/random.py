"""Random weights for a named architecture: for trying the road without a checkpoint.

Each tensor is made when it is read, from the seed and its own name, so that nothing is held and the
same seed gives the same numbers on every machine. The numbers come from the raw stream of numpy's
PCG64, which numpy keeps stable across versions, unlike those of its distributions.

Nothing stands at its initial value: norms are not 1 and 0, biases and positions are not 0. A mistake
that such values would hide shows in the outputs.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.errors import UsageFailed
from vit_deploy.model.architectures import NAMED_CONFIGS, named_config
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.weights.checks import expected_shapes
from vit_deploy.weights.imported import Model
from vit_deploy.weights.source import Source
from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.weights.request import Request


def detects(request: Request) -> bool:
    """Whether the reference names an architecture, and no file of weights comes with it."""
    if request.weights is not None or request.path.is_dir():
        return False
    return request.reference.partition(".")[0] in NAMED_CONFIGS


def load(request: Request) -> Model:
    """The named architecture with random weights.

    Raises:
        UsageFailed: for a name with a tag (``.augreg_in21k``), which asks for trained weights.
    """
    arch, _, tag = request.reference.partition(".")
    if tag:
        raise UsageFailed(
            f"{request.reference!r} names trained weights, and none are built in",
            expected=f"{arch!r} for random weights, or a place to load them from",
            next_command=f"-m hf-hub:timm/{request.reference}",
        )
    if request.arch and request.arch != request.reference:
        raise UsageFailed(
            f"-m names {request.reference!r} and --arch {request.arch!r}", expected="one architecture"
        )
    config = named_config(arch)
    if request.num_classes is not None:
        distilled = config.distillation_head and request.num_classes > 0
        config = replace(config, num_classes=request.num_classes, distillation_head=distilled)
    return random_model(config, arch, request.seed)


def random_model(config: ViTConfig, name: str, seed: int = 0) -> Model:
    """A model of any config with random weights and timm's default preprocessing."""
    weights = Weights(
        WeightTensor(key, shape, "float32", _generator(key, shape, seed))
        for key, shape in expected_shapes(config).items()
    )
    return Model(
        config=config,
        weights=weights,
        preprocessing=Preprocessing.default(config),
        labels=(),
        source=Source("random", name, hashlib.sha256(f"{name}, seed {seed}".encode()).hexdigest()),
    )


def _generator(name: str, shape: tuple[int, ...], seed: int) -> Callable[[], torch.Tensor]:
    return lambda: _random_tensor(name, shape, seed)


def _random_tensor(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Uniform numbers around ``centre``, of the standard deviation that suits the tensor."""
    import numpy as np
    import torch

    count = math.prod(shape)
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") ^ (seed % 2**64)
    raw = np.random.PCG64(key).random_raw((count + 1) // 2).view(np.int32)[:count]
    # 24 bits, sign included, are what a float32 holds exactly: −1 to 1 in steps of 2⁻²³.
    uniform = torch.from_numpy(raw).bitwise_right_shift_(8).to(torch.float32)
    centre, deviation = _centre_and_deviation(name, shape)
    return uniform.mul_(2.0**-23 * deviation * math.sqrt(3)).add_(centre).reshape(shape)


def _centre_and_deviation(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if "norm" in name and name.endswith(".weight"):
        return 1.0, 0.2
    if name.endswith(".gamma"):
        return 0.5, 0.2
    if name.endswith(".bias"):
        return 0.0, 0.1
    if name.endswith(".weight"):
        return 0.0, 1 / math.sqrt(math.prod(shape[1:]))
    return 0.0, 0.5  # learned tokens, positions, and rotary frequencies
