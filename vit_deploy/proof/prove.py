"""Compares our eager model of a checkpoint with the source library's own, block by block, in float64.

The library's model runs first, and what it gives at each stage is put on the disk; then it is dropped
and ours runs. So one model is in memory at a time, and the stages of one picture at most.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed, ParityFailed, RunFailed, UsageFailed, VitDeployError
from vit_deploy.proof.record import Proof
from vit_deploy.proof.spool import Spool
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from vit_deploy.proof.double import AllFloat64
    from vit_deploy.proof.references import Reference
    from vit_deploy.protocols import Progress
    from vit_deploy.weights.imported import Model
    from vit_deploy.weights.request import Request

LIMIT = 1e-10
"""The largest relative error of a stage.

Two honest float64 computations of a ViT differ by a few 1e-15, after forty blocks as after one. The smallest
mistakes worth the name, an epsilon of 1e-12 for 1e-6 or a table in float32, are at 1e-7. The limit stands in
the middle of the gap, with room for trained weights of which a few numbers dwarf the rest.
"""

NATURAL = "pink"
"""The family of :mod:`vit_deploy.parity.inputs` that has the spectrum of photographs."""

MAX_GENERATED = 4
"""How many generated pictures are used: each costs two eager inferences in float64."""


def prove_import(
    request: Request, model: Model, *, images: Sequence[Path] = (), progress: Progress | None = None
) -> Proof:
    """Compare ``model`` with what the library that saved the checkpoint makes of it.

    Args:
        request: what the model was loaded from.
        model: the model that :func:`vit_deploy.load_model` gave for it.
        images: the user's pictures, beside the generated ones.
        progress: told how far it is.

    Returns:
        The proof, passed or failed: the caller decides what that means.

    Raises:
        UsageFailed: for what has no source library: random weights, a bundle, a module of the user's.
        BackendMissing: when the library is not installed.
        ImportFailed: when the library's own loader refuses the checkpoint.
        RunFailed: when either model fails, or the library's lacks a stage.
    """
    from vit_deploy.proof.references import builder
    from vit_deploy.weights import hub

    require_provable(request, model)
    if hub.detects(request):
        request = hub.fetch(request)
    build = functools.partial(builder(model.source.kind), request, model)
    return compare(build, model, images=images, progress=progress)


def require_provable(request: Request, model: Model) -> None:
    """Refuse what has nothing to be compared with, before anything is computed.

    Raises:
        UsageFailed: saying why.
    """
    from vit_deploy.weights import native

    if native.detects(request):
        raise holds_no_checkpoint(request.reference, model.source.kind, model.source.name)
    _ = model.vit_config  # refuses a module of the user's own
    if model.source.kind == "random":
        raise UsageFailed(
            f"{request.reference!r} is an architecture with random weights: nothing was imported",
            expected="a checkpoint",
            next_command="leave --prove out, or name a checkpoint",
        )


def holds_no_checkpoint(bundle: str, kind: str, name: str) -> UsageFailed:
    """The error for a bundle, whose ``source`` has this kind and name."""
    return UsageFailed(
        f"{bundle!r} is a bundle: it holds what was imported, not the checkpoint that its library would load",
        expected=f"the checkpoint itself: {name} ({kind})",
        next_command="vit-deploy inspect CHECKPOINT --prove, and vit-deploy export -m CHECKPOINT --prove for a "
        "bundle that keeps the proof",
    )


def require_passed(proof: Proof) -> None:
    """Refuse an import that is not what its library computes.

    Raises:
        ParityFailed: naming the first stage that differs.
    """
    if not proof.passed:
        raise ParityFailed(
            f"the import is not what {proof.library} {proof.library_version} computes: {proof.sentence}",
            expected=f"every stage within a relative error of {proof.limit:g} in float64",
            next_command="do not deploy it; report the checkpoint's name with this output",
        )


def compare(
    build: Callable[[], Reference],
    model: Model,
    *,
    images: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Proof:
    """Compare ``model`` with any reference.

    Args:
        build: makes the reference; called under :func:`vit_deploy.proof.double.all_float64`.
        model: ours.
        images: the user's pictures, beside the generated ones.
        progress: told how far it is.

    Raises:
        BackendMissing: when the source library is not installed.
        ImportFailed: when the library's own loader refuses the checkpoint.
        RunFailed: when either model fails, or the reference lacks a stage.
    """
    import torch

    from vit_deploy import __version__

    pictures = _pictures(model, images)
    with tempfile.TemporaryDirectory(prefix="vit-deploy-proof-") as folder:
        spool = Spool(Path(folder))
        blank = Proof(
            library="",
            library_version="",
            checkpoint_sha256=model.source.sha256,
            code_version=__version__,
            torch_version=torch.__version__.partition("+")[0],
            images=len(pictures),
            limit=LIMIT,
            errors={},
        )
        library, version, narrow = _run_library(build, pictures, spool, progress or Silent())
        errors = _run_ours(model, pictures, spool, progress or Silent())
    expected = _stages(model)
    proof = replace(
        blank,
        library=library,
        library_version=version,
        errors={name: errors[name] for name in expected if name in errors},
        not_compared=tuple(name for name in expected if name not in errors),
    )
    _require_stages(proof, model)
    return proof if proof.passed else replace(proof, reason="; ".join([*spool.complaints, *narrow]))


def _pictures(model: Model, images: Sequence[Path]) -> list[Tensor]:
    """``(1, c, h, w)`` each, in float64."""
    import torch

    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.parity.inputs import make_samples

    config = model.vit_config
    recipe = model.preprocessing or Preprocessing.default(config)
    samples = make_samples(recipe, config, images=images)
    generated = [sample for sample in samples if sample.family == NATURAL][:MAX_GENERATED]
    given = [sample for sample in samples if sample.family == "image"]
    return [torch.from_numpy(sample.pixel_values).double().unsqueeze(0) for sample in (*generated, *given)]


def _stages(model: Model) -> list[str]:
    """Every stage that ours has, in the order of computation."""
    order = ("tokens", "embedding", "logits", "image_embeds")
    outputs = [name for name in order if name in model.vit_config.output_names]
    return ["embed", *(f"blocks.{index}" for index in range(model.vit_config.depth)), *outputs]


def _require_stages(proof: Proof, model: Model) -> None:
    """A stage that was skipped must not pass for one that agrees; outputs may be unknown to the library."""
    outputs = set(model.vit_config.output_names)
    missing = [name for name in proof.not_compared if name not in outputs]
    if missing or not outputs & set(proof.errors):
        raise RunFailed(
            f"{proof.library} {proof.library_version} gave no {missing[0] if missing else 'output'} to compare",
            expected=f"the {len(_stages(model))} stages of the model",
            next_command="report it, with the name of the checkpoint",
        )


def _run_library(
    build: Callable[[], Reference], pictures: Sequence[Tensor], spool: Spool, progress: Progress
) -> tuple[str, str, list[str]]:
    """Put each stage of the library's model into ``spool``; gives its name and version, and what to know."""
    import torch

    from vit_deploy.proof.double import all_float64
    from vit_deploy.proof.references import first_line

    progress.phase("the source library, in float64", len(pictures))
    with all_float64() as mode, torch.no_grad():
        reference = _built(build)
        mode.narrow.clear()
        for index, picture in enumerate(pictures):
            try:
                reference.run(picture, functools.partial(spool.keep, index))
            except VitDeployError:
                raise
            except Exception as error:  # any library's forward may raise anything
                raise RunFailed(
                    f"{reference.library} {reference.version} fails on the checkpoint: {first_line(error)}",
                    expected="a checkpoint that its library can run",
                    next_command=f"try another version of {reference.library}",
                ) from error
            progress.advance()
    return reference.library, reference.version, _narrow_notes(reference.library, mode)


def _built(build: Callable[[], Reference]) -> Reference:
    from vit_deploy.proof.references import first_line

    try:
        reference = build()
    except VitDeployError:
        raise
    except Exception as error:  # any library's loader may raise anything
        raise ImportFailed(
            f"the source library refuses the checkpoint: {first_line(error)}",
            expected="a checkpoint that the library loads",
            next_command="load it with the library alone, which tells more",
        ) from error
    # What a constructor made with numpy, or a loader took from the file, is narrow still.
    reference.module.double().eval()
    return reference


def _narrow_notes(library: str, mode: AllFloat64) -> list[str]:
    if not mode.narrow:
        return []
    return [f"{library} computes {', '.join(sorted(mode.narrow))} in less than float64"]


def _run_ours(model: Model, pictures: Sequence[Tensor], spool: Spool, progress: Progress) -> dict[str, float]:
    """The error of each stage of ours against ``spool``."""
    import torch

    from vit_deploy.proof.double import all_float64
    from vit_deploy.proof.references import Reference, block_taps

    progress.phase("our model, in float64", len(pictures))
    outputs = model.vit_config.output_names
    with all_float64():
        # Positions that are resampled while they are read are resampled in float64, as the library's are.
        module = model.eager(dtype=torch.float64, outputs=outputs)

    def run(pixel_values: Tensor) -> Iterator[tuple[str, Tensor]]:
        results = module(pixel_values)
        return zip(outputs, results if len(outputs) > 1 else (results,), strict=True)

    ours = Reference("", "", module, block_taps("blocks", model.vit_config.depth), lambda x: dict(run(x)))
    with torch.no_grad():
        for index, picture in enumerate(pictures):
            ours.run(picture, functools.partial(spool.measure, index))
            progress.advance()
    return spool.errors
