"""``vit-deploy tune``: find the fastest way to run a bundle here, and make it the default of ``predict``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._output import (
    TerminalProgress,
    human_bytes,
    json_option,
    next_step,
    note,
    print_json,
    print_table,
    warn,
)

if TYPE_CHECKING:
    from vit_deploy.bundle.default import DefaultRecord, Objective
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.deploy.tune import Tuning
    from vit_deploy.deploy.tuning.race import Trial

OBJECTIVES: tuple[Objective, ...] = ("latency", "throughput", "memory")


@click.command("tune", short_help="Find the fastest way to run a bundle here; make it the default of predict.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    default="latency",
    show_default=True,
    help="What is to be best: an inference's median time, images per second, or peak memory.",
)
@click.option(
    "--budget",
    default="",
    metavar="LIMITS",
    help="What the winner must hold, by comma: p50=20ms, p90=…, p99=50ms, memory=2GB, images_per_s=100.",
)
@click.option(
    "--time",
    "time_text",
    default="2m",
    show_default=True,
    metavar="TIME",
    help="How long the search may take: 90s, 5m, 1h. A run under way is not cut short.",
)
@click.option(
    "-b",
    "--backend",
    default="all",
    show_default=True,
    help="Backends to try, by comma; `all` is what runs here.",
)
@click.option(
    "--device", default="", metavar="NAME", help="cpu, cuda or cuda:1.  [default: each backend's best]"
)
@click.option(
    "--batch-size",
    default="",
    metavar="SIZES",
    help="Batch sizes to try, by comma.  [default: 1; for throughput 1, 2, 4 … to the largest verified]",
)
@click.option(
    "--threads",
    default="",
    metavar="COUNTS",
    help="CPU threads to try, by comma.  [default: 1, 2, 4 … to the usable cores]",
)
@click.option(
    "--streams",
    default="",
    metavar="COUNTS",
    help="Inferences side by side, by comma.  [default: 1; for throughput what divides the threads]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random order of the turns.")
@click.option("--dry-run", is_flag=True, help="Show what was found; write nothing.")
@click.option("--html", type=click.Path(path_type=Path), help="A file for a page with the figures as charts.")
@json_option
def command(
    bundle: Path,
    objective: Objective,
    budget: str,
    time_text: str,
    dry_run: bool,
    html: Path | None,
    seed: int,
    as_json: bool,
    **wishes: str,
) -> None:
    """Find the artefact, backend, threads, streams and batch size of BUNDLE that are best on this machine.

    Only artefacts that passed parity are tried. Many short runs come first, the workers taking turns; what is
    clearly worse leaves, and the others run longer. The winner is written into the manifest, and `predict`
    uses it from then on.

    \b
    *           no other is better in latency, throughput and memory at once
    """
    from vit_deploy.bundle.defaults import require_writable_bundle, write_default
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.deploy.tune import default_record, tune
    from vit_deploy.deploy.tuning.budget import parse_budget, parse_time

    limits, time_s = parse_budget(budget), parse_time(time_text)
    wish = _wish(**wishes)
    opened = Bundle.open(bundle)
    if not dry_run:
        require_writable_bundle(bundle)
    if html is not None:
        from vit_deploy.report.writing import require_writable

        require_writable(html)
    with TerminalProgress() as progress:
        found = tune(opened, objective, budget=limits, time_s=time_s, wish=wish, seed=seed, progress=progress)
    record = default_record(found) if found.decision else None
    written = record is not None and not dry_run
    if record is not None and written:
        write_default(bundle, record)
    if html is not None:
        _write_page(found, html)
    if as_json:
        print_json("tune", document(found, record, written=written))
    else:
        _print(found)
    _end(found, record, opened, written=written)


def _wish(backend: str, device: str, batch_size: str, threads: str, streams: str) -> Any:
    from vit_deploy.deploy.tuning.grid import Wish

    return Wish(
        backends=[name for name in _words(backend) if name != "all"],
        device=device,
        batch_sizes=_counts("batch-size", batch_size),
        threads=_counts("threads", threads),
        streams=_counts("streams", streams),
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _counts(name: str, text: str) -> list[int]:
    from vit_deploy.errors import UsageFailed

    words = _words(text)
    if not all(word.isdecimal() and len(word) < 7 and int(word) for word in words):
        raise UsageFailed(f"--{name} is {text!r}", expected="whole numbers above 0, by comma: 1,2,4")
    return [int(word) for word in words]


def document(found: Tuning, record: DefaultRecord | None, *, written: bool) -> dict[str, Any]:
    """What a search found, for programs."""
    decision, front = found.decision, set(found.front)
    ratio = decision.ratio if decision else None
    return {
        "objective": found.objective,
        "budget": [limit.text for limit in found.budget],
        "winner": record.model_dump() if record else None,
        "written": written,
        "decision": {
            "key": decision.winner.case.key,
            "runner_up": decision.runner_up.case.key if decision.runner_up else None,
            "ratio": ratio.value if ratio else None,
            "ratio_interval": [ratio.low, ratio.high] if ratio else None,
            "measurable": decision.measurable,
            "sentence": decision.sentence,
        }
        if decision
        else None,
        "candidates": [_candidate_json(entry, entry.case.key in front) for entry in found.trials],
        "left_out": [vars(entry) for entry in found.left_out],
        "disturbed": list(found.disturbed),
        "soundness": found.result.soundness,
    }


def _candidate_json(trial: Trial, on_front: bool) -> dict[str, Any]:
    case, row = trial.case, trial.row
    return {
        "key": case.key,
        "artefact": case.artefact,
        "backend": case.backend,
        "device": case.device,
        "batch_size": case.batch_size,
        "threads": case.threads,
        "streams": case.streams,
        "status": trial.status,
        "why": trial.why,
        "on_front": on_front,
        "runs": trial.runs,
        "p50_ms": row.p50_ms if row else None,
        "p90_ms": row.p90_ms if row else None,
        "p99_ms": row.p99_ms if row else None,
        "images_per_s": row.images_per_s if row else None,
        "peak_rss_bytes": row.peak_rss_bytes if row else None,
    }


def _print(found: Tuning) -> None:
    """Everything that was tried, the best first."""
    front = set(found.front)
    headings = ["", "artefact", "backend", "batch>", "threads>", "streams>", "p50 ms>", "img/s>", "peak>", ""]
    print_table(
        headings,
        [_cells(entry, entry.case.key in front) for entry in found.trials],
        title=f"Tuned for {found.objective}" + "".join(f", {limit.text}" for limit in found.budget),
    )
    for entry in found.left_out:
        note(f"left out: {entry.name}: {entry.reason}" + (f"; mend: {entry.mend}" if entry.mend else ""))
    for trial in found.trials:
        if trial.status == "failed":
            warn(f"{trial.case.key} failed: {trial.why}")
    for word in found.disturbed:
        warn(f"the final was disturbed: {word}")
    if found.doubt:
        warn(f"{found.doubt}; tune again when the machine is quieter")


def _cells(trial: Trial, on_front: bool) -> list[str]:
    case, row = trial.case, trial.row
    on_cpu = case.device == "cpu"
    return [
        "*" if on_front else "",
        case.artefact,
        case.backend if on_cpu else f"{case.backend} on {case.device}",
        str(case.batch_size),
        str(case.threads) if on_cpu else "–",
        str(case.streams) if on_cpu else "–",
        _number(row.p50_ms if row else None),
        _number(row.images_per_s if row else None),
        "–" if row is None or row.peak_rss_bytes is None else human_bytes(row.peak_rss_bytes),
        trial.status,
    ]


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:#.3g}"


def _write_page(found: Tuning, path: Path) -> None:
    from vit_deploy.bench.document import BenchReport
    from vit_deploy.environment import environment
    from vit_deploy.report.bench.html import write_html

    skipped = [{"backend": entry.name, "reason": entry.reason, "mend": entry.mend} for entry in found.left_out]
    write_html(BenchReport.of(found.result, environment(), skipped), path)


def _end(found: Tuning, record: DefaultRecord | None, bundle: Bundle, *, written: bool) -> None:
    """Who won and why, then the next useful command.

    Raises:
        BudgetUnmet: when nobody did.
    """
    decision = found.require_winner()
    note(f"winner: {record}")
    note(f"why: {decision.sentence}")
    where = shlex.quote(str(bundle.path))
    if not written:
        next_step(f"vit-deploy tune {where} --objective {found.objective}, which writes it too")
        return
    note("it is the bundle's default now, on machines like this one")
    outputs = bundle.records[decision.winner.case.artefact].io_spec().output_names
    next_step(f"vit-deploy predict {where} IMAGE" if "logits" in outputs else f"vit-deploy inspect {where}")
