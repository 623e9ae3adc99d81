from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vit_deploy.bench.bootstrap import (
    Estimate,
    block_length,
    clustered_median,
    estimate,
    midmean,
    paired,
    round_medians,
    round_rates,
    student_t,
)

ROUNDS = st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=9), min_size=6, max_size=40)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 101])
def test_the_midmean_is_the_trimmed_mean(count):
    values = np.random.default_rng(0).standard_normal((3, count))
    assert midmean(values) == pytest.approx(stats.trim_mean(values, 0.25, axis=1))


@pytest.mark.parametrize("freedom", [3, 5, 9, 30, 1000])
@pytest.mark.parametrize("probability", [0.975, 0.995])
def test_students_t(probability, freedom):
    assert student_t(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom))


def test_too_few_rounds_have_a_value_and_no_interval():
    assert estimate([]) is None
    assert clustered_median([[]]) is None
    assert estimate([2.0] * 5) == Estimate(pytest.approx(2.0))
    assert clustered_median([[1, 3]] * 5) == Estimate(2.0)
    assert estimate([2.0] * 6).interval == pytest.approx((2.0, 2.0))


@given(ROUNDS)
def test_an_interval_is_around_its_value(rounds):
    for found in (estimate([max(entry) for entry in rounds]), clustered_median(rounds)):
        if found.interval is not None:
            low, high = found.interval
            assert low <= found.value <= high
            assert not found.excludes(found.value)
            assert found.half_width == pytest.approx((high - low) / 2 / found.value)


@given(ROUNDS, st.floats(0.01, 100))
def test_a_ratio_knows_no_unit(rounds, factor):
    values = [float(max(entry)) for entry in rounds]
    here, there = estimate(values), estimate([factor * value for value in values])
    assert there.value == pytest.approx(factor * here.value)
    assert there.interval == pytest.approx([factor * end for end in here.interval])


def test_the_same_rounds_give_the_same_interval():
    values = list(np.random.default_rng(0).lognormal(0, 0.1, 50))
    assert estimate(values) == estimate(values)
    assert estimate(values) != estimate(values, seed=1)
    wide = estimate(values, confidence=0.99)
    assert wide.half_width > estimate(values).half_width


def test_ratios_are_paired_by_round():
    # The machine slows down threefold in the middle, for both alike: unpaired medians would say 20/30.
    mine, theirs = [[10], [30], [10], [30]], [[20], [60], [20], [60]]
    assert paired(round_medians(mine), round_medians(theirs)) == [0.5] * 4
    assert paired(round_medians([[1], [], [3]]), round_medians([[2], [2], [], [2]])) == [0.5, None, None]
    assert round_rates([[5, 5], []], [20, 0]) == [1e8, None]


def noise(generator, trials, count, reach, deviation):
    """Noise that forgets itself within ``reach`` steps (Ornstein-Uhlenbeck): ``(trials, count)``."""
    keeps = math.exp(-1 / reach)
    present = generator.standard_normal(trials)
    found = np.empty((count, trials))
    for step in range(count):
        found[step] = present
        present = keeps * present + math.sqrt(1 - keeps**2) * generator.standard_normal(trials)
    return deviation * found.T


def machine_ratios(generator, trials, rounds):
    """Log-ratios of two equal workers on a machine as it was measured: slow drift, gusts, bursts, jitter.

    Two turns a round, ten steps a turn, a step of 10 ms, in an order that is drawn for each round.
    """
    steps = rounds * 2 * 10
    load = noise(generator, trials, steps, 2000, 0.03) + noise(generator, trials, steps, 50, 0.03)
    load += 0.3 * (noise(generator, trials, steps, 40, 1.0) > 1.3)
    load += 0.02 * generator.standard_t(3, load.shape)
    turns = np.median(load.reshape(trials, rounds, 2, 10), axis=-1)
    return (turns[..., 0] - turns[..., 1]) * generator.choice([-1, 1], (trials, rounds))


def share_that_excludes(log_ratios, value):
    found = [estimate(np.exp(row)) for row in log_ratios]
    return sum(entry.excludes(value) for entry in found) / len(found)


@pytest.mark.parametrize("rounds", [12, 30, 100])
def test_noise_of_the_moment_raises_few_false_alarms(rounds):
    ratios = machine_ratios(np.random.default_rng(rounds), 400, rounds)
    # 5 % allowed; three standard deviations of 400 trials above what it is built for.
    assert share_that_excludes(ratios, 1.0) <= 0.08


def test_two_percent_are_seen_in_a_hundred_rounds():
    ratios = machine_ratios(np.random.default_rng(7), 200, 100)
    assert share_that_excludes(ratios + math.log(1.02), 1.0) >= 0.9


def test_noise_of_a_process_widens_the_interval():
    generator = np.random.default_rng(1)
    alone = 0.01 * generator.standard_normal((200, 150))
    lasting = alone + noise(generator, 200, 150, 8, 0.01)
    single, longer = (np.mean([block_length(row) for row in rows]) for rows in (alone, lasting))
    assert single < 9 < longer
    alarms = share_that_excludes(lasting, 1.0)
    assert alarms < 0.2
    one_by_one = np.abs(lasting.mean(axis=1)) > 1.96 * lasting.std(axis=1) / math.sqrt(150)
    assert one_by_one.mean() > 2 * alarms


@pytest.mark.parametrize("reach", [0.01, 30])
def test_the_interval_of_a_median_knows_that_a_rounds_samples_are_alike(reach):
    generator = np.random.default_rng(5)
    trials, rounds, each = 300, 40, 10
    load = noise(generator, trials, rounds * each, reach, 1.0)
    # In so few rounds of noise that lasts as long as three of them, some is left that none can see.
    found = [clustered_median((100 + row).reshape(rounds, each).tolist()) for row in load]
    held = np.mean([not entry.excludes(100.0) for entry in found])
    assert held >= (0.92 if reach < 1 else 0.82)


def test_a_few_long_steps_have_the_interval_of_their_order_statistics():
    steps = [681.0, 657.0, 667.0, 699.0, 674.0, 693.0]
    assert clustered_median([[step] for step in steps]).interval == (657.0, 699.0)
