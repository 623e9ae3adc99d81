"""JUnit XML, as Jenkins, GitLab and the actions for GitHub read it: one suite for each artefact.

There is no standard; the dialect is the part that Jenkins' ``junit-10.xsd``
(https://github.com/jenkinsci/xunit-plugin) and the older one of Apache Ant have in common: attributes that
either requires are there, children stand in the order that both allow, and ``system-out`` is inside a
test case, where GitLab looks for it. No dates and no names of hosts are written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from vit_deploy.report.checks import decision_checks, output_checks
from vit_deploy.report.facts import built_lines, range_lines, steadiness_lines
from vit_deploy.report.words import ratio
from vit_deploy.report.writing import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vit_deploy.report.checks import Check
    from vit_deploy.report.document import ArtefactReport, ParityReport
    from vit_deploy.report.records import AgainstRecord

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even as a reference (section 2.2)."""

_NO_TIME = "0"
"""The check of an artefact is one run, which has no times of parts; readers want the attribute."""


def write_junit(report: ParityReport, path: str | Path) -> None:
    """Write the report as JUnit XML.

    Raises:
        OutputFailed: when it cannot be written.
    """
    write_text(path, junit(report))


def junit(report: ParityReport) -> str:
    """The report as JUnit XML, ending in a line break."""
    root = ET.Element("testsuites", name=_legal(f"vit-deploy verify {report.bundle}"), time=_NO_TIME)
    for number, artefact in enumerate(report.artefacts):
        root.append(_suite(report, artefact, number))
    if report.against is not None:
        root.append(_against(report.against, len(root)))
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(report: ParityReport, artefact: ArtefactReport, number: int) -> ET.Element:
    suite = ET.Element("testsuite", name=_legal(artefact.name), id=str(number), time=_NO_TIME)
    suite.append(_properties(report, artefact))
    cases = [_criterion(artefact), *_outputs(artefact), *_decisions(artefact), *_steadiness(artefact)]
    cases += [_requirements(artefact), *_range_watch(artefact)]
    return _with_cases(suite, cases)


def _with_cases(suite: ET.Element, cases: Sequence[ET.Element]) -> ET.Element:
    suite.extend(cases)
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("errors", "0")
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    return suite


def _against(found: AgainstRecord, number: int) -> ET.Element:
    """The bundle beside the one that was accepted last: a case that holds everything that was found."""
    suite = ET.Element("testsuite", name="against the accepted bundle", id=str(number), time=_NO_TIME)
    suite.append(ET.Element("properties"))
    case = ET.Element("testcase", classname="against", name="no worse than accepted", time=_NO_TIME)
    lines = [" ".join(filter(None, (entry.artefact, entry.text))) for entry in found.findings]
    if found.passed is False:
        failing = [line for line, entry in zip(lines, found.findings, strict=True) if entry.severity == "fails"]
        _fail(case, "against", "; ".join(failing) or "not equal to the accepted bundle", lines)
    else:
        _say(case, lines)
    return _with_cases(suite, [case])


def _properties(report: ParityReport, artefact: ArtefactReport) -> ET.Element:
    """The figures and the versions that a reader of a red build asks for first."""
    packages = report.environment.get("packages") or {}
    told = {
        "bundle": report.bundle,
        "outcome": artefact.outcome,
        "format": artefact.format,
        "dtype": artefact.dtype,
        "backend": artefact.backend or "",
        "worst_ratio": _number(artefact.worst_ratio),
        "p95_ratio": _number(artefact.p95_ratio),
        "samples": str(artefact.samples),
        **{f"limit.{name}": _number(value) for name, value in artefact.limits.items()},
        **{name: str(report.environment.get(name, "")) for name in ("cpu", "system", "python")},
        **{f"version.{name}": str(version) for name, version in packages.items()},
    }
    properties = ET.Element("properties")
    for name, value in told.items():
        ET.SubElement(properties, "property", name=_legal(name), value=_legal(value))
    return properties


def _number(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _case(artefact: ArtefactReport, name: str) -> ET.Element:
    return ET.Element("testcase", classname=_legal(artefact.name), name=_legal(name), time=_NO_TIME)


def _fail(case: ET.Element, kind: str, message: str, told: Sequence[str]) -> None:
    failure = ET.SubElement(case, "failure", type=kind, message=_legal(message))
    failure.text = _legal("\n".join(told))


def _say(case: ET.Element, lines: Sequence[str]) -> ET.Element:
    if lines:
        ET.SubElement(case, "system-out").text = _legal("\n".join(lines))
    return case


def _criterion(artefact: ArtefactReport) -> ET.Element:
    """Parity as a whole: it carries the reason and the culprit."""
    case = _case(artefact, "parity criterion")
    if artefact.passed is None:
        ET.SubElement(case, "skipped", message=_legal(artefact.reason or "unverified"))
    elif not artefact.passed:
        culprit = artefact.culprit.sentence if artefact.culprit is not None else ""
        message = ". ".join(part for part in (culprit, artefact.reason) if part)
        _fail(case, "parity", message or "not equal to eager PyTorch", _story(artefact))
    else:
        told = f"worst ratio {ratio(artefact.worst_ratio)}, at the 95th percentile {ratio(artefact.p95_ratio)}"
        _say(case, [told, f"{artefact.samples} samples on {artefact.backend}"])
    return case


def _story(artefact: ArtefactReport) -> list[str]:
    """Reason, culprit, and the ladder of stages that the culprit was found on."""
    lines = [artefact.reason]
    if artefact.culprit is not None:
        lines += ["", artefact.culprit.sentence, ""]
        for stage in artefact.culprit.stages:
            word = {True: "holds", False: "DIVERGES", None: "not run"}[stage.holds]
            note = f" ({stage.note})" if stage.note else ""
            lines.append(f"{word:9} {stage.kind}: {stage.name}, ratio {ratio(stage.worst_ratio)}{note}")
        lines += artefact.culprit.notes
    return lines


def _checked(artefact: ArtefactReport, name: str, checks: Sequence[Check]) -> ET.Element:
    case = _case(artefact, name)
    lines = [_line(check) for check in checks]
    broken = [_line(check) for check in checks if check.holds is False]
    if broken:
        _fail(case, "limit", "; ".join(broken), lines)
        return case
    return _say(case, lines)


def _line(check: Check) -> str:
    return f"{check.subject}, {check.figure}: {check.measured}" + (
        f" (limit {check.allowed})" if check.allowed else ""
    )


def _outputs(artefact: ArtefactReport) -> list[ET.Element]:
    return [_checked(artefact, f"output {name}", checks) for name, checks in output_checks(artefact).items()]


def _decisions(artefact: ArtefactReport) -> list[ET.Element]:
    checks = decision_checks(artefact)
    return [_checked(artefact, "decisions", checks)] if checks else []


def _steadiness(artefact: ArtefactReport) -> list[ET.Element]:
    """It is measured, and has no limit: the case always passes."""
    lines = steadiness_lines(artefact)
    return [_say(_case(artefact, "steadiness"), lines)] if lines else []


def _requirements(artefact: ArtefactReport) -> ET.Element:
    case = _case(artefact, "built as required")
    if artefact.unmet:
        _fail(case, "requirement", "; ".join(artefact.unmet), [*artefact.unmet, "", *built_lines(artefact)])
        return case
    if artefact.passed is None:
        ET.SubElement(case, "skipped", message=_legal(artefact.reason or "unverified"))
        return case
    return _say(case, built_lines(artefact))


def _range_watch(artefact: ArtefactReport) -> list[ET.Element]:
    lines = range_lines(artefact)
    return [_say(_case(artefact, "range watch"), lines)] if lines else []


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
