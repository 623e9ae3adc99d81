"""The bounds of Clopper and Pearson against the sums that define them, and against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_deploy.parity.binomial import clopper_pearson, needed

COUNTS = st.integers(1, 120).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))
CONFIDENCES = st.sampled_from([0.8, 0.95, 0.99, 0.999])


def at_least(count: int, of: int, share: float) -> float:
    """The probability of ``count`` or more of ``of``, term by term, in whole numbers as far as they go."""
    terms = (math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(count, of + 1))
    return math.fsum(terms)


@settings(deadline=None, max_examples=40)
@given(COUNTS, CONFIDENCES)
def test_at_the_bounds_what_was_seen_is_just_unlikely_enough(
    counts: tuple[int, int], confidence: float
) -> None:
    agreed, of = counts
    lower, upper = clopper_pearson(agreed, of, confidence)
    assert 0 <= lower <= upper <= 1
    assert agreed == 0 or at_least(agreed, of, lower) == pytest.approx(1 - confidence)
    assert agreed == of or at_least(of - agreed, of, 1 - upper) == pytest.approx(1 - confidence)
    assert agreed or lower == 0
    assert agreed < of or upper == 1


def test_the_lower_bound_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    for share in (0.7, 0.95, 0.99):
        seen = generator.binomial(40, share, size=4000)
        bounds = {count: clopper_pearson(int(count), 40, 0.95)[0] for count in set(seen.tolist())}
        covered = np.mean([bounds[count] <= share for count in seen.tolist()])
        assert covered >= 0.945


def test_without_samples_nothing_is_known() -> None:
    assert clopper_pearson(0, 0, 0.95) == (0.0, 1.0)


def test_what_few_samples_can_show() -> None:
    assert clopper_pearson(16, 16, 0.95)[0] == pytest.approx(0.05 ** (1 / 16))
    assert clopper_pearson(16, 16, 0.95)[0] == pytest.approx(0.829, abs=5e-4)
    assert [needed(0, share, 0.95) for share in (0.8, 0.9, 0.95, 0.98, 0.99)] == [14, 29, 59, 149, 299]
    assert [needed(misses, 0.95, 0.95) for misses in range(4)] == [59, 93, 124, 153]
    assert needed(0, 1.0, 0.95) is None


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 20), st.floats(0.5, 0.99), CONFIDENCES)
def test_as_many_samples_as_are_needed_show_it_and_one_fewer_do_not(
    misses: int, share: float, confidence: float
) -> None:
    of = needed(misses, share, confidence)
    assert of is not None
    assert clopper_pearson(of - misses, of, confidence)[0] >= share - 1e-9
    if of - 1 > misses:
        assert clopper_pearson(of - 1 - misses, of - 1, confidence)[0] <= share + 1e-9
