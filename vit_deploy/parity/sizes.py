"""Judges an artefact whose image size is free at other sizes than the model's own.

The truth at each is eager PyTorch on a model that was resized there as its source does it, with
``F.interpolate`` and not with the matrices that stand in a graph: :mod:`vit_deploy.weights.resize`. Its
yardstick is eager at the artefact's precision, resized in float32 as ever. The limits are the same.

Fewer samples are judged than at the model's own size, and batches of at most two, so that it stays
affordable where a picture has four times as many tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.errors import RunFailed
from vit_deploy.parity.declared import Fault, batch_sizes
from vit_deploy.parity.ground import Ground
from vit_deploy.parity.inputs import make_samples
from vit_deploy.parity.plan import plan_runs
from vit_deploy.spec import size_text

if TYPE_CHECKING:
    from vit_deploy.parity.limits import Limits
    from vit_deploy.parity.reference_cache import ReferenceCache
    from vit_deploy.parity.scores import Scores
    from vit_deploy.protocols import Artefact, Progress, Session
    from vit_deploy.spec import SizeRange
    from vit_deploy.weights.imported import Model

    Size = tuple[int, int]

MAX_SAMPLES, MIN_SAMPLES = 8, 2
_NATIVE_SAMPLES = 16
_BATCHES = 2
_SPREAD = 2
"""Samples at the smaller of the two batch sizes."""


class SizesCheck:
    """Judges any number of artefacts of one model at other sizes; the truth is computed once for each.

    Args:
        model: the model that the artefacts were made from.
        seed: of the generated pictures.
        cache: keeps the references on the disk for the next run.
    """

    def __init__(self, model: Model, seed: int = 0, cache: ReferenceCache | None = None) -> None:
        self._cache = cache
        self._model = model
        self._seed = seed
        self._known: dict[Size, Ground] = {}

    def judge(
        self, artefact: Artefact, session: Session, native: Scores, limits: Limits, progress: Progress
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """What is wrong at one of the other sizes, or nothing; the figures of each size; and the evidence:
        the worst run at the first size at which something is wrong.

        Args:
            artefact: one whose height and width are free.
            session: runs it.
            native: what was found at the model's own size.
            limits: of the criterion.
            progress: told how far it is.
        """
        own, sizes = self._model.config.image_size, artefact.spec.sizes
        reasons, figures = [], {size_text(own): _figures(native)}
        worst: dict[str, Any] = {}
        for size in judged_sizes(own, sizes) if sizes else []:
            reason, scores = self._judge(size, artefact, session, limits, progress)
            figures[size_text(size)] = _figures(scores)
            if reason:
                reasons.append(f"at {size_text(size)} pixels: {reason}")
                found = scores.evidence().get("worst_run")
                worst = worst or ({"worst_run": {**found, "image_size": list(size)}} if found else {})
        return "; ".join(reasons), {"image_sizes": figures}, worst

    def _judge(
        self, size: Size, artefact: Artefact, session: Session, limits: Limits, progress: Progress
    ) -> tuple[str, Scores]:
        ground = self.ground(size)
        truths, _ = ground.truths(artefact, limits, progress)
        scores = ground.scores(artefact, truths, limits)
        sizes = batch_sizes(artefact.spec.batch)[:_BATCHES]
        runs = plan_runs(ground.samples, sizes, _SPREAD, steadiness=False)
        try:
            ground.run_all(artefact, session, scores, runs, progress)
            # So few samples leave open whether budgets hold: that is said of the model's own size.
            reason = "; ".join(scores.findings().broken)
        except (RunFailed, Fault) as error:
            reason = error.found if isinstance(error, RunFailed) else str(error)
        return reason, scores

    def ground(self, size: Size) -> Ground:
        """What artefacts are judged on at an image size, ``(height, width)``."""
        from vit_deploy.weights.resize import resized

        if size not in self._known:
            model = resized(self._model, size)
            samples = make_samples(model.preprocessing, model.config, self._seed)
            count = sample_count(self._model.config.image_size, size)
            exact = resized(self._model, size, exact=True)
            self._known[size] = Ground(model, samples[:count], exact, self._cache)
        return self._known[size]


def _figures(scores: Scores) -> dict[str, Any]:
    return {
        "worst_ratio": scores.worst_ratio(),
        "p95_ratio": scores.p95_ratio(),
        "samples": scores.sample_count,
    }


def sample_count(native: Size, size: Size) -> int:
    """How many samples are judged at a size: about as many pixels in all as at the model's own."""
    affordable = _NATIVE_SAMPLES * native[0] * native[1] // (size[0] * size[1])
    return max(MIN_SAMPLES, min(MAX_SAMPLES, affordable))


def judged_sizes(native: Size, sizes: SizeRange) -> list[Size]:
    """The sizes beside the model's own: the least, the largest, the one to be fastest at, and one of
    another aspect, low and wide.

    A square of the least height and the largest width would be the narrowest that there is; what is taken
    lies half-way to either.
    """
    step = sizes.patch_size
    low, wide = (
        side + (bound - side) // (2 * step) * step
        for side, bound in zip(native, (sizes.minimum[0], sizes.maximum[1]), strict=True)
    )
    aspect = (max(low, sizes.minimum[0]), min(wide, sizes.maximum[1]))
    if aspect in {native, sizes.minimum, sizes.maximum} or aspect[0] == aspect[1]:
        aspect = (sizes.minimum[0], sizes.maximum[1])
    candidates = (sizes.minimum, sizes.maximum, aspect, sizes.optimum)
    return [size for size in dict.fromkeys(candidates) if size != native]


def largest(native: float | None, name: str, details: dict[str, Any]) -> float | None:
    """A ratio over the model's own size and all others that were judged."""
    others = [figures.get(name) for figures in details.get("image_sizes", {}).values()]
    return max((value for value in (native, *others) if value is not None), default=None)
