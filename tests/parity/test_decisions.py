"""First classes, first fives and odds: counted over samples, bounded, gating where eager is no yardstick."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vit_deploy.parity import LIMITS, ParityCheck
from vit_deploy.parity.decisions import Agreement, Decisions, softmax, symmetric_divergence
from vit_deploy.parity.truth import Truth

if TYPE_CHECKING:
    from vit_deploy.model.vit import ViT
    from vit_deploy.weights.imported import Model

LOGITS = arrays(np.float64, (3, 5), elements=st.floats(-20, 20))


@given(LOGITS, LOGITS)
def test_the_divergence_is_the_mean_of_both_directions(one: np.ndarray, other: np.ndarray) -> None:
    p, q = softmax(one), softmax(other)
    there, back = (p * np.log(p / q)).sum(axis=-1), (q * np.log(q / p)).sum(axis=-1)
    found = symmetric_divergence(one, other)
    assert found == pytest.approx((there + back) / 2, rel=1e-6, abs=1e-12)
    assert found == pytest.approx(symmetric_divergence(other, one + 3.0), rel=1e-6, abs=1e-12)


def test_a_divergence_of_known_size() -> None:
    one, other = np.log([[0.6, 0.4]]), np.log([[0.4, 0.6]])
    assert symmetric_divergence(one, other) == pytest.approx(0.2 * np.log(1.5))
    assert symmetric_divergence(one, one + 7).tolist() == [0]


def decisions(count: int = 4, classes: int = 8, granted: float = 1e-3) -> tuple[Decisions, np.ndarray]:
    """Logits whose first class is 0 and whose second lies well below; the last sample is a near-tie."""
    exact = np.tile(np.linspace(4, -4, classes), (count, 1))
    exact[-1, 1] = exact[-1, 0] - 1e-4
    return Decisions(Truth(exact, np.full(count, granted)), [f"s{i}" for i in range(count)]), exact


def test_a_sample_agrees_where_it_does_so_in_every_run() -> None:
    found, exact = decisions()
    found.add(range(4), exact)
    flipped = exact.copy()
    flipped[1, 3] = 9
    found.add([1], flipped[[1]])
    found.add(range(4), exact)
    assert found.top1() == {"agreed": 2, "of": 3, "near_ties": 1, "near_ties_agreed": 1}
    (told,) = found.findings(LIMITS["fp32"]).broken
    assert told == "another first class on 1 samples that are no near-ties: 's1' (0 became 3)"
    assert found.findings(LIMITS["fp32"].with_changes({"flips": 1})).broken == ()
    assert found.of_sample(1)["artefact"][0] == 3
    assert found.of_sample(0)["artefact"] == found.of_sample(0)["eager"] == [0, pytest.approx(0.686, abs=1e-2)]


def test_another_first_class_at_a_near_tie_is_no_fault() -> None:
    found, exact = decisions()
    swapped = exact.copy()
    swapped[-1, [0, 1]] = swapped[-1, [1, 0]]
    found.add(range(4), swapped)
    assert found.top1() == {"agreed": 3, "of": 3, "near_ties": 1, "near_ties_agreed": 0}
    assert found.findings(LIMITS["fp32"]).broken == ()


def test_the_first_five() -> None:
    found, exact = decisions()
    moved = exact.copy()
    moved[0, 1:5] += 10  # the first class is the fifth now
    moved[1, 1:6] += 10  # and the sixth here
    found.add(range(4), moved)
    top5 = found.details(LIMITS["int8"])["top5"]
    assert (top5["agreed"], top5["of"], top5["near_ties"]) == (3, 4, 0)
    few, exact = decisions(classes=5)
    few.add(range(4), exact)
    assert "top5" not in few.details(LIMITS["int8"])


@pytest.mark.parametrize(
    ("agreed", "of", "verdict"),
    [
        (16, 16, "open"), (58, 58, "open"), (59, 59, "holds"), (92, 93, "holds"), (91, 92, "open"),
        (0, 16, "broken"), (12, 16, "broken"), (14, 16, "open"), (13, 16, "broken"), (0, 0, "open"),
        (900, 1000, "broken"),
    ],
)  # fmt: skip
def test_a_budget_is_held_broken_or_left_open(agreed: int, of: int, verdict: str) -> None:
    found = Agreement(agreed, of, 0, 0).findings("the first class", 0.95, 0.95)
    assert (bool(found.broken), bool(found.open)) == (verdict == "broken", verdict == "open")
    for told in (*found.broken, *found.open):
        assert f"agrees on {agreed} of {of} clear samples, so that with 95% confidence it does on" in told


def test_what_is_open_says_the_bound_and_how_many_samples_are_needed() -> None:
    (told,) = Agreement(16, 16, 3, 2).findings("the first class", 0.95, 0.95).open
    assert "82.9% of all at least, and the budget is 95.0%: 59 clear samples would show it, 43 more" in told
    (told,) = Agreement(15, 16, 0, 0).findings("the first class", 0.95, 0.95).open
    assert "93 clear samples would show it" in told
    (told,) = Agreement(16, 16, 0, 0).findings("the first class", 1.0, 0.95).open
    assert "no number of samples shows it" in told


def rounded(vit: ViT, levels: int = 127) -> Any:
    """Weights rounded to int8, a scale for each channel."""
    for name, parameter in vit.named_parameters():
        if name.endswith("weight") and parameter.dim() > 1:
            largest = parameter.data.abs().flatten(1).amax(dim=1).reshape(-1, *[1] * (parameter.dim() - 1))
            parameter.data = (parameter.data / largest * levels).round() * largest / levels
    return vit


def test_int8_with_sixteen_samples_is_undecided_and_says_so(vit: ViT, judge: Any) -> None:
    verdict = judge(rounded(vit), precision="int8")
    assert verdict.passed is None
    assert verdict.reason.startswith("undecided: the first class agrees on ")
    assert "clear samples would show it" in verdict.reason
    assert verdict.worst_ratio < 4  # in units of the declared epsilon
    top1 = json.loads(json.dumps(verdict.details["decisions"]["top1"], allow_nan=False))
    assert top1["lower_bound"] < 0.95 == verdict.details["limits"]["top1"]
    assert top1["samples_needed"] >= 59
    assert set(verdict.details["limits"]) == {"epsilon", "top1", "top5", "kl", "cosine", "confidence"}


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_a_budget_that_sixteen_samples_can_show_passes(
    precision: str, model: Model, vit: ViT, backend: Any, declare: Any
) -> None:
    check = ParityCheck(model, limits={"top1": 0.5, "top5": 0.5}, threads=1)
    verdict = check.judge(declare(model.config, precision), runtime=backend(rounded(vit), precision))
    assert verdict.passed is True, verdict.reason
    assert verdict.details["limits"]["top1"] == 0.5


def test_int8_that_decides_otherwise_fails_with_few_samples_too(vit: ViT, judge: Any) -> None:
    vit.head.weight.data = vit.head.weight.data.roll(1, dims=0)
    verdict = judge(vit, precision="int8")
    assert verdict.passed is False
    assert "at most (budget 95.0%)" in verdict.reason
    assert "symmetric KL divergence" in verdict.reason


def test_int8_with_one_ruined_token_fails_by_its_cosine(vit: ViT, judge: Any) -> None:
    def call(images: torch.Tensor) -> Any:
        logits, embedding, tokens = vit(images)
        tokens[:, 7] = tokens[:, 8].clone()
        return logits, embedding, tokens

    verdict = judge(call, precision="int8")
    assert verdict.passed is False
    assert verdict.reason.startswith("tokens: a cosine of ")


def test_int8_without_anything_to_decide_on_is_not_passed(model: Model, backend: Any, declare: Any) -> None:
    changes = {"top1": None, "top5": None, "kl": None, "cosine": None}
    check = ParityCheck(model, limits=changes, threads=1)
    vit = model.eager(outputs=("logits",))
    artefact = declare(model.config, "int8", outputs=("logits",))
    verdict = check.judge(artefact, runtime=backend(vit, "int8"))
    assert verdict.passed is None
    assert "no limit is in force" in verdict.reason


def test_ratios_can_gate_int8_and_budgets_fp32(model: Model, vit: ViT, backend: Any, declare: Any) -> None:
    strict = ParityCheck(model, limits={"worst": 1e-3, "top1": None, "top5": None}, threads=1)
    verdict = strict.judge(declare(model.config, "int8"), runtime=backend(rounded(vit), "int8"))
    assert verdict.passed is False
    assert "times the rounding that int8 is granted at the worst (limit 0.001)" in verdict.reason
    both = ParityCheck(model, limits={"top1": 0.99}, threads=1)
    verdict = both.judge(declare(model.config), runtime=backend(model.eager(outputs=vit.outputs)))
    assert verdict.passed is None
    assert "299 clear samples would show it" in verdict.reason
