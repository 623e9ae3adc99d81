"""TorchScript archives that others made. An archive is code: it is run only where the user says so."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import HostileInput, UsageFailed
from vit_deploy.parity.candidates import Asked, Candidate
from vit_deploy.parity.candidates.matching import Found, match_outputs
from vit_deploy.protocols import Artefact

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.imported import Model


def adopt(path: Path, model: Model, asked: Asked, folder: Path) -> Candidate:  # noqa: ARG001 - nothing is written
    """See :func:`vit_deploy.parity.candidates.adopt`; its outputs are named by their places, from 0."""
    if not asked.trust_code:
        raise UsageFailed(
            f"the candidate {path.name!r} is a TorchScript archive, and opening one runs its code",
            expected="a file whose maker you trust",
            next_command="--trust-code, if you do",
        )
    found = _try(path, model)
    matched, others = match_outputs(found, model.config, asked.outputs)
    if others:
        raise UsageFailed(
            f"the candidate gives {', '.join(map(str, others))}, which the model has not",
            expected="an archive that gives outputs of the model only",
            next_command="trace it again with a wrapper that returns them",
        )
    names: Any = tuple(matched[output.name] for output in found)
    spec = model.config.io_spec(names)
    notes = [f"its output {output.name} is taken for {matched[output.name]}" for output in found]
    precision = asked.precision or "fp32"
    return Candidate(Artefact(path.name, "torchscript", precision, path, spec, model.config), tuple(notes))


def _try(path: Path, model: Model) -> list[Found]:
    """What the archive gives for one black picture."""
    import torch

    (taken,) = model.config.io_spec().inputs
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
            results = torch.jit.load(str(path), map_location="cpu")(torch.zeros(taken.at_batch(1)))  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise HostileInput(
            f"the candidate {path.name!r} does not run on one picture: {line}", expected="a TorchScript archive"
        ) from error
    tensors = results if isinstance(results, (tuple, list)) else (results,)
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        raise UsageFailed(
            f"the candidate {path.name!r} gives {type(results).__name__}",
            expected="a tensor, or a tuple of them",
        )
    return [
        Found(str(place), str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for place, tensor in enumerate(tensors)
    ]
