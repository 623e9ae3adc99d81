"""``vit-deploy bench compare``: two results beside each other, and gates that fail a build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._output import json_option, note, print_json, print_notes, print_table, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bench.compare import Comparison
    from vit_deploy.bench.gate import Gate, Judgement
    from vit_deploy.errors import VitDeployError


@click.command("compare", short_help="Compare two results; fail where one became worse.")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--fail-if",
    "fail_if",
    multiple=True,
    metavar="GATE",
    help="What must not be, such as 'p50 > +3%' or 'rss > 2GB'; may be given again.",
)
@click.option(
    "--allow-different",
    default="",
    metavar="NAMES",
    help="Differences of the environments that are meant, by comma; `versions`, `all`.",
)
@click.option("--strict", is_flag=True, help="A gate that cannot be decided fails too.")
@click.option("--markdown", type=click.Path(path_type=Path), help="A file for a pull request's comment.")
@json_option
def command(
    old: Path,
    new: Path,
    fail_if: tuple[str, ...],
    allow_different: str,
    strict: bool,
    markdown: Path | None,
    as_json: bool,
) -> None:
    """Compare the result NEW with the earlier result OLD, both written by `vit-deploy bench -o`.

    Rows of the same artefact, backend, device, batch, image size, threads and
    streams meet. Each change has a 95 % interval; ✗ is worse and ✓ is better
    beyond it. Results of unlike environments are refused.

    \b
    A gate is METRIC > LIMIT or METRIC < LIMIT:
    p50 p90 p99     +3% against OLD, or 50ms of NEW alone
    images_per_s    -5%, or 120
    ratio           +3%, or 0.9: latency over the baseline's of the same run,
                    in which a slow day of the machine cancels
    cold            +20%, or 2s: one start, so judged without an interval
    rss, bytes      +10%, or 2GB: peak memory; bytes one inference moves
    It fails where the whole interval lies beyond the limit, exit code 5, and is
    not decided where the limit lies within it, exit code 0.
    A row that held in OLD, and failed or is missing in NEW, fails every gate.
    Nothing is judged on a run that is unsound or was interrupted, nor a time
    on a row whose samples were disturbed.
    """
    from vit_deploy.bench.compare import compare
    from vit_deploy.bench.document import read_result
    from vit_deploy.bench.gate import parse_gate
    from vit_deploy.report.writing import require_writable, write_text

    gates = [parse_gate(text) for text in fail_if]
    if markdown is not None:
        require_writable(markdown)
    comparison = compare(read_result(old), read_result(new), allow_different.split(","))
    judgement, refusal = _judge(gates, comparison)
    if as_json:
        print_json("bench-compare", _document(comparison, judgement, refusal))
    else:
        _show(comparison, judgement)
    if markdown is not None:
        from vit_deploy.cli._bench_compare_view import markdown as comment

        write_text(markdown, comment(comparison, judgement, refusal.found if refusal else ""))
    if refusal is not None:
        raise refusal
    if judgement is not None:
        judgement.require(strict=strict)
        for entry in judgement.of("undecided", "refused"):
            warn(f"not decided: {entry}")


def _judge(gates: Sequence[Gate], comparison: Comparison) -> tuple[Judgement | None, VitDeployError | None]:
    """What the gates say, or why they say nothing: the comparison is shown in either case."""
    from vit_deploy.bench.gate import NotJudged, judge_comparison

    if not gates:
        return None, None
    try:
        return judge_comparison(gates, comparison), None
    except NotJudged as refusal:
        return None, refusal


def _document(
    comparison: Comparison, judgement: Judgement | None, refusal: VitDeployError | None
) -> dict[str, Any]:
    """``environment`` is that of NEW: this machine may only be the one that compares."""
    return {
        "environment": comparison.new.environment,
        **comparison.to_dict(),
        "passed": None if judgement is None else judgement.passed,
        "not_judged": None if refusal is None else refusal.found,
        "gates": [] if judgement is None else judgement.to_list(),
    }


def _show(comparison: Comparison, judgement: Judgement | None) -> None:
    """The table and what is to be said of its rows, on stdout; what qualifies it all, on stderr."""
    from vit_deploy.cli._bench_compare_view import NOT_INTERLEAVED, notes, table

    for entry in comparison.differences:
        (warn if entry.refused else note)(f"the environments differ, {entry}")
    for word, report in (("OLD", comparison.old), ("NEW", comparison.new)):
        _qualify(word, report)
    if comparison.rows:
        headings, rows = table(comparison)
        print_table(headings, rows, title="NEW against OLD, with 95 % intervals")
    else:
        warn("the results have no row in common")
    print_notes(notes(comparison))
    for key, reason in comparison.lost.items():
        warn(f"{key} held in OLD; {reason}")
    for finding in () if judgement is None else judgement.of("holds"):
        note(f"holds: {finding}")
    note(NOT_INTERLEAVED)


def _qualify(word: str, report: Any) -> None:
    if report.interrupted:
        warn(f"{word} was interrupted: it is a part of a run")
    if report.soundness is None:
        note(f"{word} was measured without an A/A, so that nothing says how far to trust it")
    elif not report.soundness.sound:
        warn(f"{word} is unsound: {report.soundness.reason or 'its A/A was told apart'}")
