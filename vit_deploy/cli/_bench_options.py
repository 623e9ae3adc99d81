"""The flags of ``bench``: what is measured, how, and where the result goes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._code import input_shape_option, trust_option
from vit_deploy.cli._output import json_option
from vit_deploy.errors import UsageFailed
from vit_deploy.spec import CONTRACTS

if TYPE_CHECKING:
    from collections.abc import Callable

_WHAT: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "-b", "--backend", default="all", show_default=True, help="Backends, by comma; `all` is what runs here."
    ),
    click.option("--suite", default="", help="What a suite says: quick, cpu, gpu, release, or a TOML file."),
    click.option("--batch-size", default="1", show_default=True, help="Batch sizes, by comma."),
    click.option(
        "--image-size", default="", help="Image sizes, by comma: 224,384x224; the model's own unless given."
    ),
    click.option("--format", "formats", default="", help="Only artefacts of these formats, by comma."),
    click.option("--dtype", default="", help="Only artefacts of these precisions, by comma."),
    click.option(
        "--input",
        "contracts",
        default="",
        help=f"Only artefacts that take these, by comma: {', '.join(CONTRACTS)}.",
    ),
    click.option("--device", help="`cpu`, `cuda` or `cuda:1`; the best of each backend unless given."),
    click.option(
        "--threads",
        default="",
        help="CPU threads of every worker, by comma, or `all`; OMP_NUM_THREADS or all cores unless given.",
    ),
    click.option(
        "--streams",
        default="1",
        show_default=True,
        help="Inferences side by side, by comma, or `threads`: each has its share of the threads.",
    ),
    click.option(
        "--emulate",
        is_flag=True,
        help="Measure artefacts in backends that compute them in another precision, too.",
    ),
    click.option(
        "--cuda-graph", is_flag=True, help="Replay inferences as a CUDA graph, in the backends that can."
    ),
    click.option(
        "-m",
        "--model",
        help="What to export and measure when no BUNDLE is given; the code of a BUNDLE of a py: module.",
    ),
    input_shape_option,
    trust_option,
)

_HOW: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--duration", type=float, default=10.0, show_default=True, help="Seconds of samples for each case."
    ),
    click.option(
        "--rounds", type=int, help="Turns that the time of a case is cut into.  [default: of 0.1 s each]"
    ),
    click.option(
        "--launches",
        type=int,
        default=5,
        show_default=True,
        help="Processes that each case has in turn: two of one program differ for as long as they live.",
    ),
    click.option(
        "--precision-target",
        type=float,
        default=1.0,
        show_default=True,
        help="Stop early once each median and ratio is known to within this many percent, at 95 % confidence.",
    ),
    click.option("--baseline", default="", help="What ratios stand against.  [default: eager, else the first]"),
    click.option("--aa/--no-aa", default=True, help="Measure an artefact against itself, to trust the rest."),
    click.option(
        "--ceiling/--no-ceiling", default=False, help="Time the model's matrix products too: how close is it?"
    ),
    click.option(
        "--scenario", default="", help="MLPerf's scenarios, by comma: singlestream,multistream,offline,server."
    ),
    click.option(
        "--official", is_flag=True, help="Play scenarios for as long as MLPerf's rules ask: 10 minutes or more."
    ),
    click.option("--slo", default="", help="Find the highest rate that holds it: p99=50ms."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the random order of the turns."),
    click.option(
        "--timeout",
        type=float,
        default=300.0,
        show_default=True,
        help="Seconds after which a worker that does not answer is killed.",
    ),
)

_GATES: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--fail-if",
        "fail_if",
        multiple=True,
        metavar="GATE",
        help="What must not be, such as 'p99 > 50ms' or 'ratio > 0.9' (exit 5); may be given again.",
    ),
    click.option("--strict", is_flag=True, help="A gate that cannot be decided fails too."),
)

_WHERE: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        help="A file for the JSON document with all samples.",
    ),
    click.option("--resume", is_flag=True, help="Go on with the run that was to write --output."),
    click.option("--html", type=click.Path(path_type=Path), help="A file for one page with everything in it."),
    click.option("--markdown", type=click.Path(path_type=Path), help="A file for the table in Markdown."),
    click.option("--csv", type=click.Path(path_type=Path), help="A file for the table in CSV."),
    json_option,
)


def bench_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Offer every flag, in the order of the help page."""
    for option in reversed((*_WHAT, *_HOW, *_GATES, *_WHERE)):
        command = option(command)
    return command


def words_of(text: str) -> list[str]:
    """The words of a list by comma."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers_of(flag: str, text: str, word: str = "") -> tuple[Any, ...]:
    """The numbers of a list by comma, each once, and ``word`` as it is.

    Raises:
        UsageFailed: for anything else, or for none.
    """
    words = words_of(text)
    if not words or not all(entry == word or re.fullmatch("[1-9][0-9]{0,4}", entry) for entry in words):
        allowed = "whole numbers above 0" + (f" or {word!r}" if word else "")
        raise UsageFailed(f"{flag} is {text!r}", expected=f"{allowed}, by comma: 1,{word or 8}")
    return tuple(dict.fromkeys(entry if entry == word else int(entry) for entry in words))


def sizes_of(text: str) -> tuple[tuple[int, int], ...]:
    """The image sizes of a list by comma, each ``(height, width)`` and once.

    Raises:
        UsageFailed: for anything else.
    """
    found = [re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?", word) for word in words_of(text)]
    sizes = [(int(entry[1]), int(entry[2] or entry[1])) for entry in found if entry]
    if len(sizes) != len(found):
        raise UsageFailed(
            f"--image-size is {text!r}", expected="sides, or heights x widths, by comma: 224,384x224"
        )
    return tuple(dict.fromkeys(sizes))


def given(context: click.Context, name: str) -> bool:
    """Whether the user has said this flag, on the command line or in the environment."""
    source = context.get_parameter_source(name)
    return source in (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)
