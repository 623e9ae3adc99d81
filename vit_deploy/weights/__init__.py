"""Checkpoints into models: one module per source, and :func:`load_model`, which picks one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.model.architectures import named_config
from vit_deploy.weights import checkpoint, hub, module, native, open_clip, random, timm, transformers
from vit_deploy.weights.files import CONFIG_NAME
from vit_deploy.weights.request import Request
from vit_deploy.weights.resize import resized

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.weights.imported import Model

SOURCES: tuple[tuple[Callable[[Request], bool], Callable[[Request], Model]], ...] = (
    (checkpoint.detects, checkpoint.load),
    (native.detects, native.load),
    (open_clip.detects, open_clip.load),
    (timm.detects, timm.load),
    (transformers.detects, transformers.load),
    (random.detects, random.load),
)
"""Whether a source knows a reference, and how it loads it; the first that knows it does."""


def load_model(
    reference: str,
    *,
    arch: str = "",
    weights: str | Path = "",
    num_classes: int | None = None,
    allow_nonfinite: bool = False,
    seed: int = 0,
    use_ema: bool = False,
    input_shape: str = "",
    image_size: tuple[int, int] | None = None,
) -> Model:
    """The model behind a reference, its weights unread but known to fit and to be finite.

    Args:
        reference: a named architecture (random weights, or those of ``weights``), a directory (a
            bundle, or a timm, transformers or OpenCLIP checkpoint), a checkpoint file with ``arch``, or
            ``hf-hub:ORG/NAME[@REVISION]``; or ``py:package.module:factory`` for a module of your own, whose
            code is run.
        arch: the architecture of a bare checkpoint file.
        weights: a checkpoint file for the named architecture, or for the module.
        num_classes: of random weights; for a checkpoint, what it must have.
        allow_nonfinite: accept NaN and Inf in the weights.
        seed: of random weights.
        use_ema: take the moving average (EMA) of the weights that a checkpoint has; without it
            the trained weights themselves are taken, and a note says so.
        input_shape: of a module that comes with no example: ``3x224x224``, without the batch.
        image_size: ``(height, width)`` in pixels, for which positions are resampled as the checkpoint's
            source does it; the checkpoint's own when ``None``.

    Returns:
        The model; its weights are float32 whatever the checkpoint holds.

    Raises:
        UsageFailed: for an unknown name, arguments that do not go together, or an image size that the
            model cannot take.
        ImportFailed: when the checkpoint is not that of a plain ViT, or does not fit.
        HostileInput: when it is truncated, holds code, NaN or Inf.
    """
    if not reference and weights:  # a file with its architecture, said with two flags
        reference, weights = str(weights), ""
    file = Path(weights) if weights else None
    request = Request(
        reference,
        arch,
        file,
        num_classes,
        seed,
        use_ema=use_ema,
        input_shape=input_shape,
        image_size=image_size,
    )
    _require_sense(request)
    if module.detects(request):
        return module.load(request).with_checked_weights(allow_nonfinite=allow_nonfinite)
    if hub.detects(request):
        request = hub.fetch(request)
    model = _load(request)
    model = replace(model, weights=model.weights.as_float32())
    if num_classes is not None and model.config.num_classes != num_classes:
        raise ImportFailed(
            f"the checkpoint has {model.config.num_classes} classes",
            expected=f"{num_classes}, as --num-classes says",
            next_command="leave --num-classes out: the checkpoint's own number is taken",
        )
    # Random weights are finite by construction, and looking would mean making them all.
    unasked = model.source.kind == "random" and random.detects(request)
    model = model.with_checked_weights(allow_nonfinite=allow_nonfinite or unasked)
    return model if image_size is None else resized(model, image_size)


def _require_sense(request: Request) -> None:
    if not request.reference and not request.weights:
        raise UsageFailed("no model is named", expected="a model", next_command="vit-deploy models")
    if request.num_classes is not None and request.num_classes < 0:
        raise UsageFailed(f"--num-classes is {request.num_classes}", expected="0 or more")
    _require_module_sense(request)
    _require_file_for_ema(request)
    described = hub.detects(request) or request.path.is_dir()
    if described and (request.arch or request.weights):
        flag = "--arch" if request.arch else "--weights"
        raise UsageFailed(
            f"{flag} goes with a bare checkpoint file, and {request.reference!r} describes itself",
            expected=f"-m {request.reference!r} without {flag}",
        )


def _require_file_for_ema(request: Request) -> None:
    if request.use_ema and (random.detects(request) or native.detects(request) or module.detects(request)):
        raise UsageFailed(
            f"--use-ema goes with a checkpoint, and {request.reference!r} is none",
            expected="what a training script wrote",
            next_command="leave --use-ema out",
        )


def _require_module_sense(request: Request) -> None:
    if not module.detects(request):
        if request.input_shape:
            raise UsageFailed(
                "--input-shape goes with a module of your own; a checkpoint knows its own input",
                expected="-m py:package.module:factory",
                next_command="leave --input-shape out",
            )
        return
    told = {"--arch": request.arch, "--num-classes": request.num_classes, "--image-size": request.image_size}
    for flag, value in told.items():
        if value:
            raise UsageFailed(
                f"{flag} says nothing to {request.reference}, which makes its module itself",
                expected=f"-m {request.reference} without {flag}",
                next_command="let the factory make it so",
            )


def _load(request: Request) -> Model:
    for detects, load in SOURCES:
        if detects(request):
            return load(request)
    if request.path.is_dir():
        raise _unknown_directory(request.path)
    if request.path.is_absolute() or request.reference.startswith(".") or request.reference.count("/") > 1:
        raise ImportFailed(
            f"there is nothing at {request.reference!r}",
            expected="a directory or a checkpoint file",
            next_command=f"ls {str(request.path.parent)!r}",
        )
    if re.fullmatch(r"[\w.-]+/[\w.-]+", request.reference):
        raise ImportFailed(
            f"there is no directory {request.reference!r} here",
            expected="a directory; a model on the hub has a prefix",
            next_command=f"-m {hub.PREFIX}{request.reference}",
        )
    named_config(request.reference)  # raises, with the nearest names
    raise ImportFailed(f"{request.reference!r} cannot be loaded", expected="a model")


def _unknown_directory(directory: Path) -> ImportFailed:
    names = sorted(entry.name for entry in directory.iterdir())
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "") or "nothing"
    told = (
        f", whose {CONFIG_NAME} names neither an architecture nor a model_type" if CONFIG_NAME in names else ""
    )
    return ImportFailed(
        f"{str(directory)!r} is no checkpoint that is known: it holds {shown}{told}",
        expected="a bundle (manifest.json), a timm or transformers checkpoint (config.json and weights), or an "
        "OpenCLIP one (open_clip_config.json)",
        next_command="name a bare checkpoint file instead, with --arch",
    )
