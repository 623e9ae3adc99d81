from __future__ import annotations

from dataclasses import replace

import pytest

from vit_deploy.bench import Settings, run_bench
from vit_deploy.bench.baseline import check_baseline, find_baseline
from vit_deploy.bench.cases import Case
from vit_deploy.bench.measured import Measured
from vit_deploy.errors import UsageFailed

ONE = Case(
    bundle="b",
    artefact="onnx-fp32",
    format="onnx",
    precision="fp32",
    backend="onnxruntime",
    device="cpu",
    batch_size=1,
    threads=2,
    verified=True,
    files={"model.onnx": "00"},
)
EAGER = replace(ONE, artefact="pytorch-fp32", format="pytorch", backend="eager")
INT8 = replace(ONE, artefact="onnx-int8", precision="int8")
LARGE = replace(ONE, batch_size=8)


def chosen(case, cases, name="", failed=()):
    everyone = [Measured(entry, error="no" if entry in failed else "") for entry in cases]
    found = find_baseline(next(entry for entry in everyone if entry.case == case), everyone, name)
    return found.case if found else None


def test_eager_is_the_baseline_else_the_first_that_holds():
    assert chosen(ONE, [INT8, ONE, EAGER]) == EAGER
    assert chosen(ONE, [INT8, ONE, EAGER], failed=[EAGER]) == INT8
    assert chosen(LARGE, [INT8, LARGE, EAGER]) == LARGE


@pytest.mark.parametrize("name", ["onnx-int8", "onnx-int8:onnxruntime", "onnx-int8:ort"])
def test_a_baseline_is_named_by_artefact(name):
    assert chosen(ONE, [ONE, EAGER, INT8], name) == INT8
    assert chosen(ONE, [ONE, EAGER, INT8], name, failed=[INT8]) is None
    assert chosen(LARGE, [ONE, LARGE, INT8], name) is None


@pytest.mark.parametrize("name", ["ort", "onnxruntime"])
def test_a_baseline_is_named_by_backend(name):
    assert chosen(EAGER, [EAGER, ONE, INT8], name) == ONE


def test_a_baseline_with_the_cases_own_threads_comes_first():
    single = replace(EAGER, threads=1)
    mine = replace(ONE, threads=1)
    assert chosen(mine, [EAGER, single, mine]) == single
    assert chosen(replace(ONE, streams=2), [EAGER, single, replace(ONE, streams=2)]) == EAGER


def test_neither_twin_nor_ceiling_is_a_baseline():
    ceiling, twin = replace(EAGER, role="ceiling"), replace(EAGER, role="twin")
    assert chosen(ONE, [ceiling, twin, ONE]) == ONE


def test_an_unknown_baseline_is_refused_with_what_there_is(fake_cases):
    with pytest.raises(UsageFailed) as refused:
        check_baseline("openvino", [ONE, EAGER])
    assert "onnxruntime, eager, onnx-fp32:onnxruntime, pytorch-fp32:eager" in str(refused.value)
    with pytest.raises(UsageFailed, match="'eager'"):
        run_bench(fake_cases(only={}), Settings(baseline="eager"))


def test_ratios_stand_against_the_baseline_that_was_named(fake_cases):
    cases = fake_cases(a={"step_us": 1000}, b={"step_us": 3000})
    settings = Settings(duration_s=0.2, rounds=8, soundness=False, baseline="b", timeout_s=60)
    slow, quick = reversed(run_bench(cases, settings).rows)
    assert slow.ratio == slow.throughput_ratio == 1.0
    assert slow.ratio_interval == (1.0, 1.0)
    assert quick.baseline_key == slow.key
    low, high = quick.ratio_interval
    assert low <= quick.ratio <= high < 0.8
    low, high = quick.throughput_ratio_interval
    assert 1.2 < low <= quick.throughput_ratio <= high
