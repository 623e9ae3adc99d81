"""Intervals and rulings of a drop, against likelihoods found by search and coverage found by sums."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from vit_deploy.evaluation.paired import Drop, Share

Z = 1.959963984540054


def score_by_search(lost: int, gained: int, of: int, difference: float) -> float:
    """The statistic with the constrained maximum of the likelihood found by trying, not by a formula."""

    def loss(share: float) -> float:
        cells = ((lost, share + difference), (gained, share), (of - lost - gained, 1 - 2 * share - difference))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    share = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (lost - gained - of * difference) / math.sqrt(of * (2 * share + difference - difference**2))


@pytest.mark.parametrize(
    ("lost", "gained", "of"), [(12, 2, 50), (3, 1, 359), (5, 5, 100), (40, 10, 60), (1, 7, 30)]
)
def test_the_ends_of_the_interval_are_where_the_score_is_the_quantile(lost: int, gained: int, of: int):
    low, high = Drop(lost, gained, of).interval()
    assert score_by_search(lost, gained, of, low / 100) == pytest.approx(Z, abs=2e-3)
    assert score_by_search(lost, gained, of, high / 100) == pytest.approx(-Z, abs=2e-3)


def test_where_nothing_changes_the_interval_is_known_in_closed_form():
    low, high = Drop(0, 0, 360).interval()
    assert high == pytest.approx(100 * Z**2 / (360 + Z**2))
    assert low == pytest.approx(-high)


@pytest.mark.parametrize(("up", "down"), [(0.02, 0.02), (0.1, 0.05), (0.3, 0.1)])
def test_the_interval_covers_the_true_difference_as_often_as_it_says(up: float, down: float):
    of, covered = 40, 0.0
    for lost, gained in product(range(of + 1), repeat=2):
        if lost + gained > of:
            continue
        rest = of - lost - gained
        ways = math.lgamma(of + 1) - sum(math.lgamma(count + 1) for count in (lost, gained, rest))
        chance = math.exp(ways + lost * math.log(up) + gained * math.log(down) + rest * math.log(1 - up - down))
        low, high = Drop(lost, gained, of).interval() if chance > 1e-7 else (1.0, -1.0)
        covered += chance * (low <= 100 * (up - down) <= high)
    assert 0.93 <= covered <= 0.995


def test_mcnemar_is_the_binomial_test_of_the_changes():
    assert Drop(12, 2, 50).p_value == pytest.approx(binomtest(2, 14, 0.5).pvalue)
    assert Drop(0, 0, 50).p_value == 1.0
    assert Drop(3, 3, 50).p_value == 1.0


@pytest.mark.parametrize(
    ("drop", "budget", "ruling"),
    [
        (Drop(40, 0, 359), 0.5, "exceeded"),
        (Drop(0, 0, 539), 0.5, "held"),
        (Drop(0, 0, 538), 0.5, "open"),
        (Drop(0, 0, 2703), 0.1, "held"),
        (Drop(0, 0, 2702), 0.1, "open"),
        (Drop(2, 0, 359), 0.5, "open"),
        (Drop(0, 30, 300), 0.0, "held"),
        (Drop(0, 0, 0), 99.0, "open"),
    ],
)
def test_a_budget_is_held_exceeded_or_open(drop: Drop, budget: float, ruling: str):
    assert drop.ruling(budget) == ruling


def test_what_is_needed_shows_it_and_little_less_does_not():
    assert Drop(0, 0, 100).needed(0.5) == 539
    needed = Drop(1, 0, 360).needed(0.5)
    assert needed is not None
    assert Drop(math.ceil(needed / 360), 0, needed).ruling(0.5) == "held"
    assert Drop(math.ceil(needed / 360), 0, int(0.9 * needed)).ruling(0.5) == "open"
    assert Drop(2, 0, 360).needed(0.5) is None


def test_points_count_what_is_lost_and_turn_with_the_sides():
    assert Drop(3, 1, 200).points == 1.0
    low, high = Drop(3, 1, 200).interval()
    assert Drop(1, 3, 200).interval() == pytest.approx((-high, -low))


def test_a_share_has_the_interval_of_clopper_and_pearson():
    share = Share.counted(353, 359)
    exact = binomtest(353, 359).proportion_ci(0.95, method="exact")
    assert (share.low, share.high) == pytest.approx((exact.low, exact.high))
    assert np.isnan(Share.counted(0, 0).share)
