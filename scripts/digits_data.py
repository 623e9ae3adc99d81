"""The digits that the tiny ViT learns from and is measured on, and the measuring.

Data: scikit-learn's 1,797 digits of 8x8 pixels (the test part of UCI's Optical Recognition of
Handwritten Digits, https://doi.org/10.24432/C50P49, CC BY 4.0). Every digit is drawn as an ordinary
RGB picture of 64x64 pixels and goes through the model's own preprocessing, in training as in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.model.preprocess import Preprocessing

SEED = 2026
HELD_OUT_SHARE = 0.2
PICTURE_SIZE = 64


@dataclass(frozen=True)
class Digits:
    """Scikit-learn's digits and their split.

    Attributes:
        images: ``(1797, 8, 8)``, grey from 0 to 16.
        labels: ``(1797,)``, the digit.
        training: indices that the model learns from, in ascending order.
        held_out: indices that it is measured on, in ascending order.
    """

    images: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    training: np.ndarray[Any, Any]
    held_out: np.ndarray[Any, Any]


def load_digits(seed: int = SEED) -> Digits:
    """The data with its split: a fifth of each class, drawn by ``seed``, is held out."""
    from sklearn.datasets import load_digits as load

    data = load()
    # RandomState's stream is frozen by numpy's compatibility policy, so the split never changes.
    random = np.random.RandomState(seed)
    held_out = []
    for digit in range(10):
        members = random.permutation(np.flatnonzero(data.target == digit))
        held_out.append(members[: round(HELD_OUT_SHARE * len(members))])
    chosen = np.sort(np.concatenate(held_out))
    rest = np.setdiff1d(np.arange(len(data.target)), chosen)
    return Digits(data.images, data.target, rest, chosen)


def draw_picture(digit: np.ndarray[Any, Any]) -> Image.Image:
    """An 8x8 digit, 0 to 16, as an RGB picture of 64x64 pixels, white on black."""
    grey = np.rint(digit * (255 / 16)).astype(np.uint8)
    size = (PICTURE_SIZE, PICTURE_SIZE)
    return Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC).convert("RGB")


def preprocess(pictures: list[Image.Image], preprocessing: Preprocessing) -> Tensor:
    """Pictures to ``(b, 3, 32, 32)`` float32."""
    return torch.from_numpy(np.stack([preprocessing(picture) for picture in pictures]))


@dataclass(frozen=True)
class Measured:
    """What the files in a directory give on the held-out digits.

    Attributes:
        indices: which digits, in ascending order.
        labels: what they are.
        scores: softmax, ``(len(indices), 10)``.
    """

    indices: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    scores: np.ndarray[Any, Any]

    @property
    def right(self) -> np.ndarray[Any, Any]:
        """Whether each is predicted right."""
        return np.asarray(self.scores.argmax(axis=1) == self.labels)

    def __str__(self) -> str:
        count, right = len(self.labels), int(self.right.sum())
        return f"{100 * right / count:.2f} % ({right} of {count})"


def measure(directory: Path) -> Measured:
    """Load the files as any user does, and predict the held-out digits."""
    from vit_deploy.weights import load_model

    digits = load_digits()
    model = load_model(str(directory))
    pictures = [draw_picture(digits.images[index]) for index in digits.held_out]
    with torch.inference_mode():
        logits = model.eager()(preprocess(pictures, model.preprocessing))
    scores = logits.double().softmax(dim=1).numpy()
    return Measured(digits.held_out, digits.labels[digits.held_out], scores)
