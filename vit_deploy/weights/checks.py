"""What weights must satisfy before they are a model's: its names, its shapes, and finite values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.errors import HostileInput, ImportFailed, nearest
from vit_deploy.weights.tensors import WeightTensor

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.weights.tensors import Weights

_READERS = 2
"""Threads that look at weights; each has one in hand, or a window of it."""


def expected_shapes(config: ViTConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the state dict that a config asks for, in the model's order."""
    import torch

    from vit_deploy.model.vit import ViT

    # All blocks are alike, and making forty of them takes longer than reading small weights. What is
    # outside the blocks and grows with their number (learned rotary frequencies) needs them all.
    grows = config.rotary is not None and config.rotary.learned
    with torch.device("meta"):
        made = ViT(config if grows else replace(config, depth=1)).state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, value in made.items():
        if grows or not name.startswith("blocks.0."):
            shapes[name] = tuple(value.shape)
        elif name not in shapes:
            block = {inner: tuple(made[inner].shape) for inner in made if inner.startswith("blocks.0.")}
            shapes |= {
                f"blocks.{index}.{inner.removeprefix('blocks.0.')}": shape
                for index in range(config.depth)
                for inner, shape in block.items()
            }
    return shapes


_THE_CONFIG = "the config"
_FITTING = (
    "give a bare file the --arch that fits (vit-deploy models), a directory the config.json saved with it"
)


def check_names(expected: dict[str, tuple[int, ...]], found: Weights, origin: str = _THE_CONFIG) -> None:
    """Refuse missing and unexpected weights, with the nearest names.

    Args:
        expected: shapes by name.
        found: what the checkpoint holds.
        origin: whose the expected weights are.

    Raises:
        ImportFailed: naming up to five of each.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if not missing and not extra:
        return
    parts = []
    if missing:
        shown = [f"{name!r}{_nearest_hint(name, extra)}" for name in missing[:5]]
        parts.append(f"{len(missing)} missing ({', '.join(shown)}{', …' if len(missing) > 5 else ''})")
    if extra:
        shown = [f"{name!r}{_nearest_hint(name, missing)}" for name in extra[:5]]
        parts.append(f"{len(extra)} unexpected ({', '.join(shown)}{', …' if len(extra) > 5 else ''})")
    raise ImportFailed(
        f"the checkpoint's weights do not fit the architecture: {'; '.join(parts)}",
        expected=f"the {len(expected)} weights of the architecture and no others",
        next_command=_remedy(origin, _FITTING),
    )


def _nearest_hint(name: str, candidates: list[str]) -> str:
    close = nearest(name, candidates, limit=1)
    return f", nearest: {close[0]!r}" if close else ""


def _shape_hint(name: str) -> str:
    if name == "pos_embed":
        return "give the size that it was trained at (--arch, or config.json); --image-size resamples it"
    if name.startswith("head"):
        return "give --num-classes with the checkpoint's own number of classes"
    return _FITTING


def _remedy(origin: str, hint: str) -> str:
    """The next step: a module of a user's own has no --arch."""
    return hint if origin == _THE_CONFIG else "save the weights from the module that the factory gives"


def check_shapes(expected: dict[str, tuple[int, ...]], found: Weights, origin: str = _THE_CONFIG) -> None:
    """Refuse a weight whose shape is not the expected one.

    Raises:
        ImportFailed: naming the first.
    """
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise ImportFailed(
                f"weight {name!r} has shape {found[name].shape}",
                expected=f"shape {shape}, from {origin}",
                next_command=_shape_hint(name),
            )


def check_finite(weights: Weights) -> None:
    """Refuse NaN and Inf.

    Raises:
        HostileInput: naming the first weight that holds any.
    """
    from concurrent.futures import ThreadPoolExecutor

    # Reading and summing are done outside the interpreter's lock. In threads of their own they are also
    # spared torch's, which wait for each other where they touch one new mapping.
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        counts = pool.map(WeightTensor.nonfinite, weights.values())
        for (name, tensor), bad in zip(weights.items(), counts, strict=True):
            if bad:
                pool.shutdown(cancel_futures=True)
                raise HostileInput(
                    f"weight {name!r} holds {bad} NaN or Inf of {tensor.numel} values",
                    expected="finite weights",
                    next_command="repair the checkpoint, or pass --allow-nonfinite to go on with it",
                )
