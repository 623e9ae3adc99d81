"""``vit-deploy bench``: latency, throughput, cold start and memory, each case in a process of its own."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._code import input_shape_option, named_code, trust_option
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
from vit_deploy.model.module_config import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.bench.result import BenchResult, Row
    from vit_deploy.bundle.reader import Bundle

_MEASURING: list[Callable[[Any], Any]] = [
    click.option(
        "--duration", type=float, default=10.0, show_default=True, help="Seconds of samples for each case."
    ),
    click.option(
        "--rounds", type=int, default=5, show_default=True, help="Turns that the time of a case is cut into."
    ),
    click.option(
        "--precision-target",
        type=float,
        default=1.0,
        show_default=True,
        help="Stop early once each median is known to within this many percent, at 95 % confidence.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the random order of the turns."),
    click.option(
        "--timeout",
        type=float,
        default=300.0,
        show_default=True,
        help="Seconds after which a worker that does not answer is killed.",
    ),
]


def _measuring_options(function: Any) -> Any:
    for decorate in reversed(_MEASURING):
        function = decorate(function)
    return function


@click.command("bench", short_help="Measure latency and throughput, each case in a process of its own.")
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option(
    "-b", "--backend", default="all", show_default=True, help="Backends, by comma; `all` is what runs here."
)
@click.option("--batch-size", default="1", show_default=True, help="Batch sizes, by comma.")
@click.option("--device", help="`cpu`, `cuda` or `cuda:1`; the best of each backend unless given.")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="CPU threads of every worker; OMP_NUM_THREADS or all cores unless given.",
)
@click.option("--cuda-graph", is_flag=True, help="Replay inferences as a CUDA graph, in the backends that can.")
@click.option(
    "-m",
    "--model",
    help="What to export and measure when no BUNDLE is given; the code of a BUNDLE of a py: module.",
)
@input_shape_option
@trust_option
@_measuring_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="A file for the JSON document, samples included."
)
@json_option
def command(
    bundle: Path | None,
    backend: str,
    batch_size: str,
    device: str | None,
    threads: int | None,
    cuda_graph: bool,
    model: str | None,
    input_shape: str,
    trust_code: bool,
    output: Path | None,
    as_json: bool,
    **measuring: Any,
) -> int:
    """Measure the artefacts of BUNDLE, one worker process per case, the workers taking turns.

    With no BUNDLE, what is needed is exported into the cache first.

    \b
    ratio       time over the baseline's, paired round by round: below 1 is faster.
                The baseline is eager where it is measured, else the first row of
                the same batch size and device.
    p90, p99    given from 36 and 368 samples on; fewer cannot bound them.
    cold s      seconds from the start of the process to the end of its first inference.
    peak        the most memory that the process had resident.
    """
    from vit_deploy.bench.plan import choose_backends, default_threads, plan_cases, with_cuda_graphs
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.facts import Device

    settings, sizes = _settings(**measuring), _batch_sizes(batch_size)
    _refuse_both(bundle, model)
    _check_output(output)
    chosen, skipped = choose_backends(_words(backend), Device.parse(device) if device else None)
    if bundle is not None:
        opened = Bundle.open(bundle)
    else:
        from vit_deploy.cli._bench_cache import cached_bundle

        opened, unexported = cached_bundle(model, chosen, sizes, input_shape)
        left_out = {entry.backend for entry in unexported}
        skipped += unexported
        chosen = [entry for entry in chosen if entry.runtime.name not in left_out]
    own = model if model and model.startswith(PREFIX) else ""
    code = named_code(opened, own, trust_code)
    cases, without = plan_cases(opened, chosen, sizes, threads or default_threads(), code)
    skipped += without
    cases = with_cuda_graphs(cases) if cuda_graph else cases
    result = _run(cases, settings, skipped)
    document = {**result.to_dict(), "skipped": [vars(entry) for entry in skipped]}
    if output is not None:
        _write(output, document)
    if as_json:
        print_json("bench", document)
    else:
        print_result(result)
    _end(result, opened)
    return result.exit_code


def _run(cases: Any, settings: Any, skipped: Any) -> BenchResult:
    from vit_deploy.bench.coordinator import run_bench

    for entry in skipped:
        note(f"left out: {entry.backend}: {entry.reason}; mend: {entry.mend}")
    for name in dict.fromkeys(case.artefact for case in cases if not case.verified):
        warn(f"{name} is measured unverified: its parity with eager PyTorch was never checked")
    with TerminalProgress() as progress:
        return run_bench(cases, settings, progress=progress)


def _settings(duration: float, rounds: int, precision_target: float, seed: int, timeout: float) -> Any:
    from vit_deploy.bench.coordinator import Settings

    return Settings(
        duration_s=duration,
        rounds=rounds,
        precision_target=precision_target / 100,
        seed=seed,
        timeout_s=timeout,
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _batch_sizes(text: str) -> list[int]:
    from vit_deploy.errors import UsageFailed

    words = _words(text)
    if not words or not all(re.fullmatch("[1-9][0-9]{0,4}", word) for word in words):
        raise UsageFailed(f"--batch-size is {text!r}", expected="whole numbers above 0, by comma: 1,8")
    return list(dict.fromkeys(map(int, words)))


def _refuse_both(bundle: Path | None, model: str | None) -> None:
    from vit_deploy.errors import UsageFailed

    if bundle is not None and model is not None and not model.startswith(PREFIX):
        raise UsageFailed(
            f"both the bundle {str(bundle)!r} and --model {model!r} were given",
            expected="one of them: a bundle holds its model",
            next_command=f"vit-deploy bench {shlex.quote(str(bundle))}",
        )


def _check_output(output: Path | None) -> None:
    """Find out that the result cannot be written before minutes are spent on it.

    Raises:
        OutputFailed: when the folder does not exist or cannot be written to.
    """
    from vit_deploy.errors import OutputFailed

    if output is None:
        return
    folder = output.parent
    if not folder.is_dir() or output.is_dir() or not os.access(folder, os.W_OK):
        raise OutputFailed(
            f"{str(output)!r} cannot be written",
            expected="a file name in a folder that exists and is writable",
            next_command="choose another --output",
        )


def _write(output: Path, document: dict[str, Any]) -> None:
    """Write the document whole or not at all.

    Raises:
        OutputFailed: when the disk is full or the folder is gone.
    """
    import json

    from vit_deploy.environment import environment
    from vit_deploy.errors import OutputFailed

    whole = {"schema": "vit-deploy/bench/1", "environment": environment(), **document}
    text = json.dumps(whole, ensure_ascii=False, allow_nan=False) + "\n"
    target = output.resolve()  # a link stays one
    staged = target.with_name(f".{target.name}.part")
    try:
        if target.exists() and not target.is_file():  # a pipe or a device cannot be replaced
            target.write_text(text, encoding="utf-8")
            return
        staged.write_text(text, encoding="utf-8")
        staged.replace(target)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise OutputFailed(
            f"{str(output)!r} cannot be written: {error.strerror or error}",
            next_command="choose another --output",
        ) from error


def print_result(result: BenchResult) -> None:
    """The result as a table on stdout; a column of notes only where a row has one."""
    noted = any(_note(row) for row in result.rows)
    figures = ["batch", "p50 ms", "p90", "p99", "img/s", "ratio", "cold s", "peak"]
    headings = ["artefact", "backend", *(f"{name}>" for name in figures)]
    print_table(
        [*headings, "note"] if noted else headings,
        [[*_cells(row), _note(row)] if noted else _cells(row) for row in result.rows],
        title=_title(result),
    )


def _title(result: BenchResult) -> str:
    devices = dict.fromkeys(row.device for row in result.rows)
    threads = dict.fromkeys(row.threads for row in result.rows if row.device == "cpu")
    words = [", ".join(devices), *(f"{count} thread{'s' if count > 1 else ''}" for count in threads)]
    return f"Latency on {', '.join(words)}"


def _cells(row: Row) -> list[str]:
    cold = None if row.cold_start_ms is None else sum(row.cold_start_ms.values()) / 1e3
    return [
        row.artefact,
        row.backend if row.device == "cpu" else f"{row.backend} on {row.device}",
        str(row.batch_size),
        _number(row.p50_ms),
        _number(row.p90_ms),
        _number(row.p99_ms),
        _number(row.images_per_s),
        "–" if row.ratio is None else f"{row.ratio:.2f}",
        "–" if cold is None else f"{cold:.2f}",
        "–" if row.peak_rss_bytes is None else human_bytes(row.peak_rss_bytes),
    ]


def _number(value: float | None) -> str:
    """Three significant digits, never in powers of ten; a dash for what is not known."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:#.3g}"


def _note(row: Row) -> str:
    return "; ".join(row.notes) if row.ok else "failed, see below"


def _end(result: BenchResult, bundle: Bundle) -> None:
    """Why rows failed, then the next useful command."""
    for row in result.rows:
        if not row.ok:
            warn(f"{row.artefact} on {row.backend}, batch {row.batch_size}, failed: {row.error}")
    rates = {row.images_per_s: row for row in result.rows if row.images_per_s is not None}
    fastest = rates[max(rates)] if rates else None
    where = shlex.quote(str(bundle.path))
    classifies = any("logits" in record.io_spec().output_names for record in bundle.records.values())
    if fastest is None:
        next_step("vit-deploy doctor")
    elif not classifies:
        next_step(f"vit-deploy verify {where}")
    else:
        next_step(f"vit-deploy predict {where} IMAGE --backend {fastest.backend}")
