"""The one table of tolerances, and changes to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from vit_deploy.errors import UsageFailed
from vit_deploy.parity import LIMITS, Limits, ParityCheck
from vit_deploy.parity.limits import NAMES
from vit_deploy.spec import EAGER_PRECISIONS, PRECISIONS

if TYPE_CHECKING:
    from vit_deploy.weights.imported import Model


@pytest.mark.parametrize("precision", PRECISIONS)
def test_ratios_gate_where_eager_is_the_yardstick_and_decisions_elsewhere(precision: Any) -> None:
    limits = LIMITS[precision]
    ratios, decisions = (limits.worst, limits.p95, limits.flips), (limits.top1, limits.top5, limits.kl)
    gating, idle = (ratios, decisions) if precision in EAGER_PRECISIONS else (decisions, ratios)
    assert None not in gating
    assert set(idle) == {None}


def test_limits_are_changed_by_name() -> None:
    changed = LIMITS["fp32"].with_changes({"worst": 12, "top1": 0.98, "flips": None})
    assert (changed.worst, changed.top1, changed.flips) == (12, 0.98, None)
    assert (changed.p95, changed.epsilon) == (LIMITS["fp32"].p95, LIMITS["fp32"].epsilon)
    assert LIMITS["fp32"].worst == 10
    assert json.loads(json.dumps(changed.in_force())) == {
        "p95": 4.0, "worst": 12, "epsilon": 2.0**-23, "top1": 0.98, "confidence": 0.95
    }  # fmt: skip


def test_an_unknown_limit_lists_the_valid_ones(model: Model) -> None:
    with pytest.raises(UsageFailed, match="unknown limit 'wrost'") as told:
        LIMITS["int8"].with_changes({"wrost": 1})
    assert all(name in told.value.expected for name in NAMES)
    with pytest.raises(UsageFailed, match="unknown limit 'wrost'"):
        ParityCheck(model, limits={"wrost": 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("worst", -1), ("top1", 1.5), ("top5", -0.1), ("confidence", 1.0), ("confidence", None), ("epsilon", 0),
        ("epsilon", None), ("flips", 1.5), ("cosine", 2), ("worst", float("nan")), ("kl", -1),
    ],
)  # fmt: skip
def test_a_limit_outside_its_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageFailed, match=f"the limit {name} is"):
        LIMITS["fp16"].with_changes({name: value})


def test_the_floor_grows_as_a_random_walk() -> None:
    assert Limits(None, None, epsilon=2.0**-6).floor(16) == 2.0**-4
