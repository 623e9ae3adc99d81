"""JUnit XML as CI systems read it: the rules of Jenkins' and Ant's schemas, by hand."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.report import specimens
from vit_deploy.report.document import ParityReport
from vit_deploy.report.junit import junit, write_junit

SUITES = {"name", "tests", "failures", "errors", "skipped", "time"}
CHILDREN = {
    "testsuites": ["testsuite"],
    "testsuite": ["properties", "testcase"],
    "properties": ["property"],
    "property": [],
    "testcase": ["skipped", "error", "failure", "system-out"],
    "failure": [],
    "skipped": [],
    "system-out": [],
}
ATTRIBUTES = {
    "testsuites": SUITES,
    "testsuite": SUITES | {"id"},
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"name", "classname", "time"},
    "failure": {"type", "message"},
    "skipped": {"message"},
    "system-out": set(),
}


def check(element: ET.Element) -> None:
    """Known names alone, in the schemas' order; every attribute that either schema asks for."""
    order = CHILDREN[element.tag]
    places = [order.index(child.tag) for child in element]
    assert places == sorted(places)
    assert set(element.attrib) == ATTRIBUTES[element.tag]
    for name in ("tests", "failures", "errors", "skipped"):
        assert re.fullmatch("[0-9]+", element.get(name, "0"))
    assert float(element.get("time", "0")) >= 0
    if element.tag == "testcase":
        assert len(element) <= 1
        assert element.get("name")
        assert element.get("classname")
    for child in element:
        check(child)


def check_counts(root: ET.Element) -> None:
    for suite in [*root, root]:
        cases = [*suite.iter("testcase")]
        assert int(suite.get("tests", "")) == len(cases)
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(name, "")) == sum(case.find(tag) is not None for case in cases), name


REPORTS = {
    "plain": specimens.report,
    "hostile": lambda: specimens.report(hostile=True, against=True),
    "faults": specimens.nothing_but_faults,
}


@pytest.mark.parametrize("make", REPORTS.values(), ids=REPORTS)
def test_it_is_what_ci_systems_read(make):
    root = ET.fromstring(junit(make()))
    check(root)
    check_counts(root)
    for suite in root:
        names = [case.get("name") for case in suite.iter("testcase")]
        assert len(names) == len(set(names))


@pytest.fixture
def suites() -> dict[str, ET.Element]:
    root = ET.fromstring(junit(specimens.report()))
    return {suite.get("name", ""): suite for suite in root}


def case(suite: ET.Element, name: str) -> ET.Element:
    return next(entry for entry in suite.iter("testcase") if entry.get("name") == name)


def test_there_is_a_suite_for_each_artefact(suites: dict[str, ET.Element]):
    assert list(suites) == ["onnx-fp32", "onnx-fp16", "tensorrt-fp16"]
    assert [suite.get("failures") for suite in suites.values()] == ["0", "4", "0"]


def test_a_failure_tells_the_culprit_and_the_reason(suites: dict[str, ET.Element]):
    failure = case(suites["onnx-fp16"], "parity criterion").find("failure")
    assert failure.get("message").startswith("The error comes in at blocks.7.attn")
    assert "412 times eager's own error" in failure.get("message")
    assert "DIVERGES  pass: fuse attention, ratio 412 (from here on the error is there)" in failure.text
    assert "not run   precision: fp16" in failure.text


def test_each_output_has_a_case_with_its_limits(suites: dict[str, ET.Element]):
    held = case(suites["onnx-fp32"], "output logits").findtext("system-out")
    assert "error at the worst: 5.00 × (limit ≤ 10 ×)" in held
    broken = case(suites["onnx-fp16"], "output tokens").find("failure").get("message")
    assert "error at the worst: 206 × (limit ≤ 4 ×)" in broken


def test_what_was_required_has_a_case_of_its_own(suites: dict[str, ET.Element]):
    assert "fused-attention: 11 of 12" in case(suites["onnx-fp16"], "built as required").find("failure").get(
        "message"
    )
    told = case(suites["onnx-fp32"], "built as required").findtext("system-out")
    assert "fused attention: 12 of 12" in told
    assert "linear layers: 48 × fp32" in told


def test_what_has_no_limit_is_told(suites: dict[str, ET.Element]):
    suite = suites["onnx-fp32"]
    assert "from run to run: equal to the last bit" in case(suite, "steadiness").findtext("system-out")
    assert "1 near-tie" in case(suite, "decisions").findtext("system-out")
    assert "block 11: the residual stream" in case(suite, "range watch").findtext("system-out")


def test_what_could_not_be_checked_is_skipped_with_the_reason(suites: dict[str, ET.Element]):
    suite = suites["tensorrt-fp16"]
    assert [entry.find("skipped") is not None for entry in suite.iter("testcase")] == [True, True]
    message = case(suite, "parity criterion").find("skipped").get("message")
    assert message.startswith("tensorrt: no CUDA device; vit-deploy doctor")


def test_versions_and_ratios_are_properties(suites: dict[str, ET.Element]):
    told = {entry.get("name"): entry.get("value") for entry in suites["onnx-fp16"].iter("property")}
    assert told["worst_ratio"] == "412"
    assert told["limit.worst"] == "4"
    assert told["version.onnxruntime"] == "1.32.0"
    assert told["bundle"] == "bundles/vit_small"


def test_a_budget_that_is_broken_fails_the_decisions():
    judged = specimens.judged()[1]
    limits = {"top1": 0.99, "kl": 0.05}
    details = {**judged.verdict.details, "limits": limits, "outputs": {}}
    details["decisions"] = {
        "top1": {"agreed": 2, "of": 7, "lower_bound": 0.05, "upper_bound": 0.66},
        "kl": {"mean": 0.2},
    }
    found = report_of(judged, details)
    message = case(ET.fromstring(junit(found))[0], "decisions").find("failure").get("message")
    assert "2 of 7" in message
    assert "≥ 99 % for sure" in message
    assert "≤ 0.05" in message


def test_too_few_samples_are_no_failure():
    judged = specimens.judged()[0]
    top1 = {"agreed": 8, "of": 8, "lower_bound": 0.68, "upper_bound": 1.0, "samples_needed": 298}
    details = {"limits": {"top1": 0.99}, "decisions": {"top1": top1}}
    found = case(ET.fromstring(junit(report_of(judged, details)))[0], "decisions")
    assert found.find("failure") is None
    assert "298 samples would show it" in found.findtext("system-out")


def report_of(judged, details) -> ParityReport:
    from dataclasses import replace

    from vit_deploy.report.document import build_report

    verdict = replace(judged.verdict, details=details)
    return build_report("b", [replace(judged, verdict=verdict)], [], specimens.ENVIRONMENT)


def test_a_rebuild_that_is_worse_fails_in_a_suite_of_its_own():
    suite = ET.fromstring(junit(specimens.report(against=True)))[-1]
    assert suite.get("name") == "against the accepted bundle"
    failure = case(suite, "no worse than accepted").find("failure")
    assert failure.get("message").strip() == "onnx-fp16 11 of 12 attentions are fused, and 12 were"
    assert "torch 2.13.0 was 2.12.1" in failure.text


def test_it_is_written(tmp_path: Path):
    write_junit(specimens.report(hostile=True), tmp_path / "parity.xml")
    text = (tmp_path / "parity.xml").read_text(encoding="utf-8")
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites ')
    assert ET.parse(tmp_path / "parity.xml").getroot().tag == "testsuites"
    assert "\x1b" not in text
    assert "größe 犬" in text
