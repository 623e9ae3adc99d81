"""``vit-deploy eval``: the accuracy of artefacts on labelled pictures, beside eager PyTorch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._code import code_options
from vit_deploy.cli._output import TerminalProgress, json_option, next_step, note

if TYPE_CHECKING:
    from vit_deploy.deploy.entrants import Wanted
    from vit_deploy.deploy.evaluate import Evaluation

CLASSES = ("auto", "labels", "indices", "wordnet", "sorted")


@click.command(
    "eval",
    short_help="Measure accuracy on labelled pictures, beside eager PyTorch.",
    epilog="Examples: vit-deploy eval bundle --data val --max-drop 0.5 · "
    "vit-deploy eval bundle --data val.csv --backend ort,openvino --limit 1000 --json",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER|TABLE",
    help="A folder with a folder of pictures for each class, or a CSV or TSV file with the columns file and "
    "label, beside the pictures.",
)
@click.option(
    "--classes",
    type=click.Choice(CLASSES),
    default="auto",
    show_default=True,
    help="How the data names classes: by the model's labels, by their indices, by WordNet ids (ImageNet), or "
    "as torchvision numbers folders, in order of name.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Use N of the pictures, evenly spread.")
@click.option(
    "--allow-outside",
    "outside",
    is_flag=True,
    help="Follow links and paths that lead out of the data's folder.",
)
@click.option(
    "--backend",
    default="",
    metavar="NAMES",
    help="What runs the artefacts, by comma: ort, openvino, trt; or `all`.  [default: the first that can]",
)
@click.option("--artefact", default="", metavar="NAMES", help="Which artefacts, by comma.  [default: all]")
@click.option("--device", default="", metavar="NAME", help="cpu, cuda or cuda:1.  [default: the best there is]")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.  [default: the backend's own]")
@click.option(
    "--batch",
    "--batch-size",
    "batch_size",
    type=click.IntRange(1, 4096),
    default=8,
    show_default=True,
    help="Pictures in one inference, where the artefact takes so many.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long one inference may take: past it, its worker is killed and the artefact fails.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    metavar="POINTS",
    help="Exit with code 5 when an artefact is shown to lose more points of top-1 than this.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse unreadable pictures and empty folders, and fail where --max-drop is not shown to hold.",
)
@click.option("--per-class", is_flag=True, help="Show each class.")
@click.option(
    "--changes",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="How many pictures to name, for each artefact, that it answers otherwise.",
)
@code_options
@json_option
def command(bundle: Path, data: Path, as_json: bool, **words: Any) -> None:
    """Top-1 and top-5 accuracy of the artefacts of BUNDLE on your labelled pictures, beside eager fp32.

    Each artefact answers the same pictures in a process of its own, through the checkpoint's preprocessing.
    A drop from eager is a paired comparison: its interval is made of the pictures whose answer changed.
    A picture that cannot be read is left out, and told.

    Exit code 5: an artefact lost more than --max-drop. 1: one crashed. 4: none could be run here.
    """
    from vit_deploy.bundle import Bundle
    from vit_deploy.cli._eval_view import document, show
    from vit_deploy.cli._output import print_json
    from vit_deploy.deploy.evaluate import evaluate

    opened = Bundle.open(bundle)
    with TerminalProgress() as progress:
        evaluation = evaluate(opened, data, _wanted(opened, words), progress=progress)
    if as_json:
        print_json("eval", document(evaluation, words))
    else:
        show(evaluation, words)
    _finish(evaluation, words, bundle)


def _wanted(bundle: Any, words: dict[str, Any]) -> Wanted:
    from vit_deploy.cli._code import named_code
    from vit_deploy.deploy.entrants import Wanted
    from vit_deploy.facts import Device

    return Wanted(
        backends=_names(words["backend"]),
        artefacts=_names(words["artefact"]),
        device=Device.parse(words["device"]) if words["device"] else None,
        threads=words["threads"],
        batch_size=words["batch_size"],
        limit=words["limit"],
        classes=words["classes"],
        outside=words["outside"],
        strict=words["strict"],
        timeout_s=words["timeout"],
        code=named_code(bundle, words["model"], words["trust_code"]),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _finish(evaluation: Evaluation, words: dict[str, Any], bundle: Path) -> None:
    """The next command, or the error that the exit code stands for.

    Raises:
        GateFailed: when the budget of --max-drop does not hold.
        VitDeployError: when an artefact failed: the first one's own error.
        BackendMissing: when none could be run.
    """
    from vit_deploy.cli._eval_gate import judge
    from vit_deploy.errors import BackendMissing, RunFailed

    judge(evaluation, words["max_drop"], strict=words["strict"], bundle=bundle)
    others = evaluation.rows[1:]
    failed = [row for row in others if row.failed]
    if failed:
        raise RunFailed(
            f"{len(failed)} of {len(others)} artefacts could not be evaluated: "
            f"{', '.join(f'{row.name} in {row.backend}' for row in failed)}",
            expected="an answer for every picture",
            next_command=f"vit-deploy verify {shlex.quote(str(bundle))}",
        )
    if others and all(row.error is not None for row in others):
        first = others[0].error
        raise BackendMissing(
            f"none of the artefacts could be run here: {others[0].name}: {first.found if first else ''}",
            expected="a machine and a backend that can run one",
            next_command=first.next_command if first else "vit-deploy doctor",
        )
    if not others:
        note("the bundle holds no artefact of those asked for: this is eager PyTorch alone")
    backends = ",".join(dict.fromkeys(["eager", *(row.backend for row in others if row.backend)]))
    next_step(f"vit-deploy bench {shlex.quote(str(bundle))} --backend {backends}")
