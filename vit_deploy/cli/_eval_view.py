"""What ``eval`` prints: tables for people, one document for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._eval_gate import rulings
from vit_deploy.cli._output import note, print_notes, print_table, warn
from vit_deploy.evaluation.paired import CONFIDENCE
from vit_deploy.evaluation.pictures import SHOWN, several

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.deploy.entrants import Row
    from vit_deploy.deploy.evaluate import Evaluation
    from vit_deploy.evaluation.figures import Change, Figures
    from vit_deploy.evaluation.paired import Share

CONFUSIONS = 5
"""How many kinds of changed answers are shown."""


# --- people --------------------------------------------------------------------------------------------------


def show(evaluation: Evaluation, words: Mapping[str, Any]) -> None:
    """Print the tables, and on stderr what is to be known of the data."""
    _tell_data(evaluation)
    print_table(
        ["artefact", "backend", "top-1>", "95 %>", "top-5>", "drop>", "95 % paired>", "lost>", "gained>", "p>"],
        [_cells(row, place == 0) for place, row in enumerate(evaluation.rows)],
    )
    print_notes((row.name, _remark(row)) for row in evaluation.rows)
    if words["per_class"]:
        _show_classes(evaluation)
    for row in evaluation.rows[1:]:
        if row.figures is not None and row.figures.changes:
            _show_changes(evaluation, row, row.figures, words["changes"])


def _tell_data(evaluation: Evaluation) -> None:
    found, mapping = evaluation.found, evaluation.mapping
    count, left_out = len(evaluation.used), len(evaluation.unreadable)
    of = f" of {len(found.pictures)}" if count < len(found.pictures) else ""
    where = f"named by {found.table}" if found.table else "in folders"
    note(f"{count}{of} pictures {where}; {mapping.told}")
    if found.empty:
        warn(f"{len(found.empty)} folders hold no pictures: {several(found.empty)}")
    if found.passed_over:
        note(f"{found.passed_over} files are passed over, as their names are no pictures'")
    if left_out:
        warn(f"{left_out} of {count} pictures could not be read, and are left out:")
    for picture, error in evaluation.unreadable[:SHOWN]:
        note(f"  {click.format_filename(picture.name)}: {error.found}")
    if left_out > SHOWN:
        note(f"  and {left_out - SHOWN} more; --json names them all")


def _cells(row: Row, first: bool) -> tuple[str, ...]:
    figures = row.figures
    if figures is None:
        return (row.name, row.backend or "–", *["–"] * 8)
    top5 = f"{figures.top5.share:.2%}" if figures.top5 else "–"
    shares = (f"{figures.top1.share:.2%}", _range(figures.top1), top5)
    if first:
        return (row.name, row.backend, *shares, *["–"] * 5)
    drop = figures.drop
    low, high = drop.interval()
    paired = (f"{drop.points:+.2f}", f"{low:+.2f} to {high:+.2f}", str(drop.lost), str(drop.gained))
    return (row.name, row.backend, *shares, *paired, f"{drop.p_value:.2g}")


def _range(share: Share) -> str:
    return f"{100 * share.low:.2f} to {100 * share.high:.2f}"


def _remark(row: Row) -> str:
    if row.error is not None:
        return f"{'failed' if row.failed else 'not run'}: {row.error.in_a_line}"
    remarks = []
    if row.computed:
        remarks.append(f"{row.backend} computes it in {row.computed} here, which says little of {row.dtype}")
    if row.figures is not None and row.figures.broken:
        remarks.append(f"gave NaN or Inf for {row.figures.broken} pictures, which count as wrong")
    return "; ".join(remarks)


def _show_classes(evaluation: Evaluation) -> None:
    shown = [row for row in evaluation.rows if row.figures is not None]
    headings = [f"{row.name} ({row.backend})>" for row in shown]
    rows = []
    for index, (_, count) in _classes(evaluation.reference).items():
        cells = [f"{_classes(row)[index][0] / count:.1%}" for row in shown]
        rows.append((evaluation.label(index), str(count), *cells))
    click.echo()
    print_table(["class", "pictures>", *headings], rows)


def _classes(row: Row) -> dict[int, tuple[int, int]]:
    return row.figures.by_class if row.figures is not None else {}


def _show_changes(evaluation: Evaluation, row: Row, figures: Figures, limit: int) -> None:
    count, drop = len(figures.changes), figures.drop
    other = count - drop.lost - drop.gained
    kinds = [
        f"{evaluation.label(before)} → {evaluation.label(after)} ({times})"
        for (before, after), times in figures.confusions()
    ]
    more = f", and {len(kinds) - CONFUSIONS} other kinds" if len(kinds) > CONFUSIONS else ""
    click.echo()
    told = f"{count} of {figures.top1.of} answered otherwise than by eager ({drop.lost} lost, "
    told += f"{drop.gained} gained, {other} wrong both times): {', '.join(kinds[:CONFUSIONS])}{more}"
    print_notes([(f"{row.name} in {row.backend}", told)])
    if limit:
        print_table(
            ["picture", "shows", "eager", row.name],
            [_change_cells(evaluation, change) for change in figures.changes[:limit]],
        )


def _change_cells(evaluation: Evaluation, change: Change) -> tuple[str, ...]:
    answers = (change.label, change.reference, change.answer)
    return (click.format_filename(change.file), *(evaluation.label(answer) for answer in answers))


# --- machines ------------------------------------------------------------------------------------------------


def document(evaluation: Evaluation, words: Mapping[str, Any]) -> dict[str, Any]:
    """What a machine reads; see docs/commands/eval.md."""
    return {
        "data": _data(evaluation),
        "confidence": CONFIDENCE,
        "reference": evaluation.reference.name,
        "rows": [
            _row(evaluation, row, place == 0, words["changes"]) for place, row in enumerate(evaluation.rows)
        ],
        "classes": _class_rows(evaluation) if words["per_class"] else None,
        "gate": _gate(evaluation, words["max_drop"], words["strict"]),
    }


def _data(evaluation: Evaluation) -> dict[str, Any]:
    found = evaluation.found
    return {
        "path": click.format_filename(found.root),
        "kind": found.kind,
        "table": found.table or None,
        "found": len(found.pictures),
        "used": len(evaluation.used),
        "evaluated": len(evaluation.used) - len(evaluation.unreadable),
        "classes": len(evaluation.mapping.indices),
        "classes_read_as": evaluation.mapping.how,
        "empty_folders": list(found.empty),
        "passed_over": found.passed_over,
        "unreadable": [
            {"file": click.format_filename(picture.name), "error": error.found}
            for picture, error in evaluation.unreadable
        ],
    }


def _row(evaluation: Evaluation, row: Row, first: bool, limit: int) -> dict[str, Any]:
    figures = row.figures
    data: dict[str, Any] = {
        "artefact": row.name,
        "backend": row.backend or None,
        "device": row.device or None,
        "format": row.format,
        "dtype": row.dtype,
        "ok": row.error is None,
        "error": row.error.in_a_line if row.error is not None else None,
        "precision": row.facts.precision if row.facts is not None else None,
        "version": row.facts.version if row.facts is not None else None,
        "top1": _share(figures.top1) if figures else None,
        "top5": _share(figures.top5) if figures and figures.top5 else None,
        "not_finite": figures.broken if figures else None,
    }
    if figures is None or first:
        return {**data, "drop": None, "agreement": None, "confusions": [], "changes": []}
    return {**data, **_against_reference(evaluation, figures, limit)}


def _against_reference(evaluation: Evaluation, figures: Figures, limit: int) -> dict[str, Any]:
    drop = figures.drop
    low, high = drop.interval()
    return {
        "drop": {
            "points": drop.points,
            "low": low,
            "high": high,
            "lost": drop.lost,
            "gained": drop.gained,
            "p_value": drop.p_value,
        },
        "agreement": figures.agreement,
        "confusions": [
            {"reference": evaluation.label(before), "answer": evaluation.label(after), "pictures": times}
            for (before, after), times in figures.confusions()
        ],
        "changes": [_change(evaluation, change) for change in figures.changes[:limit]],
    }


def _change(evaluation: Evaluation, change: Change) -> dict[str, Any]:
    return {
        "file": click.format_filename(change.file),
        "label": evaluation.label(change.label),
        "reference": evaluation.label(change.reference),
        "answer": evaluation.label(change.answer),
    }


def _share(share: Share) -> dict[str, Any]:
    return {**asdict(share), "share": share.share}


def _class_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows = [row for row in evaluation.rows if row.figures is not None]
    return [
        {
            "index": index,
            "label": evaluation.label(index),
            "pictures": count,
            "right": [
                {"artefact": row.name, "backend": row.backend, "right": _classes(row)[index][0]} for row in rows
            ],
        }
        for index, (_, count) in _classes(evaluation.reference).items()
    ]


def _gate(evaluation: Evaluation, budget: float | None, strict: bool) -> dict[str, Any] | None:
    """What is shown of the budget: ``held``, ``exceeded`` or ``open`` for each artefact."""
    if budget is None:
        return None
    judged = rulings(evaluation, budget)
    failing = {"exceeded", "open"} if strict else {"exceeded"}
    return {
        "max_drop": budget,
        "strict": strict,
        "passed": not any(ruling in failing for _, _, ruling in judged),
        "rows": [{"artefact": row.name, "backend": row.backend, "ruling": ruling} for row, _, ruling in judged],
    }
