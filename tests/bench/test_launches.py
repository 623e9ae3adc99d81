from __future__ import annotations

import math

import numpy as np
import pytest

from vit_deploy.bench.bootstrap import Estimate
from vit_deploy.bench.launches import (
    SCATTER,
    WITNESSES,
    among_launches,
    by_launch,
    launch_reach,
    median_over_launches,
    over_launches,
    ratio_of_rounds,
)


def test_rounds_fall_into_their_launches():
    rounds = list(range(7))
    assert by_launch(rounds, ()) == [rounds]
    assert by_launch(rounds, (3, 4)) == [[0, 1, 2], [3, 4, 5, 6]]
    assert by_launch(rounds[:5], (3, 4)) == [[0, 1, 2], [3, 4]]  # the last one was cut short
    assert by_launch(rounds, (3, 3, 1)) == [[0, 1, 2], [3, 4, 5, 6]]  # one round tells nothing of its launch
    assert by_launch(rounds, (3, 0, 4)) == [[0, 1, 2], [3, 4, 5, 6]]
    assert by_launch([], (3, 4)) == []


def test_a_single_launch_has_only_what_is_known_beforehand():
    found = over_launches([[1.1] * 20], processes=2)
    reach = launch_reach([0.0], processes=2)
    assert reach == pytest.approx(2.776 * SCATTER * math.sqrt(2), rel=1e-3)  # Student's t of WITNESSES
    assert found.value == pytest.approx(1.1)
    assert found.interval == pytest.approx((1.1 * math.exp(-reach), 1.1 * math.exp(reach)))
    assert launch_reach([0.0], processes=4) == pytest.approx(2 * launch_reach([0.0]))
    assert launch_reach([0.0], confidence=0.99) > launch_reach([0.0])


def test_more_launches_make_it_narrower_and_their_scatter_wider():
    alike = [launch_reach([0.0] * count) for count in (1, 2, 5, 20)]
    assert alike == sorted(alike, reverse=True)
    assert launch_reach([0.0, 0.03, -0.03, 0.03, -0.03]) > 2 * launch_reach([0.0] * 5)
    # What rounds within launches explain is not counted twice.
    apart = [0.01, -0.01, 0.01, -0.01]
    assert launch_reach(apart, within=0.02) == pytest.approx(launch_reach([0.0] * 4))
    assert launch_reach(apart, within=0.005) < launch_reach(apart)
    assert WITNESSES + 4 - 1 == 7


def test_the_figure_is_the_mean_of_launches_and_not_of_rounds():
    found = over_launches([[1.0] * 50, [1.21] * 2])
    assert found.value == pytest.approx(1.1)
    assert over_launches([]) is None
    assert over_launches([[1.0, 1.0], []]).interval is None  # two rounds bound nothing


def test_a_round_that_one_of_two_lacks_is_left_out():
    values, others = [2.0, None, 2.0, 2.2, 2.2, 2.2, 2.0], [1.0, 1.0, None, 1.0, 1.0, 1.0, 1.0]
    found = ratio_of_rounds(values, others, (4, 3))
    first, second = (math.log(2.0) + math.log(2.2)) / 2, math.log(2.2) * 2 / 3 + math.log(2.0) / 3
    assert found.value == pytest.approx(math.exp((first + second) / 2), rel=0.05)


def test_the_median_is_that_of_all_samples_whatever_its_interval():
    generator = np.random.default_rng(3)
    rounds = [generator.normal(10, 0.1, 5).tolist() for _ in range(30)]
    one = median_over_launches(rounds, (30,))
    three = median_over_launches(rounds, (10, 10, 10))
    apart = median_over_launches(
        [[value * (1 + 0.02 * (index // 10)) for value in entry] for index, entry in enumerate(rounds)],
        (10, 10, 10),
    )
    assert one.value == three.value == pytest.approx(np.median(rounds))
    assert three.half_width < one.half_width < apart.half_width
    assert median_over_launches([], ()) is None


def test_a_figure_without_an_interval_stays_without():
    assert among_launches(Estimate(1.02), [0.0]).interval is None
    assert among_launches(Estimate(1.0, (0.0, 2.0)), [0.0]).interval == (0.0, 2.0)


@pytest.mark.parametrize("launches", [2, 3, 5])
@pytest.mark.parametrize(("state", "noise"), [(0.013, 0.005), (0.0, 0.005), (0.013, 0.03)])
def test_a_false_difference_is_rare_whatever_state_each_launch_is_in(launches, state, noise):
    """Two states 1.3 % apart, as they were seen: each process is in one of them for as long as it lives."""
    generator, rounds, trials, alarms = np.random.default_rng(launches), 24, 150, 0
    for _ in range(trials):
        states = generator.integers(0, 2, (2, launches)) * state
        level = np.repeat(states[0] - states[1], rounds)
        ratios = np.exp(level + generator.normal(0, noise, rounds * launches))
        found = ratio_of_rounds(ratios.tolist(), [1.0] * len(ratios), [rounds] * launches)
        alarms += found.excludes(1.0)
    assert alarms / trials <= 0.08  # 5 %, and what 150 trials may differ from it by


def test_two_percent_are_seen_through_the_scatter_of_launches():
    generator, seen = np.random.default_rng(1), 0
    for _ in range(100):
        states = generator.integers(0, 2, (2, 5)) * 0.013
        level = np.repeat(states[0] - states[1], 24) + math.log(1.02)
        ratios = np.exp(level + generator.normal(0, 0.005, 120))
        found = ratio_of_rounds(ratios.tolist(), [1.0] * 120, [24] * 5)
        seen += found.interval[0] > 1
    assert seen >= 90
