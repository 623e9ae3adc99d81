"""What quantising did to a model's outputs: how far they moved, and how many decisions with them.

The fp32 graph stands for eager PyTorch: it is proven equal to it before an artefact of it is accepted, and
comes with the very inputs of the quantised one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Outputs = Mapping[str, NDArray[Any]]
    """By name, every picture along the first axis."""

LOGITS = "logits"


def moved(reference: Outputs, found: Outputs) -> float:
    """The mean over pictures of ``|y - y'|**2 / |y|**2``, summed over the outputs; infinite for NaN."""
    import numpy as np

    total = 0.0
    for name, exact in reference.items():
        right, wrong = (_flat(array) for array in (exact, found[name]))
        power = np.maximum((right**2).sum(axis=1), np.finfo(np.float64).tiny)
        total += float((((wrong - right) ** 2).sum(axis=1) / power).mean())
    return total if np.isfinite(total) else float("inf")


def drop_of(reference: Outputs, found: Outputs, labels: Sequence[int] | None = None) -> tuple[float, str]:
    """What is lost, in points, and points of what.

    With labels it is top-1 accuracy that the fp32 graph has and the other has not. Without, it is pictures
    whose first class is another. Where there are no logits of two classes or more, it is what the mean cosine
    of the first output lacks to 1.

    Args:
        reference: of the fp32 graph.
        found: of the other.
        labels: the right class of each picture.
    """
    import numpy as np

    logits = reference.get(LOGITS)
    if logits is None or logits.shape[-1] < 2:
        name = next(iter(reference))
        return 100 * (1 - _mean_cosine(_flat(reference[name]), _flat(found[name]))), f"cosine of {name}"
    before, after = logits.argmax(axis=-1), found[LOGITS].argmax(axis=-1)
    broken = ~np.isfinite(found[LOGITS]).all(axis=-1)
    if labels is None:
        return 100 * float(((before != after) | broken).mean()), "top-1 agreement with fp32"
    right = np.asarray(labels)
    lost = (before == right).astype(float) - ((after == right) & ~broken)
    return 100 * float(lost.mean()), "top-1 accuracy"


def _mean_cosine(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> float:
    import numpy as np

    lengths = np.linalg.norm(right, axis=1) * np.linalg.norm(wrong, axis=1)
    cosines = (right * wrong).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return float(np.nan_to_num(cosines, nan=-1.0).mean())


def _flat(array: NDArray[Any]) -> NDArray[np.float64]:
    import numpy as np

    return np.asarray(array, dtype=np.float64).reshape(len(array), -1)
