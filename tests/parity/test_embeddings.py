"""Cosines of every vector, and the ten nearest neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from vit_deploy.parity.embeddings import MIN_GALLERY, Embeddings, cosines
from vit_deploy.parity.limits import LIMITS

LIMIT = LIMITS["int8"].with_changes({"recall": 0.9})


def exact(count: int = 60) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 16))


def test_cosines_of_vectors_without_length() -> None:
    zero, one = np.zeros(3), np.ones(3)
    assert cosines(np.stack([zero, zero, one, -one]), np.stack([zero, one, one, one])) == pytest.approx(
        [1, 0, 1, -1]
    )


def test_the_least_cosine_is_that_of_any_token_in_any_run() -> None:
    tokens = np.random.default_rng(0).standard_normal((4, 5, 8))
    found = Embeddings("tokens", tokens)
    found.add(range(4), tokens)
    spoiled = tokens[[2]].copy()
    spoiled[0, 3] = -spoiled[0, 3]
    found.add([2], spoiled)
    details = found.details()
    assert details["cosine_min"] == pytest.approx(-1)
    assert details["cosine_mean"] == pytest.approx(1 - 2 / 25)
    assert details["of"] == 4
    assert found.findings(LIMITS["int8"]).broken == ("tokens: a cosine of -1.0000 (limit 0.98)",)
    assert not found.findings(LIMITS["fp32"]).gated


def test_recall_means_nothing_with_few_samples() -> None:
    values = exact(MIN_GALLERY)
    found = Embeddings("embedding", values)
    found.add(range(len(values)), values)
    assert found.details()["recall_at_10"] is None
    assert "41 samples are needed" in found.findings(LIMIT).open[0]


def test_recall_of_what_is_equal_and_of_what_is_not() -> None:
    values = exact()
    same, noisy, other = (Embeddings("embedding", values) for _ in range(3))
    same.add(range(60), values * 3)
    noisy.add(range(60), values + 0.3 * np.random.default_rng(1).standard_normal(values.shape))
    other.add(range(60), np.random.default_rng(2).standard_normal(values.shape))
    assert same.recall() == 1
    assert 0.5 < noisy.recall() < 0.95
    assert other.recall() == pytest.approx(10 / 59, abs=0.06)  # by chance
    assert same.findings(LIMIT).broken == ()
    assert "recall at 10" in noisy.findings(LIMIT).broken[-1]


def test_recall_is_that_of_a_search_written_out() -> None:
    values = exact(45)
    queries = values + 0.5 * np.random.default_rng(1).standard_normal(values.shape)
    found = Embeddings("embedding", values)
    found.add(range(45), queries)

    def ten(query: np.ndarray, own: int) -> set[int]:
        near = {
            index: query @ other / np.linalg.norm(other) for index, other in enumerate(values) if index != own
        }
        return set(sorted(near, key=near.__getitem__, reverse=True)[:10])

    shares = [len(ten(queries[own], own) & ten(values[own], own)) / 10 for own in range(45)]
    assert found.recall() == pytest.approx(np.mean(shares))
