"""Keeps the stages of one model on the disk until those of the other are there to be compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class Spool:
    """The reference's stages on the disk, and how far ours are from them.

    Attributes:
        errors: the largest relative error of each stage so far.
        complaints: what kept a stage from being compared.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.errors: dict[str, float] = {}
        self.complaints: list[str] = []

    def _path(self, picture: int, name: str) -> Path:
        return self._folder / f"{picture}-{name}.npy"

    def keep(self, picture: int, name: str, value: Tensor) -> None:
        """Put a stage of the reference on the disk."""
        import numpy as np

        np.save(self._path(picture, name), value.detach().double().contiguous().numpy())

    def measure(self, picture: int, name: str, ours: Tensor) -> None:
        """Count a stage of ours in, if the reference has it, and take the reference's off the disk."""
        import numpy as np
        import torch

        path = self._path(picture, name)
        if not path.exists():
            return
        reference = torch.from_numpy(np.load(path))
        path.unlink()
        if reference.shape != ours.shape:
            error = math.inf
            self.complaints.append(f"its shape is {tuple(ours.shape)} here and {tuple(reference.shape)} there")
        else:
            error = _relative(ours, reference)
        self.errors[name] = max(error, self.errors.get(name, 0.0))


def _relative(ours: Tensor, reference: Tensor) -> float:
    """``|ours - reference| / |reference|``; infinite where that is no number."""
    length = float(reference.norm())
    distance = float((ours - reference).norm())
    if not math.isfinite(length) or not math.isfinite(distance):
        return math.inf
    return distance / length if length else (math.inf if distance else 0.0)
