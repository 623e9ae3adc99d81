"""The report as a document: what was printed before is there, JSON holds no NaN, the schema is published."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from pydantic import ValidationError

from tests.report import specimens
from vit_deploy.facts import Verdict
from vit_deploy.parity.against import Comparison, Finding
from vit_deploy.parity.inputs import Sample
from vit_deploy.report.document import Judged, ParityReport, build_report, json_schema
from vit_deploy.report.plain import plain

FIRST_NAMES = {
    "name", "format", "dtype", "bytes", "passed", "worst_ratio", "p95_ratio", "backend", "reason", "samples",
    "details",
}  # fmt: skip


def document(**changes: object) -> dict:
    return json.loads(specimens.report(**changes).to_json())


def test_what_verify_has_always_printed_is_there():
    found = document()
    assert found["schema"] == "vit-deploy/verify/1"
    assert found["environment"] == specimens.ENVIRONMENT
    assert found["bundle"] == "bundles/vit_small"
    fp32 = found["artefacts"][0]
    assert fp32.keys() >= FIRST_NAMES
    assert {name: fp32[name] for name in FIRST_NAMES - {"details"}} == {
        "name": "onnx-fp32",
        "format": "onnx",
        "dtype": "fp32",
        "bytes": 346_000_000,
        "passed": True,
        "worst_ratio": 5.0,
        "p95_ratio": 4.0,
        "backend": "onnxruntime",
        "reason": "",
        "samples": 8,
    }
    assert fp32["details"]["limits"] == {"worst": 10.0, "p95": 4.0}


def test_what_was_found_out_is_there_by_name():
    fp32, fp16, absent = document()["artefacts"]
    assert fp16["limits"] == {"worst": 4.0, "p95": 2.0}
    assert fp16["decisions"]["top1"]["lower_bound"] == 0.652
    assert fp16["steadiness"] == {"run_to_run": 0.0, "batch_position": 0.4 * 82.4, "batch_size": None}
    assert fp16["built"]["fused_attention"] == {"fused": 12, "of": 12}
    assert fp16["range_watch"]["limit"] == 65504
    assert fp16["culprit"]["stage"] == "pass"
    assert [stage["holds"] for stage in fp16["culprit"]["stages"]] == [True, True, True, False, False, None]
    assert fp16["drift"]["readings"][15]["tap"] == "blocks.7.attn"
    assert not fp16["drift"]["readings"][15]["holds"]
    assert fp16["unmet"] == ["fused-attention: 11 of 12 "]
    assert fp16["evidence"]["worst_run"]["slot"] == 4
    assert fp32["culprit"] is None
    assert absent["backend"] is None
    assert absent["decisions"] is absent["drift"] is absent["built"] is None


def test_classes_have_their_names_and_samples_their_places():
    sample = document()["artefacts"][1]["evidence"]["samples"][2]
    assert sample["index"] == 2
    assert sample["top1"] == {"eager": ["tabby cat", 0.87], "artefact": ["tiger", 0.61]}
    unnamed = build_report("b", specimens.judged(), specimens.samples(), {}).artefacts[1].evidence.samples[2]
    assert unnamed.top1.eager == [3, 0.87]


def test_a_sample_that_is_one_of_some_is_found_by_its_name():
    verdict = Verdict(True, evidence={"samples": [{"name": "pink-2"}, {"name": "nobody"}]})
    judged = Judged("a", "onnx", "fp32", "pixel_values", 1, verdict)
    found = build_report("b", [judged], specimens.samples(), {}).artefacts[0].evidence.samples
    assert [sample.index for sample in found] == [2, None]


@pytest.mark.parametrize(
    ("verdicts", "unmet", "outcome"),
    [
        ([True, None], (), "passed"),
        ([True, False], (), "failed"),
        ([None], (), "unverified"),
        ([], (), "unverified"),
        ([True], ("tf32=off was asked for",), "failed"),
        ([None], ("tf32=off was asked for",), "failed"),
    ],
)
def test_the_outcome_counts_parity_and_what_was_required(
    verdicts: list[bool | None], unmet: tuple, outcome: str
):
    judged = [Judged("a", "onnx", "fp32", "uint8", 1, Verdict(passed), unmet=unmet) for passed in verdicts]
    assert build_report("b", judged, [], {}).outcome == outcome


def test_a_bundle_that_is_no_equal_of_the_accepted_one_fails():
    judged = specimens.judged()[:1]
    worse = Comparison((Finding("ratio", "fails", "3 times as far", "onnx-fp32"),))
    found = build_report("b", judged, [], {}, comparison=worse)
    assert found.outcome == "failed"
    assert found.to_dict()["against"] == {
        "passed": False,
        "findings": [{"name": "ratio", "severity": "fails", "text": "3 times as far", "artefact": "onnx-fp32"}],
    }
    informed = Comparison((Finding("bytes", "informs", "other bytes"),))
    assert build_report("b", judged, [], {}, comparison=informed).outcome == "passed"
    assert build_report("b", judged, [], {}).to_dict()["against"] is None


def refuse(constant: str) -> None:
    raise AssertionError(constant)


def test_numbers_that_are_not_finite_are_null():
    text = specimens.nothing_but_faults().to_json()
    found = json.loads(text, parse_constant=refuse)["artefacts"][0]
    assert found["worst_ratio"] is found["p95_ratio"] is None
    assert found["details"]["outputs"]["logits"] == {"worst_ratio": None, "p95_ratio": None}
    assert [tap["error"] for tap in found["drift"]["readings"]] == [0.0, None, None]
    assert found["culprit"]["stages"][0]["worst_ratio"] is None


def test_text_that_is_no_unicode_is_written():
    text = specimens.report(hostile=True).to_json()
    assert "größe 犬 ?" in json.loads(text.encode("utf-8"))["bundle"]


def test_anything_measured_becomes_plain():
    found = plain(
        {
            1: np.float32(0.5),
            "array": np.array([[1.0, math.nan], [math.inf, 2.0]]),
            "tuple": (np.int64(3), np.bool_(True), None),
            "set": frozenset({"x"}),
            "data": Sample("a", "b", np.zeros(2, np.float32)),
            "bytes": b"x",
        }
    )
    assert found == {
        "1": 0.5,
        "array": [[1.0, None], [None, 2.0]],
        "tuple": [3, True, None],
        "set": ["x"],
        "data": {"name": "a", "family": "b", "pixel_values": [0.0, 0.0], "others": {}, "picture": None},
        "bytes": "b'x'",
    }
    assert type(found["tuple"][1]) is bool


def test_a_name_that_is_not_known_is_refused_where_the_document_is_ours():
    found = specimens.report().to_dict()
    assert ParityReport.model_validate(found).to_dict() == found
    with pytest.raises(ValidationError):
        ParityReport.model_validate({**found, "surprise": 1})


def test_the_schema_of_the_report_is_golden(golden):
    golden("../../docs/verify.schema.json", json.dumps(json_schema(), indent=2, sort_keys=True) + "\n")


def test_the_schema_tells_the_names_of_the_document():
    schema = json_schema()
    assert set(schema["properties"]) == set(document())
    assert set(schema["$defs"]["ArtefactReport"]["properties"]) == set(document()["artefacts"][0])
    assert set(schema["$defs"]["ArtefactReport"]["required"]) >= FIRST_NAMES
