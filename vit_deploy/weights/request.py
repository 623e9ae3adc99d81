"""What a user asked to be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """What :func:`vit_deploy.weights.load_model` was given.

    Attributes:
        reference: a named architecture, a directory, a file, or ``hf-hub:ORG/NAME``, or
            ``py:package.module:factory``.
        arch: the architecture of a bare checkpoint file.
        weights: a bare checkpoint file for the architecture that ``reference`` names.
        num_classes: the number of classes; the checkpoint's own when ``None``.
        seed: of random weights.
        use_ema: take the moving average of the weights that a training script's checkpoint has.
        name: what the owner of the checkpoint calls it, where that is known (a hub name).
        image_size: ``(height, width)`` to be resampled to; the checkpoint's own when ``None``.
        input_shape: of a module: ``3x224x224``, or ``image:3x224x224,state:8``, without the batch.
    """

    reference: str
    arch: str = ""
    weights: Path | None = None
    num_classes: int | None = None
    seed: int = 0
    use_ema: bool = False
    name: str = ""
    image_size: tuple[int, int] | None = None
    input_shape: str = ""

    @property
    def path(self) -> Path:
        """The reference as a path."""
        return Path(self.reference)
