"""A run of ``bench`` as the command line has it: told, shown while it goes on, kept, and gone on with."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.cli._bench_output import Listeners
from vit_deploy.cli._output import TerminalProgress, note, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.journal import Journal
    from vit_deploy.bench.plan import Skipped
    from vit_deploy.bench.result import BenchResult
    from vit_deploy.cli._bench_asked import Asked
    from vit_deploy.cli._bench_output import Documents


def measure(
    cases: Sequence[Case], skipped: Sequence[Skipped], asked: Asked, documents: Documents
) -> BenchResult:
    """Measure the cases, then play the scenarios; every file that was asked for is written at the end.

    Stopped by the user, it gives what was measured until then.

    Raises:
        UsageFailed: when there is nothing to measure, or nothing of that run to go on with.
        OutputFailed: when the disk is full; what was measured stays in the journal.
    """
    _tell_before(cases, skipped)
    if asked.ceiling:
        from vit_deploy.bench.ceiling import ceiling_cases

        cases = [*cases, *ceiling_cases(cases)]
    with _journal(cases, asked, documents) as journal:
        result = _run(cases, asked, journal)
        if (asked.scenarios or asked.slo) and not result.interrupted:
            result = _with_scenarios(result, cases, asked)
        documents.write(documents.report(result, skipped))
        if journal is not None and not result.interrupted:
            journal.remove()
    return result


def _tell_before(cases: Sequence[Case], skipped: Sequence[Skipped]) -> None:
    for entry in skipped:
        note(f"left out: {entry.backend}: {entry.reason}; mend: {entry.mend}")
    for name in dict.fromkeys(case.artefact for case in cases if not case.verified):
        warn(f"{name} is measured unverified: its parity with eager PyTorch was never checked")


def _journal(
    cases: Sequence[Case], asked: Asked, documents: Documents
) -> contextlib.AbstractContextManager[Journal | None]:
    """The journal beside the document; none where no document is written."""
    from vit_deploy.bench.journal import Journal, journal_path
    from vit_deploy.environment import environment

    if documents.output is None:
        return contextlib.nullcontext()
    path = journal_path(documents.output)
    return Journal(path, cases, asdict(asked.settings), environment(), resume=documents.resume)


def _run(cases: Sequence[Case], asked: Asked, journal: Journal | None) -> BenchResult:
    from vit_deploy.bench.coordinator import run_bench
    from vit_deploy.cli._bench_live import live_table

    done = journal.finished() if journal is not None else {}
    if done:
        note(f"going on: {len(done)} of {len(cases)} cases were measured before")
    with live_table(cases, baseline=asked.settings.baseline, done=done) as live:
        listeners = [live, *([journal] if journal is not None else [])]
        return run_bench(cases, asked.settings, done=done, progress=live, listener=Listeners(*listeners))


def _with_scenarios(result: BenchResult, cases: Sequence[Case], asked: Asked) -> BenchResult:
    """The result with what LoadGen found on every case that can be run."""
    from vit_deploy.bench.scenarios import run_scenarios

    able = {row.key for row in result.rows if row.ok}
    playing = [case for case in cases if case.key in able]
    found: list[dict[str, Any]] = []
    interrupted = False
    if playing:
        try:
            with TerminalProgress() as progress:
                run_scenarios(
                    playing,
                    asked.scenarios,
                    asked.scenario_settings,
                    asked.slo,
                    progress=progress,
                    finished=found.append,
                )
        except KeyboardInterrupt:
            interrupted = True
    return replace(result, scenarios=tuple(found), interrupted=interrupted)
