"""Which runs judge an artefact: no sample, slot or batch size is left out; and how many they are."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from vit_deploy.parity.declared import batch_sizes
from vit_deploy.parity.plan import plan_runs, spread_samples
from vit_deploy.spec import BatchRange

FAMILIES = (
    *("pink", "constant", "pink", "saturated", "pink", "checkerboard", "pink", "gradient"),
    *("pink", "impulse", "pink", "uniform", "quadrants", "normal", "constant", "checkerboard"),
)


def samples(images: int = 0) -> Any:
    return [SimpleNamespace(family=family) for family in (*FAMILIES, *["image"] * images)]


BATCHES = [
    BatchRange(1, 1, 8), BatchRange(1, 1, 5), BatchRange(1, 1, 1), BatchRange(1, 2, 2), BatchRange(4, 8, 16),
    BatchRange(2, 4, 8), BatchRange(3, 3, 3), BatchRange(20, 20, 20), BatchRange(1, 8, 64),
]  # fmt: skip


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("images", [0, 1, 32])
def test_every_sample_and_every_slot_is_judged_at_the_largest_batch(batch: BatchRange, images: int) -> None:
    given = samples(images)
    runs = plan_runs(given, batch_sizes(batch))
    assert {run.batch_size for run in runs} == set(batch_sizes(batch))
    largest = [run for run in runs if run.batch_size == batch.maximum and not run.again]
    assert {index for run in largest for index in run.indices} == set(range(len(given)))
    assert len(largest) == -(-len(given) // batch.maximum)
    assert all(0 <= index < len(given) for run in runs for index in run.indices)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_one_run_is_done_twice_and_one_with_its_slots_turned(batch: BatchRange) -> None:
    runs = plan_runs(samples(), batch_sizes(batch))
    (again,) = [place for place, run in enumerate(runs) if run.again and run.indices == runs[place - 1].indices]
    assert runs[again].batch_size == batch.minimum
    turned = [run for run in runs if run.again and run is not runs[again]]
    assert len(turned) == (batch.maximum > 1)
    for run in turned:
        before = next(other for other in runs if other.batch_size == run.batch_size)
        assert Counter(run.indices) == Counter(before.indices)
        assert all(one != other for one, other in zip(run.indices, before.indices, strict=True))


def test_the_plan_is_leaner_than_everything_at_every_size() -> None:
    runs = plan_runs(samples(), [1, 2, 8])
    assert sum(run.batch_size for run in runs) == 16 + 8 + 8 + 1 + 2
    many = plan_runs(samples(32), [1, 2, 8])
    assert sum(run.batch_size for run in many) == 48 + 8 + 8 + 1 + 2


def test_the_spread_few_are_of_as_many_families_as_there_are() -> None:
    few = spread_samples(samples())
    assert len({FAMILIES[index] for index in few}) == len(few) == 8
    with_images = spread_samples(samples(5))
    assert 16 in with_images  # the user's own are never left out
    assert list(with_images) == sorted(with_images)
    assert spread_samples(samples()[:3]) == (0, 1, 2)
    alike: Any = [SimpleNamespace(family="pink")] * 20
    assert spread_samples(alike) == tuple(range(8))


def test_without_steadiness_no_run_is_done_again() -> None:
    assert not any(run.again for run in plan_runs(samples(), [1, 2], 2, steadiness=False))
