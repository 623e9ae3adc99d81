"""What outputs should not depend on: measured in yardsticks, and gating nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from vit_deploy.model.vit import ViT

STEADY = {"run_to_run": 0.0, "batch_position": 0.0, "batch_size": 0.0}


def nudged(results: Any, by: Any) -> Any:
    """Every output moved by a share that differs from slot to slot."""
    return tuple(result * (1 + by).reshape(-1, *[1] * (result.dim() - 1)) for result in results)


def one_by_one(vit: ViT, images: torch.Tensor) -> Any:
    """As steady as can be: every image is run alone."""
    parts = [vit(image[None]) for image in images]
    return tuple(torch.cat(outputs) for outputs in zip(*parts, strict=True))


def test_what_is_run_alone_is_steady(vit: ViT, judge: Any) -> None:
    assert judge(lambda images: one_by_one(vit, images)).details["steadiness"] == STEADY


def test_a_run_that_differs_from_itself(vit: ViT, judge: Any) -> None:
    calls = []

    def call(images: torch.Tensor) -> Any:
        calls.append(len(images))
        return nudged(one_by_one(vit, images), torch.full((len(images),), 1e-7 * (len(calls) % 2)))

    verdict = judge(call)
    assert verdict.passed is True, verdict.reason  # told, not gated
    assert 0.1 < verdict.details["steadiness"]["run_to_run"] < 2


def test_a_result_that_depends_on_the_slot(vit: ViT, judge: Any) -> None:
    verdict = judge(lambda images: nudged(one_by_one(vit, images), 2e-7 * (torch.arange(len(images)) > 0)))
    assert verdict.passed is True, verdict.reason
    effects = verdict.details["steadiness"]
    assert effects["run_to_run"] == 0
    assert 0.1 < effects["batch_position"] < 2


def test_a_result_that_depends_on_the_batch_size(vit: ViT, judge: Any) -> None:
    verdict = judge(
        lambda images: nudged(one_by_one(vit, images), torch.full((len(images),), 2e-7 * (len(images) > 2)))
    )
    assert verdict.passed is True, verdict.reason
    effects = verdict.details["steadiness"]
    assert effects["run_to_run"] == effects["batch_position"] == 0
    assert 0.1 < effects["batch_size"] < 2


def test_what_was_not_measured_is_null(vit: ViT, judge: Any) -> None:
    effects = judge(vit, batch=BatchRange(1, 1, 1)).details["steadiness"]
    assert effects["run_to_run"] == 0
    assert effects["batch_position"] is effects["batch_size"] is None
    effects = judge(vit, batch=BatchRange(4, 4, 4)).details["steadiness"]
    assert effects["batch_position"] is not None
    assert effects["batch_size"] is None
