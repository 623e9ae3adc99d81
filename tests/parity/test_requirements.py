"""What was asked for beside what was built: nothing that is not known is ever passed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vit_deploy.errors import UsageFailed
from vit_deploy.facts import RuntimeFacts, Verdict
from vit_deploy.model.config import ViTConfig
from vit_deploy.parity.requirements import (
    Requirement,
    built,
    built_as_judged,
    parse_requirements,
    unmet,
    unmet_from_built,
)
from vit_deploy.protocols import Artefact

CONFIG = ViTConfig(
    image_size=(32, 48), patch_size=8, embed_dim=64, depth=2, num_heads=4, mlp_dim=150, num_classes=7
)
EVERY_KEY = (
    "fused-attention=all,dtype=fp16,dtype.linear=fp16,dtype.attention=fp16,dtype.softmax=fp16,dtype.layernorm=fp32,"
    "dtype.activation=fp16,dtype.io=fp32,provider=cuda,tf32=off,precision-hint=f16"
)


def artefact(format: str = "onnx", **facts: Any) -> Artefact:
    return Artefact(f"{format}-fp32", format, "fp32", Path("none"), CONFIG.io_spec(), CONFIG, facts)


def session(**changed: Any) -> RuntimeFacts:
    """Facts of a session that meets every requirement of ``EVERY_KEY``."""
    half = {kind: {"fp16": 8} for kind in ("linear", "attention", "softmax", "activation")}
    facts: dict[str, Any] = {
        "backend": "some",
        "version": "1",
        "device": "cuda:0",
        "precision": "fp16",
        "placement": {"CUDAExecutionProvider": 90},
        "tf32": False,
        "dtypes": {**half, "layernorm": {"fp32": 5}, "io": {"fp32": 2}},
        "fused_attention": {"fused": 2, "of": 2},
        "precision_hint": "f16",
    }
    return RuntimeFacts(**{**facts, **changed})


def found(text: str, **changed: Any) -> list[str]:
    return unmet(parse_requirements(text), artefact(), session(**changed))


def test_the_grammar() -> None:
    asked = parse_requirements(" fused-attention = all , dtype.layernorm=fp32,, dtype.layernorm=fp32 ")
    assert asked == (Requirement("fused-attention", "all"), Requirement("dtype.layernorm", "fp32"))
    assert [str(entry) for entry in asked] == ["fused-attention=all", "dtype.layernorm=fp32"]
    assert parse_requirements("") == ()
    assert parse_requirements("fused-attention=12")[0].value == "12"


@pytest.mark.parametrize(
    ("text", "complaint", "first"),
    [
        ("fused-atention=all", "did you mean 'fused-attention'", "fused-attention"),
        ("dtype.layer_norm=fp32", "did you mean 'dtype.layernorm'", "dtype.layernorm"),
        ("dtype=float16", "unknown value of dtype 'float16'", "fp16"),
        ("dtype=fp166", "did you mean 'fp16'", "fp16"),
        ("fused-attention=-1", "unknown value of fused-attention", "all"),
        ("fused-attention=most", "unknown value of fused-attention", "all"),
        ("provider=gpu", "unknown value of provider", "cpu"),
        ("tf32=true", "unknown value of tf32", "on"),
        ("precision-hint=fp32", "unknown value of precision-hint", "f32"),
        ("dtype", "says nothing of what it requires", "dtype=fp32"),
        ("tf32=", "says nothing of what it requires", "tf32=on|off"),
    ],
)
def test_what_is_unknown_lists_what_there_is_nearest_first(text: str, complaint: str, first: str) -> None:
    with pytest.raises(UsageFailed, match=complaint) as raised:
        parse_requirements(text)
    assert raised.value.expected.removeprefix("one of ").startswith(first)


def test_two_values_of_one_key_are_refused() -> None:
    with pytest.raises(UsageFailed, match="dtype is required to be fp32 and fp16"):
        parse_requirements("dtype=fp32,dtype=fp16")


def test_what_was_built_as_asked_is_met() -> None:
    assert found(EVERY_KEY) == []


@pytest.mark.parametrize(
    ("text", "changed", "words"),
    [
        ("fused-attention=all", {"fused_attention": {"fused": 1, "of": 2}}, "1 of 2 attentions run"),
        ("fused-attention=all", {"fused_attention": {"fused": 0, "of": 0}}, "there is no attention in it"),
        ("fused-attention=none", {}, "2 of 2 attentions"),
        ("fused-attention=1", {}, "2 of 2 attentions"),
        ("dtype=fp16", {"precision": "fp32"}, "it is computed in fp32 in some on cuda:0"),
        ("dtype.layernorm=fp32", {"dtypes": {"layernorm": {"fp16": 1, "fp32": 4}}}, "1 in fp16, 4 in fp32"),
        ("provider=cuda", {"placement": {"CUDAExecutionProvider": 88, "CPUExecutionProvider": 2}}, "2 on CPU"),
        ("provider=cpu", {"placement": {"cuda:0": 3}}, "of 3 nodes there are 3 on cuda:0"),
        ("tf32=off", {"tf32": True}, "it is on"),
        ("tf32=on", {}, "it is off"),
        ("tf32=on", {"tf32": None, "device": "cpu"}, "it is off"),
        ("precision-hint=f32", {"precision_hint": "bf16"}, "the hint that was read back is bf16"),
    ],
)  # fmt: skip
def test_what_was_built_otherwise_says_what_and_what_to_do(
    text: str, changed: dict[str, Any], words: str
) -> None:
    (sentence,) = found(text, **changed)
    asked, _, rest = sentence.partition(" was asked for: ")
    told, _, advice = rest.partition("; ")
    assert asked == text
    assert words in told
    assert advice


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("fused-attention=none", {"fused_attention": {"fused": 0, "of": 2}}),
        ("fused-attention=2", {}),
        ("provider=cuda", {"placement": {"cuda:0": 3}}),
        ("provider=cpu", {"placement": {"CPU": 3}}),
        ("provider=cpu", {"placement": {"CPUExecutionProvider": 3}}),
        ("tf32=off", {"tf32": None, "device": "cpu"}),
        # Arithmetic on shapes is put on the CPU by design.
        ("provider=cuda", {
            "placement": {"CUDAExecutionProvider": 88, "CPUExecutionProvider": 2},
            "details": {"shape_nodes": {"CPUExecutionProvider": 2}},
        }),
    ],
)  # fmt: skip
def test_other_ways_to_be_met(text: str, changed: dict[str, Any]) -> None:
    assert found(text, **changed) == []


@pytest.mark.parametrize("key", EVERY_KEY.split(","))
def test_what_is_not_known_is_not_met(key: str) -> None:
    asked = parse_requirements(key)
    for nothing in ({}, built(artefact(), None)):
        (sentence,) = unmet_from_built(asked, nothing)
        assert sentence.startswith(f"{key} was asked for: its exporter does not tell ")
        assert sentence.endswith("; verify it on a machine that can run it")


def test_a_session_that_tells_nothing_meets_nothing() -> None:
    bare = RuntimeFacts("bare", "1", "cuda:0", "fp32")
    sentences = unmet(parse_requirements(EVERY_KEY), artefact(), bare)
    assert len(sentences) == len(EVERY_KEY.split(","))
    assert (
        sum("bare does not tell" in sentence for sentence in sentences) == len(sentences) - 1
    )  # but for dtype


def test_an_engine_that_cannot_be_run_is_judged_by_its_exporter() -> None:
    engine = artefact(
        "tensorrt",
        attention={"layers": 2, "decomposable": 2},
        dtypes={"linear": {"fp16": 9, "fp32": 1}, "layernorm": {"fp32": 5}},
        tf32=False,
    )
    assert unmet(parse_requirements("dtype=fp16,dtype.layernorm=fp32,tf32=off"), engine, None) == []
    told = unmet(parse_requirements("fused-attention=all,dtype.linear=fp16,provider=cuda"), engine, None)
    assert "0 of 2 attentions run as one kernel; export with" in told[0]
    assert "9 in fp16, 1 in fp32" in told[1]
    assert "its exporter does not tell where its nodes were put" in told[2]


def test_a_verdicts_session_comes_before_the_exporter() -> None:
    engine = artefact("tensorrt", dtypes={"linear": {"fp16": 9}})
    judged = Verdict(passed=True, details={"built": built(engine, session(precision="fp32"))})
    assert built_as_judged(engine, judged)["precision"] == "fp32"
    assert built_as_judged(engine, Verdict(passed=None))["precision"] == "fp16"


def test_what_was_built_is_plain_and_small() -> None:
    told = built(artefact(), session())
    assert json.loads(json.dumps(told)) == told
    assert len(json.dumps(told)) < 600
