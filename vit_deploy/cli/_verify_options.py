"""The flags of ``verify``, in the order of its help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._code import code_options
from vit_deploy.cli._output import json_option
from vit_deploy.cli._sizes import image_size_option
from vit_deploy.cli._weights import use_ema_option
from vit_deploy.errors import UsageFailed
from vit_deploy.parity.images import MAX_IMAGES
from vit_deploy.spec import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TIMEOUT_S = 600.0
"""How long one run of an artefact may take before its worker is taken to hang."""

_FILE = click.Path(path_type=Path, dir_okay=False)

_WHAT: tuple[Callable[[Any], Any], ...] = (
    click.option("--format", "formats", default="all", show_default=True, help="Formats, by comma, or `all`."),
    click.option(
        "--backend",
        default="",
        metavar="NAME",
        help="What runs them: ort, openvino, torchscript, trt.  [default: the first this machine can run]",
    ),
    click.option(
        "--device", default="", metavar="NAME", help="cpu, cuda or cuda:1.  [default: the best there is]"
    ),
    click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads of an inference."),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0.1),
        default=TIMEOUT_S,
        show_default=True,
        metavar="SECONDS",
        help="How long one run of an artefact may take: past it, its worker is killed and the artefact fails.",
    ),
)

_INPUTS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--images",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="A folder of pictures to verify with, too.",
    ),
    click.option(
        "--max-images",
        type=click.IntRange(min=1),
        default=MAX_IMAGES,
        show_default=True,
        help="How many pictures of --images are used, evenly spread.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the generated pictures."
    ),
    click.option(
        "--cache/--no-cache",
        default=True,
        help="Keep what eager PyTorch gives for the next run on the same weights and pictures.",
    ),
)

_RULES: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="NAME=VALUE",
        help="Another limit or budget than the criterion's own: worst=12, top1=0.99, or none for no limit.",
    ),
    click.option(
        "--require",
        default="",
        metavar="KEY=VALUE",
        help="What else must be so, by comma: fused-attention=all,dtype=fp16,tf32=off.",
    ),
    click.option(
        "--against",
        type=click.Path(path_type=Path),
        metavar="BUNDLE",
        help="The bundle that was accepted last: this one must be no worse a build of the same model.",
    ),
    click.option(
        "--blame/--no-blame", default=True, help="Look for the stage and the block at fault where one fails."
    ),
)

_CANDIDATE: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--candidate",
        type=_FILE,
        metavar="FILE",
        help="Judge this ONNX file or TorchScript archive, which somebody else exported from MODEL.",
    ),
    click.option(
        "--candidate-output",
        "renamed",
        multiple=True,
        metavar="NAME=OUTPUT",
        help="Which of its outputs is which of the model's, where that cannot be guessed.",
    ),
    click.option(
        "--dtype", type=click.Choice(PRECISIONS), help="What it is declared as.  [default: what it holds]"
    ),
    click.option("--arch", default="", metavar="NAME", help="The architecture of MODEL, a checkpoint file."),
    click.option("--weights", default="", metavar="FILE", help="A checkpoint of MODEL, an architecture."),
    click.option("--num-classes", type=click.IntRange(min=0), help="Classes of the checkpoint's head."),
    image_size_option,
    use_ema_option,
    code_options,
)

_REPORTS: tuple[Callable[[Any], Any], ...] = (
    json_option,
    click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML, for a CI system."),
    click.option("--markdown", type=_FILE, metavar="FILE", help="Write Markdown, for a pull request."),
    click.option("--html", type=_FILE, metavar="FILE", help="Write one page of HTML, with pictures."),
)


def verify_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Offer every flag."""
    for option in reversed((*_WHAT, *_INPUTS, *_RULES, *_CANDIDATE, *_REPORTS)):
        command = option(command)
    return command


def pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
    """The pairs of a flag that may be given often, ``NAME=VALUE`` each.

    Raises:
        UsageFailed: for a text without ``=``, or a name that was given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not name or not value or name in found:
            again = " a second time" if name in found else ""
            raise UsageFailed(f"{flag} is {text!r}{again}", expected=f"{flag} NAME=VALUE, each name once")
        found[name] = value
    return found


def changed_limits(texts: Sequence[str]) -> dict[str, float | None]:
    """What ``--limit`` says, by name; ``None`` where a limit is taken away.

    Raises:
        UsageFailed: for what is no number.
    """
    changes: dict[str, float | None] = {}
    for name, value in pairs("--limit", texts).items():
        try:
            changes[name] = None if value == "none" else float(value)
        except ValueError as error:
            raise UsageFailed(f"--limit {name} is {value!r}", expected="a number, or none") from error
    return changes
