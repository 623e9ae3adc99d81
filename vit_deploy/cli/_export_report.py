"""What ``export`` tells of each artefact: a table for people, a JSON document for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.cli._output import human_bytes, note, print_json, print_notes, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vit_deploy.deploy.job import Outcome
    from vit_deploy.deploy.ladder import Climb
    from vit_deploy.proof import Proof


def report(
    outcomes: Sequence[Outcome],
    target: Path,
    *,
    as_json: bool,
    proof: Proof | None = None,
    climb: Climb | None = None,
) -> None:
    """The outcomes as one JSON document, or as a table; their notes on stderr.

    Args:
        outcomes: of the artefacts.
        target: the bundle.
        as_json: one document instead of a table.
        proof: of the import.
        climb: how ``--dtype auto`` came to the precisions.
    """
    for entry in outcomes:
        for line in entry.notes:
            note(line)
    if as_json:
        artefacts = [outcome_json(entry) for entry in outcomes]
        proved = proof.to_dict() if proof else None
        rungs = {"rungs": [step.to_dict() for step in climb.steps]} if climb else {}
        print_json("export", {"bundle": str(target), "proof": proved, "artefacts": artefacts, **rungs})
        return
    if climb:
        _print_rungs(climb)
    rows = []
    for entry in outcomes:
        verdict = entry.verdict
        ratio = f"{verdict.worst_ratio:.2f}" if verdict and verdict.worst_ratio is not None else "–"
        rows.append(
            (
                entry.name,
                verdict.word if verdict else "not made",
                ratio,
                human_bytes(entry.record.nbytes) if entry.record else "–",
                f"{entry.export_s:.1f}",
                f"{entry.verify_s:.1f}",
            )
        )
    headings = ("artefact", "parity", "worst ratio>", "size>", "export s>", "verify s>")
    print_table(headings, rows, title=f"bundle {target}")
    print_notes((entry.name, _note(entry)) for entry in outcomes)


def _print_rungs(climb: Climb) -> None:
    """Which rungs were tried for each format, the fastest first, and what decided."""
    formats = list(dict.fromkeys(step.format for step in climb.steps))
    steps = sorted(climb.steps, key=lambda step: formats.index(step.format))
    marks = {True: "taken", False: "passed over"}
    rows = [(step.format, step.rung, marks[step.held]) for step in steps]
    print_table(("format", "precision", "--dtype auto"), rows)
    print_notes((f"{step.format} {step.rung}", step.why) for step in steps)


def _note(outcome: Outcome) -> str:
    if outcome.error:
        return outcome.error.in_a_line
    return outcome.verdict.reason if outcome.verdict else ""


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """One artefact as the machine-readable documents have it."""
    verdict, record = outcome.verdict, outcome.record
    return {
        "name": outcome.name,
        "format": outcome.format,
        "dtype": outcome.precision,
        "input": outcome.contract,
        "bytes": record.nbytes if record else None,
        "accepted": record is not None,
        "passed": verdict.passed if verdict else None,
        "worst_ratio": verdict.worst_ratio if verdict else None,
        "p95_ratio": verdict.p95_ratio if verdict else None,
        "backend": verdict.backend if verdict else None,
        "reason": verdict.reason if verdict else "",
        "samples": verdict.samples if verdict else 0,
        "error": str(outcome.error) if outcome.error else None,
        "files": [file.model_dump() for file in record.files] if record else [],
        "facts": dict(record.facts) if record else {},
        "export_s": round(outcome.export_s, 3),
        "verify_s": round(outcome.verify_s, 3),
    }
