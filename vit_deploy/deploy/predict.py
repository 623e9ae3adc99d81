"""Classify pictures with an artefact of a bundle: open it, preprocess, softmax.

How much of the preprocessing is done here follows from what the artefact takes: all of it, resize and
crop alone, or none.

Limits: only models with a head; an artefact made without the output ``logits`` classifies nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.deploy.choose import REFERENCE
from vit_deploy.errors import HostileInput, ImportFailed, RunFailed, UsageFailed, VitDeployError
from vit_deploy.model.module_config import ModuleConfig
from vit_deploy.protocols import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from vit_deploy.bundle import Bundle
    from vit_deploy.deploy.choose import Choice
    from vit_deploy.protocols import Artefact, Session
    from vit_deploy.spec import Contract, IOSpec

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Guess:
    """One class and its probability."""

    index: int
    label: str
    score: float


@dataclass(frozen=True)
class Prediction:
    """The best guesses for one picture, the best first; or why there are none."""

    file: Path
    top: tuple[Guess, ...] = ()
    error: VitDeployError | None = None


def require_logits(spec: IOSpec, name: str) -> None:
    """Refuse an artefact that classifies nothing.

    Raises:
        UsageFailed: when ``logits`` is not among its outputs.
    """
    if "logits" not in spec.output_names:
        raise UsageFailed(
            f"{name} has no logits, so it classifies nothing: its outputs are {', '.join(spec.output_names)}",
            expected="a model with a head, exported with the output logits",
            next_command="choose a checkpoint with a classification head",
        )


def scores_output(artefact: Artefact) -> str:
    """The output that scores classes.

    A user's own module need not call it ``logits``: it is the one that its factory said, or the only one
    there is, where that is one row of numbers a picture.

    Raises:
        UsageFailed: when there is none.
    """
    spec, config = artefact.spec, artefact.config
    if not isinstance(config, ModuleConfig):
        require_logits(spec, artefact.name)
        return "logits"
    if config.class_output in spec.output_names:
        return config.class_output
    if len(spec.outputs) == 1 and len(spec.outputs[0].shape) == 2:
        return spec.outputs[0].name
    raise UsageFailed(
        f"{artefact.name} gives {', '.join(spec.output_names)}, and none of them is known to score classes",
        expected="an output that its factory calls logits, or labels beside the module",
        next_command="output_names = [...] in the factory, with 'logits' in its place; then export again",
    )


def classify(
    bundle: Bundle,
    files: Sequence[Path],
    choice: Choice,
    *,
    top_k: int = 5,
    options: SessionOptions | None = None,
) -> Iterator[Prediction]:
    """Classify pictures in batches within the artefact's range, one prediction for each, in order.

    A picture that cannot be read gives a prediction with its error; the others are not disturbed.

    Args:
        bundle: what the choice was made from.
        files: the pictures.
        choice: what is run; its threads and batch size hold unless ``options`` are given.
        top_k: guesses for each.
        options: of the session.

    Raises:
        UsageFailed: when the model has no logits.
        HostileInput: when a file of the bundle was changed.
        RunFailed: when the backend fails, or gives NaN or Inf.
    """
    artefact = _open_artefact(bundle, choice)
    scored = scores_output(artefact)
    largest = min(choice.batch_size or artefact.spec.batch.maximum, artefact.spec.batch.maximum)
    told = options or SessionOptions(threads=choice.threads, cache=True, native=True)
    with choice.runtime.open(artefact, choice.device, told) as session:
        for start in range(0, len(files), largest):
            batch = files[start : start + largest]
            yield from _classify_batch(bundle, session, artefact, batch, scored, top_k)


def _open_artefact(bundle: Bundle, choice: Choice) -> Artefact:
    if choice.name == REFERENCE:
        return bundle.reference(bundle.config.io_spec(), code=choice.code)
    return bundle.artefact(choice.name)


def _classify_batch(
    bundle: Bundle, session: Session, artefact: Artefact, files: Sequence[Path], scored: str, top_k: int
) -> Iterator[Prediction]:
    pictures: dict[Path, Array] = {}
    errors: dict[Path, VitDeployError] = {}
    for file in files:
        try:
            pictures[file] = _read(bundle, file, artefact.spec.contract)
        except (HostileInput, ImportFailed) as error:
            errors[file] = error
    by_file: dict[Path, Array] = {}
    for group in _of_one_size(pictures):
        by_file |= zip(group, _run(session, artefact, list(group.values()), scored), strict=True)
    for file in files:
        if file in errors:
            yield Prediction(file, error=errors[file])
        else:
            yield Prediction(file, _best(by_file[file], bundle.labels, top_k, file))


def _read(bundle: Bundle, file: Path, contract: Contract) -> Array:
    """A picture as an artefact of a contract takes it, without the batch."""
    import numpy as np

    from vit_deploy.model.images import load_image

    if bundle.preprocessing is None:
        raise UsageFailed(
            "the bundle's model takes no picture, so it classifies none",
            expected="a model whose one input is (c, h, w)",
            next_command="give its artefact the arrays it takes, in your own code",
        )
    image = load_image(file, bundle.config.in_channels)
    if contract == "pixel_values":
        return bundle.preprocessing(image)
    pixels = np.asarray(bundle.preprocessing.cut(image) if contract == "uint8" else image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _of_one_size(pictures: Mapping[Path, Array]) -> list[dict[Path, Array]]:
    """The pictures in groups that fit into one batch: those of one size."""
    groups: dict[tuple[int, ...], dict[Path, Array]] = {}
    for file, picture in pictures.items():
        groups.setdefault(picture.shape, {})[file] = picture
    return list(groups.values())


def _run(session: Session, artefact: Artefact, pictures: list[Array], scored: str) -> Array:
    import numpy as np

    spec = artefact.spec.inputs[0]
    # An engine may not take so few; what is added is dropped again.
    missing = max(0, artefact.spec.batch.minimum - len(pictures))
    batch = np.stack(pictures + [pictures[-1]] * missing).astype(spec.dtype, copy=False)
    return session.run({spec.name: batch})[scored][: len(pictures)]


def softmax(logits: Array) -> Array:
    """Probabilities of one picture's logits ``(num_classes,)``, in float64."""
    import numpy as np

    values = logits.astype(np.float64)
    powers = np.exp(values - values.max())
    probabilities: Array = powers / powers.sum()
    return probabilities


def _best(logits: Array, labels: Sequence[str], top_k: int, file: Path) -> tuple[Guess, ...]:
    import numpy as np

    if not np.isfinite(logits).all():
        raise RunFailed(
            f"the artefact gave NaN or Inf for {str(file)!r}",
            expected="finite logits",
            next_command="vit-deploy verify, which finds out how far the artefact is from PyTorch",
        )
    scores = softmax(logits)
    # A stable sort of the negative: of two equal scores the lower index comes first, everywhere.
    order = np.argsort(-scores, kind="stable")[:top_k]
    return tuple(
        Guess(int(index), labels[index] if labels else str(index), float(scores[index])) for index in order
    )
