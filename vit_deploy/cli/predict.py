"""``vit-deploy predict``: classify images with an artefact of a bundle."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vit_deploy.cli._code import code_options, named_code
from vit_deploy.cli._output import json_option, next_step, note, print_json, print_table, warn

if TYPE_CHECKING:
    from vit_deploy.bundle import Bundle
    from vit_deploy.deploy.choose import Choice
    from vit_deploy.deploy.predict import Prediction
    from vit_deploy.spec import Contract


_FED: dict[Contract, str] = {
    "pixel_values": "fed normalised pixels",
    "uint8": "fed pictures of its size, which it normalises",
    "image": "fed pictures as they are, which it resizes and normalises",
}


@click.command("predict", short_help="Classify images with an artefact of a bundle.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE...")
@click.option(
    "--backend",
    default="",
    metavar="NAME",
    help="What runs it: ort, torchscript, trt, eager.  [default: as tuned, or the first this machine can run]",
)
@click.option(
    "--artefact", default="", metavar="NAME", help="Which artefact, such as onnx-fp32 or onnx-fp32-uint8."
)
@click.option("--device", default="", metavar="NAME", help="cpu, cuda or cuda:1.  [default: the best there is]")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="CPU threads.  [default: as tuned, or the backend's own]",
)
@click.option("--top-k", default=5, show_default=True, type=click.IntRange(min=1), help="Guesses per image.")
@code_options
@json_option
def command(
    bundle: Path,
    images: tuple[Path, ...],
    backend: str,
    artefact: str,
    device: str,
    threads: int | None,
    top_k: int,
    model: str,
    trust_code: bool,
    as_json: bool,
) -> None:
    """Classify each IMAGE with an artefact of BUNDLE.

    With neither --artefact nor --backend it is run as `vit-deploy tune` found best, if it was tuned.
    The checkpoint's own preprocessing and labels are used; what of the preprocessing the artefact does
    itself is left to it. An image that cannot be read is reported,
    the others are still classified, and the command ends with exit code 6.
    """
    from vit_deploy.bundle import Bundle
    from vit_deploy.deploy.choose import choose
    from vit_deploy.deploy.predict import classify

    opened = Bundle.open(bundle)
    code = named_code(opened, model, trust_code)
    choice = replace(choose(opened, backend=backend, artefact=artefact, device=device), code=code)
    for line in choice.notes:
        note(line)
    if threads is not None:
        choice = replace(choice, threads=_threads(threads, choice))
    if not choice.verified:
        warn(f"{choice.name} was never verified; run: vit-deploy verify {shlex.quote(str(bundle))}")
    top_k = _clamp(top_k, opened)
    predictions = list(classify(opened, images, choice, top_k=top_k))
    _print(predictions, choice, as_json)
    _refuse_unreadable(predictions)
    next_step(f"vit-deploy bench {shlex.quote(str(bundle))} --backend eager,{choice.runtime.name}")


def _threads(threads: int, choice: Choice) -> int:
    """The threads that the user asks for.

    Raises:
        UsageFailed: on a device that has none, or for more than there are cores.
    """
    from vit_deploy.environment import usable_cores
    from vit_deploy.errors import UsageFailed

    if choice.device.kind != "cpu":
        raise UsageFailed(f"--threads {threads} means nothing on {choice.device}", expected="a CPU")
    if threads > usable_cores():
        raise UsageFailed(f"--threads is {threads}", expected=f"at most {usable_cores()}, the usable cores")
    return threads


def _clamp(top_k: int, bundle: Bundle) -> int:
    classes = bundle.config.num_classes
    if classes and top_k > classes:
        source = click.get_current_context().get_parameter_source("top_k")
        if source is not click.core.ParameterSource.DEFAULT:
            note(f"the model has {classes} classes, and all of them are shown")
        return classes
    return top_k


def _print(predictions: list[Prediction], choice: Choice, as_json: bool) -> None:
    good = [prediction for prediction in predictions if prediction.error is None]
    if as_json:
        print_json(
            "predict",
            {
                "artefact": choice.name,
                "backend": choice.runtime.name,
                "device": str(choice.device),
                "input": choice.contract,
                "images": [
                    {
                        "file": click.format_filename(prediction.file),
                        "top": [asdict(guess) for guess in prediction.top],
                    }
                    for prediction in good
                ],
            },
        )
        return
    note(f"{choice.name} on {choice.runtime.name} ({choice.device}), {_FED[choice.contract]}")
    rows = [
        (click.format_filename(prediction.file), guess.label, f"{guess.score:.1%}")
        for prediction in good
        for guess in prediction.top
    ]
    if rows:
        print_table(["image", "label", "score>"], rows)


def _refuse_unreadable(predictions: list[Prediction]) -> None:
    """Report each image that could not be read, and end with exit code 6."""
    from vit_deploy.errors import HostileInput

    bad = [prediction for prediction in predictions if prediction.error is not None]
    if len(predictions) == len(bad) == 1 and bad[0].error is not None:
        raise bad[0].error
    for prediction in bad:
        note(f"vit-deploy: {prediction.error}")
    if bad:
        raise HostileInput(
            f"{len(bad)} of {len(predictions)} images could not be read", expected="images that can be read"
        )
