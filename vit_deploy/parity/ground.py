"""What artefacts are judged on at one image size: samples, and what eager PyTorch makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vit_deploy.errors import HostileInput, RunFailed
from vit_deploy.model.contract import network_is_dynamic
from vit_deploy.parity.criterion import reference_lengths, relative_errors, yardsticks
from vit_deploy.parity.declared import Fault, batch_sizes, check_outputs, rounds
from vit_deploy.parity.feeding import fed
from vit_deploy.parity.references import References
from vit_deploy.parity.scores import Scores
from vit_deploy.parity.truth import Truth
from vit_deploy.spec import EAGER_PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vit_deploy.model.config import OutputName
    from vit_deploy.model.kinds import Architecture
    from vit_deploy.parity.criterion import Floats
    from vit_deploy.parity.inputs import Sample
    from vit_deploy.parity.limits import Limits
    from vit_deploy.parity.plan import Run
    from vit_deploy.parity.ranges import RangeWatch
    from vit_deploy.parity.reference_cache import ReferenceCache
    from vit_deploy.protocols import Arrays, Artefact, Progress, Session
    from vit_deploy.spec import BatchRange, Precision
    from vit_deploy.weights.imported import Model


@dataclass(frozen=True)
class RunCase:
    """One run of an artefact, to be done again with what lies between it and eager PyTorch.

    Attributes:
        batch_size: images in the run.
        indices: which sample stands in each slot.
        slot: the one that is looked at.
        image_size: ``(height, width)``; the model's own when ``None``.
    """

    batch_size: int
    indices: tuple[int, ...]
    slot: int = 0
    image_size: tuple[int, int] | None = None

    @classmethod
    def least(cls, batch: BatchRange, samples: int) -> RunCase:
        """The first samples at the smallest batch that is judged."""
        size = batch_sizes(batch)[0]
        return cls(size, tuple(next(rounds(samples, size))))


class Ground:
    """One image size, its samples, and the references, which are computed once for all artefacts.

    Args:
        model: the model, at that size.
        samples: what is judged.
        exact: the model of the reference in float64, where it is another one.
        cache: keeps the references on the disk for the next run.
    """

    def __init__(
        self,
        model: Model,
        samples: Sequence[Sample],
        exact: Model | None = None,
        cache: ReferenceCache | None = None,
    ) -> None:
        self.model = model
        self.samples = tuple(samples)
        self.exact_model = exact or model
        self._references = References(model, self.samples, exact, cache)
        self._known: dict[tuple[Any, ...], tuple[dict[str, Truth], list[str]]] = {}

    def truths(
        self, artefact: Artefact, limits: Limits, progress: Progress
    ) -> tuple[dict[str, Truth], list[str]]:
        """What each output is compared with, and the outputs in which eager itself overflows.

        Raises:
            HostileInput: when the reference weights cannot be read, or eager PyTorch gives NaN or Inf in
                float64: there is nothing to compare with.
        """
        key = (artefact.precision, artefact.spec.output_names, limits)
        if key not in self._known:
            self._known[key] = self._truths(artefact, limits, progress)
        return self._known[key]

    def _truths(
        self, artefact: Artefact, limits: Limits, progress: Progress
    ) -> tuple[dict[str, Truth], list[str]]:
        import numpy as np

        names = cast("Sequence[OutputName]", artefact.spec.output_names)
        exact = self._references.exact(names, progress)
        self._require_finite(exact)
        errors = self._eager_errors(artefact.precision, exact, progress)
        depth = self.model.config.depth
        truths: dict[str, Truth] = {
            name: Truth(exact[name], yardsticks(errors[name], reference_lengths(exact[name]), limits, depth))
            for name in names
        }
        return truths, [name for name in names if not np.isfinite(errors[name]).all()]

    def _require_finite(self, exact: Mapping[str, Floats]) -> None:
        import numpy as np

        for name, values in exact.items():
            bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
            if len(bad):
                first = self.samples[int(bad[0])].name
                raise HostileInput(
                    f"eager PyTorch itself gives NaN or Inf in float64: in {name}, on {len(bad)} of "
                    f"{len(values)} samples, the first of them {first!r}",
                    expected="finite outputs: without them there is nothing to compare an artefact with",
                    next_command="mend the checkpoint: its weights or its preprocessing lead to NaN",
                )

    def _eager_errors(
        self, precision: Precision, exact: Mapping[str, Floats], progress: Progress
    ) -> dict[str, Floats]:
        """Eager's own errors; none where it has no such precision, so that what is declared stands alone."""
        import numpy as np

        if precision in EAGER_PRECISIONS:
            return self._references.eager_errors(precision, cast("Sequence[OutputName]", [*exact]), progress)
        return {name: np.zeros(values.shape[:-1]) for name, values in exact.items()}

    def ranges(self, progress: Progress) -> RangeWatch | None:
        """How large the numbers inside the model grow, where its inside is known."""
        return self._references.ranges(progress)

    def feed(self, artefact: Artefact, case: RunCase) -> dict[str, NDArray[Any]]:
        """The inputs of one run, by the artefact's contract."""
        chosen = [self.samples[index] for index in case.indices]
        return fed(artefact.spec, chosen, self.model.preprocessing)

    def ratio(self, outputs: Arrays, truths: Mapping[str, Truth], case: RunCase) -> float:
        """The worst ratio of one run over all outputs.

        Args:
            outputs: by name; those that have no truth are passed over.
            truths: by output, as :meth:`truths` gives them.
            case: of the run.

        Returns:
            Infinite where an output is missing, of another shape or not finite.
        """
        import numpy as np

        worst = 0.0
        chosen = list(case.indices)
        for name, truth in truths.items():
            expected = truth.exact[chosen]
            found = outputs.get(name)
            if found is None or found.shape != expected.shape or not np.isfinite(found).all():
                return float("inf")
            worst = max(worst, float((relative_errors(found, expected) / truth.yardsticks[chosen]).max()))
        return worst

    def run_all(
        self,
        artefact: Artefact,
        session: Session,
        scores: Scores,
        runs: Sequence[Run],
        progress: Progress,
    ) -> None:
        """Score every run.

        Raises:
            RunFailed: when the backend fails.
            Fault: when outputs are missing, misshapen or not finite.
        """
        progress.phase(f"{artefact.name} on {session.facts.backend}", len(runs))
        for run in runs:
            try:
                scores.add(run, self._run(artefact, session, run))
            except (RunFailed, Fault) as error:
                output, slot = (error.output, error.slot) if isinstance(error, Fault) else ("", 0)
                scores.broke(output, run, slot)
                raise
            progress.advance()

    def _run(self, artefact: Artefact, session: Session, run: Run) -> Arrays:
        """The outputs of one run, which are exactly those declared."""
        spec = artefact.spec
        image_size = self.model.config.image_size if network_is_dynamic(spec) else None
        try:
            outputs = session.run(self.feed(artefact, RunCase(run.batch_size, run.indices)))
        except RunFailed as error:
            raise type(error)(f"at batch {run.batch_size}: {error.found}") from error
        check_outputs(outputs, spec, [self.samples[index].name for index in run.indices], image_size)
        return outputs

    def scores(self, artefact: Artefact, truths: Mapping[str, Truth], limits: Limits) -> Scores:
        """Nothing measured yet, and everything that measuring needs."""
        precision = artefact.precision
        known = precision in EAGER_PRECISIONS
        words = "eager's own error" if known else f"the rounding that {precision} is granted"
        return Scores(self.samples, truths, limits, class_output(artefact.config), words)


def class_output(config: Architecture) -> str:
    """The output that scores classes, if there is one."""
    from vit_deploy.model.module_config import ModuleConfig

    return (config.class_output if isinstance(config, ModuleConfig) else "") or "logits"
