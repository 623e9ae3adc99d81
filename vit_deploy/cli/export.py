"""``vit-deploy export``: from a checkpoint to a bundle of proven artefacts."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._export_options import chosen_formats, export_options, exporter_options, words_of
from vit_deploy.cli._export_report import report
from vit_deploy.cli._output import TerminalProgress, json_option, next_step, note, warn
from vit_deploy.cli._pictures import chosen_pictures
from vit_deploy.cli._proof import run_proof
from vit_deploy.cli._shapes import named_ranges
from vit_deploy.cli._weights import tell_notes
from vit_deploy.errors import BackendMissing
from vit_deploy.model.architectures import DEFAULT_ARCH
from vit_deploy.model.module_config import PREFIX
from vit_deploy.spec import AUTO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.deploy.job import Outcome
    from vit_deploy.spec import Contract


@click.command(
    "export",
    epilog="Examples: vit-deploy export --format onnx · "
    "vit-deploy export -m ./my-vit --format onnx,torchscript,tensorrt -o bundle",
)
@export_options
@exporter_options
@json_option
def command(
    model: str,
    arch: str,
    weights: str,
    input_shape: str,
    num_classes: int | None,
    formats: str,
    dtype: str,
    contract: Contract,
    output: Path | None,
    outputs: str,
    image_size: tuple[int, int] | None,
    dynamic: bool,
    min_shapes: str,
    opt_shapes: str,
    max_shapes: str,
    images: Path | None,
    max_images: int,
    verify: bool,
    prove: bool,
    require: str,
    allow_nonfinite: bool,
    use_ema: bool,
    seed: int,
    as_json: bool,
    **options: Any,
) -> int:
    """Export a model to one or more formats, each proven equal to eager PyTorch.

    The artefacts go into a bundle: a directory with one model, its weights and a manifest. An artefact
    that is not equal to eager PyTorch, or not built as --require asks, never enters it (exit 3).
    """
    names = chosen_formats(formats)
    from vit_deploy.deploy.export import export_model
    from vit_deploy.deploy.ladder import export_auto
    from vit_deploy.parity.requirements import parse_requirements
    from vit_deploy.weights import load_model
    from vit_deploy.weights.request import Request

    requirements = parse_requirements(require)
    model = model or (DEFAULT_ARCH if not arch and not weights else "")
    loading = functools.partial(
        load_model,
        model,
        arch=arch,
        weights=weights,
        num_classes=num_classes,
        allow_nonfinite=allow_nonfinite,
        seed=seed,
        use_ema=use_ema,
        input_shape=input_shape,
    )
    loaded = loading(image_size=image_size)
    tell_notes(loaded)
    if loaded.source.kind == "random":
        warn(f"{model} is an architecture: its weights are random (seed {seed}); give --weights or a directory")
    pictures = chosen_pictures(images, max_images)
    proof = None
    if prove:
        request = Request(model, arch, Path(weights) if weights else None, num_classes, seed, use_ema=use_ema)
        # The import is proved at the checkpoint's own size: resampling comes after it.
        proof = run_proof(request, loading() if image_size else loaded, pictures)
        note(f"proof: {proof.sentence}")
    target = output or Path(f"{_slug(model or arch or weights)}-bundle")
    batch, pictures_of, sizes = named_ranges(
        loaded, contract, (min_shapes, opt_shapes, max_shapes), dynamic=dynamic
    )
    climb = None
    with TerminalProgress() as progress:
        asked: dict[str, Any] = {
            "outputs": words_of(outputs),
            "batch": batch,
            "contract": contract,
            "picture_sizes": pictures_of,
            "image_sizes": sizes,
            "options": {name: value for name, value in options.items() if value is not None},
            "images": pictures,
            "verify": verify,
            "proof": proof,
            "requirements": requirements,
            "progress": progress,
        }
        if dtype == AUTO:
            climb = export_auto(loaded, target, names, **asked)
            outcomes: Sequence[Outcome] = climb.outcomes
        else:
            outcomes = export_model(loaded, target, names, precision=dtype, **asked)  # type: ignore[arg-type]
    report(outcomes, target, as_json=as_json, proof=proof, climb=climb)
    return _finish(outcomes, target)


def _slug(model: str) -> str:
    """A folder name made of a model's name."""
    stem = Path(model.removeprefix("hf-hub:").removeprefix(PREFIX)).name or Path(model).resolve().name
    return re.sub(r"[^\w.-]+", "-", stem).removesuffix(".safetensors").removesuffix(".pth") or "model"


def _finish(outcomes: Sequence[Outcome], target: Path) -> int:
    """The next command, or the first error once everything else was told."""
    errors = [entry.error for entry in outcomes if entry.error]
    if errors:
        # What the machine lacks says less than what is wrong with an artefact.
        raise min(errors, key=lambda error: isinstance(error, BackendMissing))
    next_step(f"vit-deploy bench {shlex.quote(str(target))} --backend all")
    return 0
