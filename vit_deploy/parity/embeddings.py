"""What a user of an artefact's embeddings would notice: other directions, other nearest neighbours.

Every output that is no logits counts: each of its vectors (each token of a token output) has a cosine with
the exact one, and the mean over its vectors is what a sample is found by. Neighbours are looked up by
cosine among the exact embeddings of the other samples, as in a retrieval index that was built before the
artefact came to answer the queries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.parity.decisions import Findings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vit_deploy.parity.criterion import Floats
    from vit_deploy.parity.limits import Limits

NEIGHBOURS = 10
MIN_GALLERY = 40
"""Other samples at least: ten of forty are met by chance in a quarter of the cases, ten of fifteen in two
thirds of them."""


class Embeddings:
    """One output of an artefact over all samples.

    Args:
        name: of the output.
        exact: ``(s, ..., d)``.
    """

    def __init__(self, name: str, exact: Floats) -> None:
        import numpy as np

        self.name = name
        self._exact = exact
        self._least = np.ones(len(exact))
        self._sum, self._count = 0.0, 0
        self._pooled: dict[int, Floats] = {}

    def add(self, indices: Sequence[int], found: NDArray[Any]) -> None:
        """Note one run.

        Args:
            indices: which sample stood in each slot.
            found: finite, ``(batch_size, ..., d)``.
        """
        import numpy as np

        values = found.astype(np.float64)
        near = cosines(values, self._exact[list(indices)]).reshape(len(values), -1)
        self._sum, self._count = self._sum + float(near.sum()), self._count + near.size
        for slot, index in enumerate(indices):
            self._least[index] = min(self._least[index], near[slot].min())
            self._pooled.setdefault(index, pooled(values[slot]))

    def findings(self, limits: Limits) -> Findings:
        """What the limits say of the embeddings."""
        broken, left_open = [], []
        least = float(self._least.min())
        if limits.cosine is not None and least < limits.cosine:
            broken.append(f"{self.name}: a cosine of {least:.4f} (limit {limits.cosine:g})")
        recall = self.recall()
        if limits.recall is not None and recall is None:
            left_open.append(
                f"{self.name}: {NEIGHBOURS} nearest neighbours among {len(self._exact) - 1} samples say "
                f"nothing; {MIN_GALLERY + 1} samples are needed"
            )
        elif limits.recall is not None and recall is not None and recall < limits.recall:
            broken.append(f"{self.name}: recall at {NEIGHBOURS} of {recall:.1%} (limit {limits.recall:.1%})")
        gated = limits.cosine is not None or limits.recall is not None
        return Findings(tuple(broken), tuple(left_open), gated)

    def recall(self) -> float | None:
        """The mean share of the ten nearest neighbours that are the same; ``None`` with too few samples."""
        import numpy as np

        if len(self._pooled) < MIN_GALLERY + 1:
            return None
        places = sorted(self._pooled)
        gallery = unit(np.stack([pooled(self._exact[index]) for index in places]))
        queries = unit(np.stack([self._pooled[index] for index in places]))
        same = [
            len(np.intersect1d(_nearest(gallery @ query, own), _nearest(gallery @ gallery[own], own)))
            for own, query in enumerate(queries)
        ]
        return float(np.mean(same)) / NEIGHBOURS

    def details(self) -> dict[str, Any]:
        """Every figure, as plain data."""
        return {
            "cosine_min": float(self._least.min()),
            "cosine_mean": self._sum / max(1, self._count),
            "recall_at_10": self.recall(),
            "of": len(self._pooled),
        }


def pooled(vectors: Floats) -> Floats:
    """The mean over all but the last axis: ``(..., d)`` to ``(d,)``."""
    mean: Floats = vectors.reshape(-1, vectors.shape[-1]).mean(axis=0)
    return mean


def unit(vectors: Floats) -> Floats:
    """Of length 1 over the last axis; what has no length stays as it is."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Floats = vectors / np.where(lengths > 0, lengths, 1.0)
    return scaled


def cosines(one: Floats, other: Floats) -> Floats:
    """Over the last axis; 1 where both vectors are zero, and 0 where one of them is."""
    import numpy as np

    product = (unit(one) * unit(other)).sum(axis=-1)
    both_zero = ~one.any(axis=-1) & ~other.any(axis=-1)
    near: Floats = np.clip(np.where(both_zero, 1.0, product), -1.0, 1.0)
    return near


def _nearest(likeness: Floats, own: int) -> NDArray[Any]:
    """The places of the ten that are most alike, but for the sample itself."""
    import numpy as np

    others = likeness.copy()
    others[own] = -np.inf
    return np.argsort(-others, kind="stable")[:NEIGHBOURS]
