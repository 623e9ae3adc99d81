from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vit_deploy.parity.criterion import (
    near_ties,
    percentile,
    reference_lengths,
    relative_errors,
    yardsticks,
)
from vit_deploy.parity.limits import LIMITS
from vit_deploy.spec import PRECISIONS

NUMBERS = st.floats(-1e3, 1e3).map(lambda value: value if abs(value) > 1e-3 else 1.0)
REFERENCES = arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(1, 5)), elements=NUMBERS)
FLOOR = LIMITS["fp32"].floor(12)


def test_every_precision_has_its_limits() -> None:
    assert set(LIMITS) == set(PRECISIONS)
    assert (LIMITS["fp32"].p95, LIMITS["fp32"].worst) == (4, 10)
    for half in (LIMITS["fp16"], LIMITS["bf16"]):
        assert (half.p95, half.worst) == (2, 4)
    assert LIMITS["fp32"].floor(16) == 2.0**-23 * 4


@given(REFERENCES)
def test_what_is_identical_has_no_error(reference: np.ndarray) -> None:
    assert not relative_errors(reference, reference).any()


@given(REFERENCES, st.integers(0, 2**32 - 1), st.sampled_from(PRECISIONS))
def test_an_artefact_that_errs_as_eager_does_has_a_ratio_of_at_most_one(
    reference: np.ndarray, seed: int, precision: str
) -> None:
    eager = reference * (1 + 1e-2 * np.random.default_rng(seed).standard_normal(reference.shape))
    errors = relative_errors(eager, reference)
    granted = yardsticks(errors, reference_lengths(reference), LIMITS[precision], 12)
    ratios = relative_errors(eager, reference) / granted
    assert (ratios <= 1).all()
    if precision == "fp32":
        assert ratios == pytest.approx(np.where(errors > FLOOR, 1, errors / FLOOR))


@given(REFERENCES, st.integers(0, 2**32 - 1), st.integers(-20, 20))
def test_a_change_of_scale_changes_no_ratio(reference: np.ndarray, seed: int, exponent: int) -> None:
    scale = 2.0**exponent
    generator = np.random.default_rng(seed)
    eager = reference * (1 + 1e-3 * generator.standard_normal(reference.shape))
    found = reference * (1 + 1e-3 * generator.standard_normal(reference.shape))

    def ratios(factor: float) -> np.ndarray:
        scaled = reference * factor
        lengths = reference_lengths(scaled)
        granted = yardsticks(relative_errors(eager * factor, scaled), lengths, LIMITS["bf16"], 4)
        return relative_errors(found * factor, scaled) / granted

    assert ratios(scale) == pytest.approx(ratios(1.0), rel=1e-9)


@given(REFERENCES, st.floats(1e-6, 1e3))
def test_an_error_of_known_size_is_measured(reference: np.ndarray, size: float) -> None:
    assert relative_errors(reference * (1 + size), reference) == pytest.approx(size, rel=1e-6)


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1)))
def test_the_percentile_lies_below_the_worst(ratios: np.ndarray) -> None:
    assert ratios.min() <= percentile(ratios) <= ratios.max()


def test_errors_are_taken_for_each_token() -> None:
    reference = np.ones((2, 3, 4))
    found = reference.copy()
    found[1, 2] = 3
    assert relative_errors(found, reference).tolist() == [[0, 0, 0], [0, 0, 2]]


def test_a_reference_of_length_zero_is_compared_by_absolute_error() -> None:
    zero = np.zeros((1, 4))
    assert relative_errors(zero, zero).tolist() == [0]
    assert relative_errors(zero + 0.5, zero).tolist() == [1]
    assert np.isfinite(yardsticks(np.zeros(1), reference_lengths(zero), LIMITS["fp16"], 12)).all()


def test_where_eager_overflows_it_grants_nothing() -> None:
    errors = np.array([np.nan, np.inf, 1e-3])
    granted = yardsticks(errors, np.ones(3), LIMITS["fp16"], 4)
    assert np.isfinite(granted).all()
    assert granted[0] == granted[1] == pytest.approx(1e-3)
    blind = yardsticks(np.full(3, np.nan), np.ones(3), LIMITS["fp16"], 4)
    assert blind == pytest.approx(LIMITS["fp16"].floor(4))


def test_eager_errors_by_luck_do_not_tighten_the_half_precisions() -> None:
    errors = np.array([1e-9, 1e-3, 1e-3, 1e-3])
    granted = yardsticks(errors, np.array([2.0, 1, 1, 1]), LIMITS["fp16"], 1)
    assert granted[0] == pytest.approx(5e-4)
    assert yardsticks(errors, np.ones(4), LIMITS["fp32"], 1)[0] == 2.0**-23


def test_honest_rounding_swaps_the_first_two_classes_at_near_ties_only() -> None:
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((20_000, 50))
    granted = np.full(len(logits), 0.05)
    noise = generator.standard_normal(logits.shape)
    noise *= (granted * reference_lengths(logits) / np.linalg.norm(noise, axis=-1))[:, None]
    swapped = (logits + noise).argmax(axis=-1) != logits.argmax(axis=-1)
    ties = near_ties(logits, granted)
    assert (swapped & ties).sum() > 100
    assert (swapped & ~ties).sum() <= 2
    assert 0.1 < ties.mean() < 0.6
