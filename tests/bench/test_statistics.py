from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vit_deploy.bench.statistics import (
    median,
    median_interval,
    median_rank,
    quantile,
    relative_half_width,
    samples_needed,
    tail_quantile,
)

SAMPLES = st.lists(st.integers(1, 10**12), min_size=1, max_size=300)


@given(SAMPLES, st.sampled_from([0, 0.1, 0.5, 0.9, 0.99, 1]))
def test_quantiles_are_numpys(samples, q):
    assert quantile(samples, q) == pytest.approx(np.quantile(samples, q), rel=1e-12)


def test_a_quantile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        quantile([], 0.5)


# The ranks of Conover's and others' tables of sign-test intervals.
@pytest.mark.parametrize(("count", "rank"), [(0, 0), (5, 0), (6, 1), (9, 2), (20, 6), (50, 18), (100, 40)])
def test_ranks_of_the_median_interval(count, rank):
    assert median_rank(count) == rank


@pytest.mark.parametrize("count", [6, 7, 30, 101, 1000, 4999, 50_000])
def test_the_rank_is_the_largest_that_keeps_the_confidence(count):
    rank = median_rank(count)
    assert 1 - 2 * stats.binom.cdf(rank - 1, count, 0.5) >= 0.95
    assert 1 - 2 * stats.binom.cdf(rank, count, 0.5) < 0.95


def test_the_interval_holds_the_median_as_often_as_it_says():
    generator = random.Random(0)
    held = 0
    for _ in range(2000):
        low, high = median_interval([generator.expovariate(1) for _ in range(40)])
        held += low <= math.log(2) <= high
    # 0.95 promised and 0.9615 exact at 40 samples; four standard deviations either way.
    assert 0.943 < held / 2000 < 0.98


@given(st.lists(st.integers(1, 10**9), min_size=6, max_size=200))
def test_the_interval_is_around_the_median(samples):
    low, high = median_interval(samples)
    assert low <= median(samples) <= high
    assert relative_half_width(samples) == pytest.approx((high - low) / 2 / median(samples))


def test_too_few_samples_have_no_interval():
    assert median_interval([1, 2, 3, 4, 5]) is None
    assert relative_half_width([1, 2, 3, 4, 5]) is None
    assert relative_half_width([]) is None


def test_samples_needed_by_quantile():
    assert [samples_needed(q) for q in (0.5, 0.9, 0.99)] == [6, 36, 368]


@pytest.mark.parametrize(("q", "needed"), [(0.9, 36), (0.99, 368)])
def test_a_tail_is_given_only_with_enough_samples(q, needed):
    assert tail_quantile(range(1, needed), q) is None
    assert tail_quantile(range(1, needed + 1), q) == pytest.approx(np.quantile(range(1, needed + 1), q))
