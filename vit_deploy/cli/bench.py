"""``vit-deploy bench``: latency, throughput, cold start and memory, each case in a process of its own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._bench_options import bench_options
from vit_deploy.cli._output import warn
from vit_deploy.model.module_config import PREFIX

if TYPE_CHECKING:
    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.document import BenchReport
    from vit_deploy.bench.plan import Skipped
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.cli._bench_asked import Asked

COMPARE = "compare"


class BenchCommand(click.Command):
    """``bench``, and ``bench compare``, which compares two of its results."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """As click does; a bundle that is called ``compare`` is ``./compare``."""
        if args[:1] == [COMPARE]:
            from vit_deploy.cli._bench_compare import command as compare

            return compare.make_context(f"{info_name} {COMPARE}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(
    "bench",
    cls=BenchCommand,
    short_help="Measure latency and throughput, each case in a process of its own.",
    epilog="`vit-deploy bench compare OLD.json NEW.json --fail-if 'p50 > +3%'` compares two results.",
)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@bench_options
@click.pass_context
def command(
    context: click.Context,
    /,
    bundle: Path | None,
    model: str | None,
    input_shape: str,
    trust_code: bool,
    output: Path | None,
    resume: bool,
    html: Path | None,
    markdown: Path | None,
    csv: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Measure the artefacts of BUNDLE, one worker process per case, the workers taking turns.

    With no BUNDLE, what is needed is exported into the cache first.

    \b
    ±           half the width of the median's 95 % confidence interval.
    p90, p99    given from 36 and 368 samples on; fewer cannot bound them.
    ratio       time over the baseline's, paired round by round: below 1 is faster.
                The baseline is --baseline, else eager where it is measured, else
                the first row of the same device, batch and image size.
    95 %        the bootstrap interval of that ratio.
    cold s      seconds from the start of the process to the end of its first inference.
    peak        the most memory that the process had resident.
    """
    from vit_deploy.cli._bench_asked import asked_of
    from vit_deploy.cli._bench_output import Documents
    from vit_deploy.cli._bench_run import measure
    from vit_deploy.cli._bench_view import end, print_result, tell_of

    documents = Documents(output, html, markdown, csv, resume=resume)
    asked = asked_of(context, options)
    _refuse_both(bundle, model)
    opened, cases, skipped = _subject(bundle, model, input_shape, trust_code, asked)
    result = measure(cases, skipped, asked, documents)
    report = documents.report(result, skipped)
    if as_json:
        click.echo(report.to_json(), nl=False)
    else:
        print_result(result)
    tell_of(result)
    if not result.interrupted:
        _judge(report, asked)
    end(result, opened)
    return 130 if result.interrupted else result.exit_code


def _refuse_both(bundle: Path | None, model: str | None) -> None:
    from vit_deploy.errors import UsageFailed

    if bundle is not None and model is not None and not model.startswith(PREFIX):
        raise UsageFailed(
            f"both the bundle {str(bundle)!r} and --model {model!r} were given",
            expected="one of them: a bundle holds its model",
            next_command=f"vit-deploy bench {shlex.quote(str(bundle))}",
        )


def _subject(
    bundle: Path | None, model: str | None, input_shape: str, trust_code: bool, asked: Asked
) -> tuple[Bundle, list[Case], list[Skipped]]:
    """What is measured: the bundle, its cases, and what had to be left out."""
    from vit_deploy.bench.plan import choose_backends, plan_cases
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.cli._bench_cache import Wanted, cached_bundle
    from vit_deploy.cli._code import named_code

    chosen, skipped = choose_backends(asked.backends, asked.device, required=asked.required)
    if bundle is not None:
        opened = Bundle.open(bundle)
    else:
        grid = asked.grid
        wanted = Wanted(
            grid.batch_sizes, grid.image_sizes, grid.contracts or ("pixel_values",), grid.formats, input_shape
        )
        opened, unexported = cached_bundle(model, chosen, wanted)
        left_out = {entry.backend for entry in unexported}
        skipped += unexported
        chosen = [entry for entry in chosen if entry.runtime.name not in left_out]
    own = model if model and model.startswith(PREFIX) else ""
    code = named_code(opened, own, trust_code)
    cases, without = plan_cases(opened, chosen, asked.grid, code)
    return opened, cases, [*skipped, *without]


def _judge(report: BenchReport, asked: Asked) -> None:
    """Hold the result against the gates and the SLO.

    Raises:
        GateFailed: when one does not hold.
        NotJudged: when the run is not fit to be judged.
    """
    from vit_deploy.bench.gate import judge_result
    from vit_deploy.cli._bench_view import unmet_slos
    from vit_deploy.errors import GateFailed

    unmet = unmet_slos(report.scenarios)
    if unmet:
        raise GateFailed(
            "; ".join(unmet),
            expected=f"a rate at which {asked.slo} holds",
            next_command="a faster artefact or backend, more --streams, or an SLO that this machine can hold",
        )
    if asked.gates:
        judgement = judge_result(asked.gates, report)
        for finding in judgement.of("undecided", "refused"):
            warn(str(finding))
        judgement.require(strict=asked.strict)
