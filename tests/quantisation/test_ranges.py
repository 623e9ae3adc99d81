"""Thresholds against those found by trying: quantise every value, and take the least error."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from vit_deploy.errors import UsageFailed
from vit_deploy.quantisation.observe import Observed, _Counter
from vit_deploy.quantisation.ranges import FP8_LEVELS, METHODS, codes, noise, squared_error, threshold


def _seen(values: np.ndarray) -> Observed:
    counter = _Counter("x", means=False)
    counter.add(values.reshape(-1, 10).astype(np.float32))
    return counter.observed()


def _quantised(values: np.ndarray, limit: float, levels: int) -> np.ndarray:
    scaled = np.clip(values / limit * levels, -levels, levels)
    rounded = scaled.astype(ml_dtypes.float8_e4m3fn).astype(float) if levels == FP8_LEVELS else np.rint(scaled)
    return np.asarray(rounded * limit / levels)


def _error(values: np.ndarray, limit: float, levels: int) -> float:
    return float(((_quantised(values, limit, levels) - values) ** 2).mean())


NORMAL = np.random.default_rng(1).standard_normal(40_000)
HEAVY = np.random.default_rng(2).standard_t(3, 40_000)
OUTLIERS = np.concatenate([np.random.default_rng(3).standard_normal(39_990), np.full(10, 60.0)])
SHAPES = pytest.mark.parametrize("values", [NORMAL, HEAVY, OUTLIERS], ids=["normal", "heavy", "outliers"])
KINDS = pytest.mark.parametrize("levels", [127, FP8_LEVELS], ids=["int8", "fp8"])


def test_the_codes_of_fp8_are_those_of_the_dtype():
    every = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(float)
    expected = np.unique(every[np.isfinite(every) & (every >= 0)])
    assert codes(FP8_LEVELS) * FP8_LEVELS == pytest.approx(expected)


def test_the_codes_of_int8_are_even():
    assert codes(127) * 127 == pytest.approx(np.arange(128))


@SHAPES
def test_minmax_is_the_largest_value(values: np.ndarray):
    assert threshold(_seen(values), "minmax") == pytest.approx(np.abs(values).max())


def test_minmax_sees_the_negative_side():
    assert threshold(_seen(np.linspace(-7, 3, 1000)), "minmax") == pytest.approx(7)


@SHAPES
def test_the_percentile_leaves_so_many_values_outside(values: np.ndarray):
    found = threshold(_seen(values), "percentile")
    assert (np.abs(values) > found).sum() <= len(values) * 1e-4 + 2
    if values is not OUTLIERS:
        assert found == pytest.approx(np.quantile(np.abs(values), 0.9999), rel=0.02)


@SHAPES
@KINDS
def test_the_error_of_a_histogram_is_that_of_its_values(values: np.ndarray, levels: int):
    seen = _seen(values)
    for share in (0.05, 0.3, 1.0):
        limit = share * seen.absolute_max
        (found,) = squared_error(seen, np.array([limit]), codes(levels))
        assert found == pytest.approx(_error(values, limit, levels), rel=0.02)


@SHAPES
@KINDS
def test_mse_is_as_good_as_the_best_of_many(values: np.ndarray, levels: int):
    tried = np.abs(values).max() * np.geomspace(1 / 64, 1, 100)
    best = min(_error(values, limit, levels) for limit in tried)
    found = threshold(_seen(values), "mse", levels=levels)
    assert _error(values, found, levels) <= 1.03 * best


def test_clipping_methods_give_up_a_lone_outlier():
    values = np.concatenate([NORMAL[:-10], [5000.0] + [0.0] * 9])
    seen = _seen(values)
    assert threshold(seen, "minmax") == pytest.approx(5000)
    assert threshold(seen, "percentile") < 10
    assert threshold(seen, "entropy") < 10


def test_entropy_clips_what_is_rare_and_fp8_has_no_need_to():
    values = np.concatenate([NORMAL, np.random.default_rng(4).uniform(-40, 40, 50)])
    seen = _seen(values)
    assert 2 < threshold(seen, "entropy") < 15
    assert threshold(seen, "entropy", levels=FP8_LEVELS) > 30


def test_entropy_keeps_what_is_common():
    values = np.random.default_rng(6).uniform(-3, 3, 40_000)
    assert threshold(_seen(values), "entropy") == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("method", METHODS)
@KINDS
def test_the_range_follows_the_values_scale(method: str, levels: int):
    one, other = (threshold(_seen(HEAVY * scale), method, levels=levels) for scale in (1.0, 2.0**-20))
    assert other == pytest.approx(one * 2.0**-20)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_have_a_range(method: str):
    assert threshold(_seen(np.zeros(1000)), method) == 1.0


@pytest.mark.parametrize("method", METHODS)
def test_one_value_is_its_own_range(method: str):
    seen = _seen(np.full(1000, -0.75))
    found = threshold(seen, method)
    assert 0.7 < found <= 0.75
    assert noise(seen, 0.75) < 1e-3


def test_noise_is_a_share_of_the_power():
    seen = _seen(NORMAL)
    found = noise(seen, 4.0)
    assert found == pytest.approx(_error(NORMAL, 4.0, 127) / (NORMAL**2).mean(), rel=0.02)
    assert noise(_seen(np.zeros(100)), 1.0) == 0.0


def test_an_unknown_method_lists_those_there_are():
    with pytest.raises(UsageFailed, match="'mean'") as raised:
        threshold(_seen(NORMAL), "mean")
    assert "percentile" in raised.value.expected
