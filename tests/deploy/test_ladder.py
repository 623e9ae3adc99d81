from __future__ import annotations

import pytest

from vit_deploy.deploy import ladder
from vit_deploy.deploy.job import Outcome
from vit_deploy.deploy.ladder import LADDERS, export_auto
from vit_deploy.errors import ParityFailed, UsageFailed
from vit_deploy.facts import Verdict
from vit_deploy.parity.ranges import PLACES, RangeWatch
from vit_deploy.spec import PRECISIONS

PASSED = Verdict(passed=True, backend="fake", worst_ratio=1.5, samples=16)
UNDECIDED = Verdict(passed=None, reason="nothing here can tell")


@pytest.fixture
def played(monkeypatch, small_model, tmp_path):
    """Plays ``export_model``: what each precision comes to is told beforehand."""
    calls = []

    def play(formats, verdicts, devices=("cpu",), residual=100.0, **asked):
        def export(model, output, formats, *, precision, options, **others):
            calls.append((precision, tuple(formats), dict(options)))
            told = verdicts.get(precision, PASSED)
            wrong = ParityFailed("it is not equal") if told.passed is False else None
            return [
                Outcome(f"{name}-{precision}", name, precision, verdict=told, error=wrong) for name in formats
            ]

        depth = small_model.vit_config.depth
        maxima = dict.fromkeys(PLACES, (1.0,) * depth) | {"residual": (residual, *[1.0] * (depth - 1))}
        monkeypatch.setattr(ladder, "export_model", export)
        monkeypatch.setattr(ladder, "_devices", lambda: list(devices))
        monkeypatch.setattr(ladder, "_is_computed", lambda name, precision, device: True)
        monkeypatch.setattr(ladder._Climber, "_watch", lambda self: RangeWatch(maxima, 3))
        return export_auto(small_model, tmp_path, formats, **asked), calls

    return play


def taken(climb):
    return {step.format: step.rung for step in climb.steps if step.held}


def test_the_first_rung_that_holds_is_taken_and_nothing_after_it(played):
    climb, calls = played(["onnx", "ov"], {})
    assert taken(climb) == {"onnx": "int8", "openvino": "int8"}
    assert [(precision, formats) for precision, formats, _ in calls] == [("int8", ("onnx", "openvino"))]
    assert [outcome.name for outcome in climb.outcomes] == ["onnx-int8", "openvino-int8"]
    assert "worst ratio 1.50, 16 samples on fake" in climb.steps[0].why


def test_what_fails_goes_on_to_the_next_rung(played):
    climb, _ = played(["onnx"], {"int8": Verdict(passed=False)})
    assert taken(climb) == {"onnx": "bf16"}
    assert [(step.rung, step.held) for step in climb.steps] == [
        ("int8", False),
        ("mixed int8", False),
        ("bf16", True),
    ]
    assert climb.steps[0].why == "it is not equal"
    assert [outcome.precision for outcome in climb.outcomes] == ["bf16"]


def test_what_cannot_be_decided_holds_only_where_the_device_is_elsewhere(played):
    undecided = dict.fromkeys(("int8", "bf16", "fp16"), UNDECIDED)
    climb, _ = played(["onnx", "tensorrt"], undecided)
    assert taken(climb) == {"onnx": "fp32", "tensorrt": "fp16"}
    told = {step.format: step.why for step in climb.steps if step.held}
    assert told["tensorrt"] == "unverified: nothing here can tell; all numbers seen fit into fp16"
    climb, _ = played(["tensorrt"], undecided, devices=("cuda", "cpu"))
    assert taken(climb) == {"tensorrt": "fp32"}


def test_numbers_beyond_fp16_ask_for_layers_in_fp32(played):
    climb, calls = played(["tensorrt"], {}, residual=1e5, options={"keep_fp32": "head"})
    assert taken(climb) == {"tensorrt": "mixed"}
    assert "overflows fp16" in climb.steps[0].why
    ((precision, _, options),) = calls
    assert precision == "fp16"
    assert options["keep_fp32"].split(",")[0] == "head"
    assert "blocks.0.residual" in options["keep_fp32"]


def test_mixed_is_passed_over_where_fp16_holds_every_number(played):
    climb, calls = played(["tensorrt"], {"fp16": Verdict(passed=False)})
    assert [(step.rung, step.held) for step in climb.steps] == [
        ("fp16", False),
        ("mixed", False),
        ("bf16", True),
    ]
    assert [precision for precision, _, _ in calls] == ["fp16", "bf16"]


def test_the_last_rung_is_told_even_where_it_fails(played):
    climb, _ = played(["onnx"], dict.fromkeys(("int8", "bf16", "fp32"), Verdict(passed=False)))
    assert taken(climb) == {}
    (outcome,) = climb.outcomes
    assert outcome.precision == "fp32"
    assert outcome.error is not None


def test_formats_on_either_device_follow_the_one_that_is_named(played):
    climb, _ = played(["onnx"], {}, device="cuda")
    assert taken(climb) == {"onnx": "fp16"}


def test_a_format_goes_where_it_can_be_made(played):
    climb, _ = played(["torchscript"], {})
    assert taken(climb) == {"torchscript": "fp32"}
    assert climb.steps[0].why == "torchscript artefacts are not made in int8"
    assert {rung.precision for rungs in LADDERS.values() for rung in rungs} <= set(PRECISIONS)


def test_without_verification_nothing_can_be_chosen(played):
    with pytest.raises(UsageFailed, match="without verification"):
        played(["onnx"], {}, verify=False)


def test_the_worst_layers_are_looked_for_where_plain_int8_does_not_hold(played):
    failing = {"int8": Verdict(passed=False)}
    _, calls = played(["onnx"], failing)
    assert [options for precision, _, options in calls if precision == "int8"] == [{}, {"max_drop": 1.0}]
    calls.clear()
    climb, calls = played(["onnx"], failing, options={"max_drop": 0.5})
    assert [options for precision, _, options in calls if precision == "int8"] == [{"max_drop": 0.5}]
    assert "looked for already" in climb.steps[1].why


def test_an_option_that_no_format_takes_is_refused(played):
    with pytest.raises(UsageFailed, match="'opset'"):
        played(["torchscript"], {}, options={"opset": 17})
