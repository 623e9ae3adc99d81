"""An artefact whose image size is free is judged at other sizes, against the source's own interpolation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.image_sizes import FAMILIES, SMALL
from tests.parity.conftest import FunctionRuntime
from vit_deploy.model.layout import RESHAPE
from vit_deploy.model.sizes import size_range
from vit_deploy.model.vit import ViT
from vit_deploy.parity import ParityCheck
from vit_deploy.parity.sizes import judged_sizes, sample_count
from vit_deploy.protocols import Artefact
from vit_deploy.spec import BatchRange, SizeRange
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.facts import Verdict
    from vit_deploy.model.config import ViTConfig

OUTPUTS = ("logits", "tokens")


def dynamic(config: ViTConfig) -> ViT:
    """The module that is exported, its size free, alive."""
    model = random_model(config, "sizes", 2)
    vit = ViT(config, layout=RESHAPE, outputs=OUTPUTS, dynamic_size=True).eval()
    vit.load_state_dict(model.weights.state_dict())
    return vit


def judge(
    config: ViTConfig, function: Callable[[torch.Tensor], Any], sizes: SizeRange | None = None
) -> Verdict:
    spec = config.io_spec(OUTPUTS, BatchRange(1, 1, 3), sizes=sizes or size_range(config))
    artefact = Artefact("function-fp32", "function", "fp32", Path("none"), spec, config)
    runtime: Any = FunctionRuntime(function)
    return ParityCheck(random_model(config, "sizes", 2)).judge(artefact, runtime=runtime)


@pytest.mark.parametrize("family", ["learned", "rotary with a reference grid", "positions of patches"])
def test_what_is_exported_passes_at_every_size(family: str) -> None:
    config = FAMILIES[family]
    verdict = judge(config, dynamic(config))
    assert verdict.passed, verdict.reason
    figures = verdict.details["image_sizes"]
    assert list(figures) == ["32x48", "16x24", "64x96", "24x72"]
    assert [entry["samples"] for entry in figures.values()] == [16, 8, 4, 8]
    assert verdict.worst_ratio == max(entry["worst_ratio"] for entry in figures.values())
    assert verdict.p95_ratio == max(entry["p95_ratio"] for entry in figures.values())


def test_the_wrong_kernel_fails_where_it_is_used_only() -> None:
    """The right positions at the model's own size, and other sizes as another library resamples them."""
    vit = dynamic(replace(SMALL, position_resampling="bicubic"))
    verdict = judge(SMALL, vit)
    assert verdict.passed is False
    assert verdict.reason.startswith("at 16x24 pixels: logits: ")
    figures = verdict.details["image_sizes"]
    assert figures["32x48"]["worst_ratio"] < 5
    assert figures["16x24"]["worst_ratio"] > 1e3


def test_the_worst_run_at_another_size_can_be_done_again() -> None:
    spec = SMALL.io_spec(OUTPUTS, BatchRange(1, 1, 3), sizes=size_range(SMALL))
    artefact = Artefact("function-fp32", "function", "fp32", Path("none"), spec, SMALL)
    vit = dynamic(replace(SMALL, position_resampling="bicubic"))
    check, runtime = ParityCheck(random_model(SMALL, "sizes", 2)), FunctionRuntime(vit)
    verdict = check.judge(artefact, runtime=runtime)  # type: ignore[arg-type]
    assert verdict.evidence["worst_run"]["image_size"] == [16, 24]
    case = check.case(artefact, verdict)
    assert case.image_size == (16, 24)
    (pixels,) = check.feed(artefact, case).values()
    assert pixels.shape == (case.batch_size, 3, 16, 24)
    with torch.inference_mode():
        wrong = dict(zip(OUTPUTS, vit(torch.from_numpy(pixels)), strict=True))
        right = dict(zip(OUTPUTS, dynamic(SMALL)(torch.from_numpy(pixels)), strict=True))
    assert check.ratio(artefact, {name: value.numpy() for name, value in wrong.items()}, case) > 1e3
    assert check.ratio(artefact, {name: value.numpy() for name, value in right.items()}, case) < 5


def test_positions_that_are_cut_off_instead_of_resampled_fail() -> None:
    vit = dynamic(SMALL)
    vit.positions._at = lambda pos_embed, grid: pos_embed[:, : 1 + grid[0] * grid[1]]
    verdict = judge(SMALL, vit, SizeRange((16, 24), (32, 48), (32, 48), 8, 8, 1))
    assert verdict.passed is False
    assert verdict.reason.startswith("at 16x24 pixels: ")
    assert verdict.details["image_sizes"]["32x48"]["worst_ratio"] < 5


def test_tokens_of_another_number_are_a_fault() -> None:
    vit = dynamic(SMALL)

    def short(images: torch.Tensor) -> Any:
        logits, tokens = vit(images)
        return logits, tokens if images.shape[2] == 32 else tokens[:, 1:]

    verdict = judge(SMALL, short)
    assert verdict.passed is False
    assert "at 16x24 pixels: tokens is float32 of shape (1, 6, 64) at batch 1" in verdict.reason


def test_a_declared_shape_that_is_not_the_models_is_told() -> None:
    spec = SMALL.io_spec(OUTPUTS, sizes=size_range(SMALL))
    logits, tokens = spec.outputs
    wrong = replace(spec, outputs=(logits, replace(tokens, shape=("batch", 25, 64))))
    artefact = Artefact("function-fp32", "function", "fp32", Path("none"), wrong, SMALL)
    runtime: Any = FunctionRuntime(dynamic(SMALL))
    verdict = ParityCheck(random_model(SMALL, "sizes", 2)).judge(artefact, runtime=runtime)
    assert verdict.passed is False
    assert verdict.reason == "it declares tokens of shape ('batch', 25, 64), not ('batch', 'tokens', 64)"


def test_the_sizes_that_are_judged() -> None:
    config = replace(SMALL, image_size=(224, 224), patch_size=16)
    assert judged_sizes((224, 224), size_range(config)) == [(112, 112), (448, 448), (160, 336)]
    fixed = size_range(config, (224, 224), (224, 224), (224, 224))
    assert judged_sizes((224, 224), fixed) == []
    wide = size_range(config, (224, 224), (224, 448), (224, 640))
    assert judged_sizes((224, 224), wide) == [(224, 640), (224, 432), (224, 448)]
    for size in judged_sizes((224, 224), wide):
        assert wide.holds(size)


def test_fewer_samples_of_larger_pictures() -> None:
    assert [sample_count((224, 224), (side, side)) for side in (112, 224, 448, 896)] == [8, 8, 4, 2]
