"""The parity report: one document that every rendering is made from, and that machines read as JSON.

It is a superset of what ``verify --json`` has always printed; names are added, never changed. Its JSON
Schema is published as ``docs/verify.schema.json`` and kept equal to these classes by a test.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from vit_deploy.deploy.verify import Judged
from vit_deploy.report.plain import plain
from vit_deploy.report.records import AgainstRecord, CulpritRecord, Decisions, DriftRecord, Evidence, Steadiness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vit_deploy.parity.against import Comparison
    from vit_deploy.parity.inputs import Sample

__all__ = ["SCHEMA", "ArtefactReport", "Judged", "Outcome", "ParityReport", "build_report", "json_schema"]

SCHEMA: Final = "vit-deploy/verify/1"

Outcome = Literal["passed", "failed", "unverified"]
"""What stands over an artefact: its parity, and whether it was built as was required."""


class _Closed(BaseModel):
    """What is ours alone to fill: a name that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ArtefactReport(_Closed):
    """One artefact. The names before ``contract`` are those of the first version of this document."""

    name: str
    format: str
    dtype: str
    bytes: int
    passed: bool | None = Field(description="Whether parity holds; null where it could not be judged here.")
    worst_ratio: float | None
    p95_ratio: float | None
    backend: str | None
    reason: str
    samples: int = Field(description="How many distinct inputs were judged.")
    details: dict[str, Any] = Field(description="As the bundle's manifest records them.")
    contract: str
    outcome: Outcome = Field(description="Parity, and that all that was required of the artefact is so.")
    unmet: list[str] = Field(description="What was required and is not so.")
    limits: dict[str, Any] = Field(description="Every limit that was in force, by name.")
    decisions: Decisions | None
    steadiness: Steadiness | None
    built: dict[str, Any] | None = Field(description="What was read back from what was built.")
    range_watch: dict[str, Any] | None
    culprit: CulpritRecord | None
    drift: DriftRecord | None
    evidence: Evidence


class SampleRecord(_Closed):
    """One input that artefacts were judged on."""

    index: int
    name: str
    family: str


class ParityReport(_Closed):
    """Everything a run of ``vit-deploy verify`` found."""

    schema_: Literal["vit-deploy/verify/1"] = Field(alias="schema")
    environment: dict[str, Any]
    bundle: str = Field(description="The bundle, or the model, that was verified.")
    outcome: Outcome = Field(
        description="failed where any artefact failed, or `against` did; unverified where none passed."
    )
    artefacts: list[ArtefactReport]
    samples: list[SampleRecord]
    against: AgainstRecord | None = Field(description="Beside the bundle that was accepted last.")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data: no NaN, no infinity."""
        return self.model_dump(mode="json", by_alias=True)

    def to_json(self) -> str:
        """The document as text that ends in a line break."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def build_report(
    bundle_or_model: str,
    judged: Sequence[Judged],
    samples: Sequence[Sample],
    environment: Mapping[str, Any],
    *,
    labels: Sequence[str] = (),
    comparison: Comparison | None = None,
) -> ParityReport:
    """The report of what was found.

    Args:
        bundle_or_model: what was verified, as the user named it.
        judged: each artefact, in the order to show them in.
        samples: what they were judged on.
        environment: of :func:`vit_deploy.environment.environment`.
        labels: names of the classes; numbers stand where there are none.
        comparison: with the bundle that was accepted last, where one was named.
    """
    against = None if comparison is None else _against(comparison)
    artefacts = [_artefact(entry, samples, labels) for entry in judged]
    return ParityReport(
        schema=SCHEMA,
        environment=plain(environment),
        bundle=plain(bundle_or_model),
        outcome=_together([entry.outcome for entry in artefacts], against),
        artefacts=artefacts,
        samples=[
            SampleRecord(index=index, name=plain(sample.name), family=sample.family)
            for index, sample in enumerate(samples)
        ],
        against=against,
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of :meth:`ParityReport.to_json`."""
    schema = ParityReport.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _against(comparison: Comparison) -> AgainstRecord:
    return AgainstRecord.model_validate({"passed": comparison.passed, "findings": plain(comparison.findings)})


def _together(outcomes: Sequence[Outcome], against: AgainstRecord | None) -> Outcome:
    if "failed" in outcomes or (against is not None and against.passed is False):
        return "failed"
    return "passed" if "passed" in outcomes else "unverified"


def _outcome(passed: bool | None, unmet: Sequence[str]) -> Outcome:
    if passed is False or unmet:
        return "failed"
    return "unverified" if passed is None else "passed"


def _artefact(judged: Judged, samples: Sequence[Sample], labels: Sequence[str]) -> ArtefactReport:
    verdict = judged.verdict
    details = plain(verdict.details)
    return ArtefactReport.model_validate(
        {
            "name": plain(judged.name),
            "format": judged.format,
            "dtype": judged.precision,
            "bytes": judged.bytes,
            "passed": verdict.passed,
            "worst_ratio": plain(verdict.worst_ratio),
            "p95_ratio": plain(verdict.p95_ratio),
            "backend": verdict.backend or None,
            "reason": plain(verdict.reason),
            "samples": verdict.samples,
            "details": details,
            "contract": judged.contract,
            "outcome": _outcome(verdict.passed, judged.unmet),
            "unmet": plain(judged.unmet),
            "limits": details.get("limits") or {},
            "decisions": details.get("decisions"),
            "steadiness": details.get("steadiness"),
            "built": details.get("built"),
            "range_watch": details.get("range_watch"),
            "culprit": plain(judged.culprit),
            "drift": plain(judged.drift),
            "evidence": _evidence(plain(verdict.evidence), samples, labels),
        }
    )


def _evidence(evidence: dict[str, Any], samples: Sequence[Sample], labels: Sequence[str]) -> dict[str, Any]:
    """The evidence with each sample's place among all, and the names of classes."""
    names = [plain(sample.name) for sample in samples]
    entries = evidence.get("samples") or []
    in_order = [entry.get("name") for entry in entries] == names
    told = []
    for place, entry in enumerate(entries):
        # Two files of one name may lie in two folders, so a name alone does not always say which.
        index = place if in_order else names.index(entry["name"]) if entry["name"] in names else None
        told.append({"index": index, **entry, "top1": _named(entry.get("top1"), labels)})
    return {**evidence, "samples": told}


def _named(top1: dict[str, list[Any]] | None, labels: Sequence[str]) -> dict[str, list[Any]] | None:
    if top1 is None:
        return None

    def name(chosen: list[Any]) -> list[Any]:
        first = chosen[0] if chosen else None
        known = isinstance(first, int) and 0 <= first < len(labels)
        return [plain(labels[first]), *chosen[1:]] if known and isinstance(first, int) else chosen

    return {side: name(chosen) for side, chosen in top1.items()}
