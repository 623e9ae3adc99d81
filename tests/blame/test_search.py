"""The first tap that diverges is the one that the fault was put into, in every format."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.blame.conftest import (
    FAULTS,
    Counted,
    damaged_onnx,
    dead_head,
    judged,
    lost_head_bias,
    nan_in_attention,
    shifted_positions,
    write_torchscript,
)
from tests.blame.function_backend import FunctionRuntime, artefact_of, install_format, of_depth
from vit_deploy.blame.search import Bracket, Finding, find, run_budget
from vit_deploy.facts import Device, Verdict
from vit_deploy.parity import ParityCheck
from vit_deploy.protocols import Artefact
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.model.vit import ViT
    from vit_deploy.weights.imported import Model


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_an_onnx_graph_is_found_where_it_was_put(
    name: str,
    honest_onnx: Artefact,
    deep_model: Model,
    deep_check: ParityCheck,
    tmp_path: Path,
    counted: Counted,
) -> None:
    damage, tap = FAULTS[name]
    artefact = damaged_onnx(honest_onnx, deep_model, tmp_path, damage)
    runtime, verdict = judged(deep_check, artefact)
    assert verdict.passed is False
    finding = find(deep_check, artefact, verdict, runtime, Device(), open_session=counted)
    assert finding.where == tap, (finding.bisection, finding.notes)
    assert finding.runs == counted.opened <= run_budget(5)
    assert counted.most_taps <= 2


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_torchscript_is_found_where_it_was_put(
    name: str, deep_model: Model, deep_check: ParityCheck, tmp_path: Path, counted: Counted
) -> None:
    damage, tap = FAULTS[name]
    artefact = write_torchscript(deep_model, tmp_path, damage)
    runtime, verdict = judged(deep_check, artefact)
    assert verdict.passed is False
    finding = find(deep_check, artefact, verdict, runtime, Device(), open_session=counted)
    assert finding.where == tap, (finding.bisection, finding.notes)
    assert finding.runs == counted.opened <= run_budget(5)
    assert counted.most_taps <= 2


@pytest.mark.parametrize("depth", range(2, 41))
def test_any_place_is_found_in_the_runs_that_are_granted(depth: int) -> None:
    count = 2 * depth + 2
    for answer in range(count + 1):
        bracket, runs = Bracket(0, count), 1
        while not bracket.is_closed:
            probe = bracket.probe(run_budget(depth) - runs)
            assert len(probe) <= 2 or runs == run_budget(depth) - 1
            runs += 1
            for place in probe:
                bracket.narrow(place, diverges=place >= answer)
        assert bracket.high == answer
        assert runs <= 2 * math.log2(depth)


def damaged(model: Model, damage: Callable[[ViT], None]) -> Any:
    module: Any = model.eager(outputs=("tokens", "embedding", "logits"))
    damage(module)
    return module


@pytest.mark.parametrize(
    ("depth", "tap"),
    [(2, "blocks.1.attn"), (3, "embed"), (7, "blocks.6.mlp"), (12, "blocks.7.attn"), (40, "blocks.0.mlp")],
)
def test_models_of_any_depth_are_searched(
    depth: int, tap: str, deep_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_format(monkeypatch)
    model = random_model(of_depth(deep_model.vit_config, depth), "depth", seed=1)
    check = ParityCheck(model, threads=1)

    def damage(vit: ViT) -> None:
        if tap == "embed":
            return shifted_positions(vit)
        _, block, part = tap.split(".")
        chosen: Any = vit.blocks[int(block)]
        layer = chosen.attn.proj if part == "attn" else chosen.mlp.fc2
        layer.weight.data *= 1.01
        return None

    runtime = FunctionRuntime(damaged(model, damage))
    artefact = artefact_of(model.config, tmp_path)
    verdict = check.judge(artefact, runtime=runtime)
    assert verdict.passed is False
    runtime.runs = 0
    finding = find(check, artefact, verdict, runtime, Device())
    assert finding.where == tap
    assert finding.runs == runtime.runs <= 2 * math.log2(depth)
    assert finding.notes == ()


@pytest.fixture
def function_case(
    deep_model: Model, deep_check: ParityCheck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Judge and search a module of the deep model with some mischief."""
    install_format(monkeypatch)

    def run(
        damage: Callable[[ViT], None] = lambda vit: None,
        mischief: Any = None,
        outputs: tuple[str, ...] = ("logits",),
        verdict: Verdict | None = None,
        precision: str = "fp32",
    ) -> tuple[Finding, FunctionRuntime]:
        runtime = FunctionRuntime(damaged(deep_model, damage))
        if mischief is not None:
            runtime.mischief = mischief
        artefact = artefact_of(deep_model.config, tmp_path, precision, outputs)
        judgement = verdict or deep_check.judge(artefact, runtime=runtime)
        assert judgement.passed is False
        runtime.taps.clear()
        return find(deep_check, artefact, judgement, runtime, Device()), runtime

    return run


def test_outputs_that_tell_enough_need_no_taps(function_case: Callable[..., Any]) -> None:
    finding, _ = function_case(lost_head_bias, outputs=("logits", "tokens", "embedding"))
    assert finding.where == "logits"
    assert finding.runs == 1
    assert [reading.tap for reading in finding.bisection] == ["tokens", "embedding", "logits"]


def test_a_fault_of_one_batch_size_is_searched_for_at_that_size(function_case: Callable[..., Any]) -> None:
    def mischief(outputs: Any, taps: tuple[str, ...], size: int) -> None:
        if size == 3:
            for name in ("blocks.3.attn", "blocks.3.mlp", "blocks.4.attn", "blocks.4.mlp", "tokens", "logits"):
                if name in outputs:
                    outputs[name][2] *= 1.01

    finding, _ = function_case(mischief=mischief)
    assert finding.where == "blocks.3.attn"


def test_a_fault_that_fades_is_found_with_a_warning(function_case: Callable[..., Any]) -> None:
    def mischief(outputs: Any, taps: tuple[str, ...], size: int) -> None:
        for name in ("blocks.2.attn", "logits"):
            if name in outputs:
                outputs[name] *= 1.01

    finding, _ = function_case(mischief=mischief)
    assert finding.where == "blocks.2.attn"
    assert any("fades" in note for note in finding.notes)


def test_an_error_that_a_tap_drives_away_is_one_of_a_fusion(function_case: Callable[..., Any]) -> None:
    def mischief(outputs: Any, taps: tuple[str, ...], size: int) -> None:
        if not set(taps) & {"blocks.2.mlp", "blocks.3.attn"}:
            outputs["logits"] *= 1.01

    finding, _ = function_case(mischief=mischief)
    assert finding.where in {"blocks.2.mlp", "blocks.3.attn", "blocks.2.attn"}
    assert any("goes away" in note and "fusion" in note for note in finding.notes)
    assert any("taps change what the artefact gives" in note for note in finding.notes)


def test_an_error_that_does_not_come_again_is_not_searched_for(function_case: Callable[..., Any]) -> None:
    verdict = Verdict(passed=False, worst_ratio=50.0, p95_ratio=20.0)
    finding, runtime = function_case(verdict=verdict)
    assert finding.where == ""
    assert finding.runs == len(runtime.taps) == 1
    assert "comes and goes" in finding.notes[0]


def test_a_fault_too_small_for_the_limits_inside_the_model_is_found_by_its_mean(
    deep_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_format(monkeypatch)
    model = random_model(of_depth(deep_model.vit_config, 12), "faint", seed=1)
    check = ParityCheck(model, threads=1)
    generator = np.random.default_rng(0)

    def mischief(outputs: Any, taps: tuple[str, ...], size: int) -> None:
        for name, values in outputs.items():
            if name == "logits":
                values *= 1 + 1e-5
                continue
            block = 11 if name == "tokens" else int(name.split(".")[1]) if name != "embed" else 0
            if block >= 3:  # a little more than twice what eager itself is off by there
                size_of = np.linalg.norm(values, axis=-1, keepdims=True) / values.shape[-1] ** 0.5
                signs = generator.choice([-1.0, 1.0], values.shape)
                values += (2.6e-7 * (block + 1) ** 0.5 * size_of * signs).astype(np.float32)

    runtime = FunctionRuntime(damaged(model, lambda vit: None), mischief)
    artefact = artefact_of(model.config, tmp_path)
    finding = find(check, artefact, check.judge(artefact, runtime=runtime), runtime, Device())
    assert any("faint" in note for note in finding.notes), finding
    assert finding.where == "blocks.3.attn"
    assert finding.runs <= 2 * math.log2(12)


def test_int8_is_searched_by_the_declared_rounding(function_case: Callable[..., Any]) -> None:
    def wrong_scale(vit: ViT) -> None:
        block: Any = vit.blocks[2]
        block.mlp.fc2.weight.data *= 16

    verdict = Verdict(passed=False)
    finding, _ = function_case(wrong_scale, precision="int8", verdict=verdict)
    assert finding.where == "blocks.2.mlp"


def test_a_format_without_taps_is_told(deep_model: Model, deep_check: ParityCheck, tmp_path: Path) -> None:
    runtime = FunctionRuntime(damaged(deep_model, dead_head(1)))
    artefact = artefact_of(deep_model.config, tmp_path)
    verdict = deep_check.judge(artefact, runtime=runtime)
    finding = find(deep_check, artefact, verdict, runtime, Device())
    assert finding.where == ""
    assert finding.runs == 1
    assert "cannot be looked into" in finding.notes[0]


def test_eager_itself_is_searched_by_hooks(deep_model: Model, deep_check: ParityCheck, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    module: Any = deep_model.eager()
    dead_head(3)(module)
    path = tmp_path / "weights.safetensors"
    save_file(module.state_dict(), path)
    artefact = Artefact("pytorch-fp32", "pytorch", "fp32", path, deep_model.config.io_spec(), deep_model.config)
    runtime, verdict = judged(deep_check, artefact)
    finding = find(deep_check, artefact, verdict, runtime, Device())
    assert finding.where == "blocks.3.attn"
    assert finding.notes == ()


def test_a_search_works_through_another_process(
    honest_onnx: Artefact, deep_model: Model, deep_check: ParityCheck, tmp_path: Path
) -> None:
    from vit_deploy.parity.isolated import open_isolated

    artefact = damaged_onnx(honest_onnx, deep_model, tmp_path, nan_in_attention(1))
    runtime, verdict = judged(deep_check, artefact)
    isolated = partial(open_isolated, timeout_s=60.0)
    finding = find(deep_check, artefact, verdict, runtime, Device(), open_session=isolated)
    assert finding.where == "blocks.1.attn"
    assert math.isinf(finding.bisection[-1].ratio) or finding.bisection[-1].holds
