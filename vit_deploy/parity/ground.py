"""What artefacts are judged on at one image size: samples, and what eager PyTorch makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from vit_deploy.errors import RunFailed
from vit_deploy.model.contract import network_is_dynamic
from vit_deploy.parity.criterion import reference_lengths, yardsticks
from vit_deploy.parity.declared import check_outputs, rounds
from vit_deploy.parity.feeding import fed
from vit_deploy.parity.references import References
from vit_deploy.parity.scores import Truth

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vit_deploy.model.config import OutputName
    from vit_deploy.parity.criterion import Limits
    from vit_deploy.parity.inputs import Sample
    from vit_deploy.parity.scores import Scores
    from vit_deploy.protocols import Artefact, Progress, Session
    from vit_deploy.weights.imported import Model


class Ground:
    """One image size, its samples, and the references, which are computed once for all artefacts.

    Args:
        model: the model, at that size.
        samples: what is judged.
        exact: the model of the reference in float64, where it is another one.
    """

    def __init__(self, model: Model, samples: Sequence[Sample], exact: Model | None = None) -> None:
        self.model = model
        self.samples = tuple(samples)
        self._references = References(model, self.samples, exact)

    def truths(
        self, artefact: Artefact, limits: Limits, progress: Progress
    ) -> tuple[dict[str, Truth], list[str]]:
        """What each output is compared with, and the outputs in which eager itself overflows."""
        import numpy as np

        names = cast("Sequence[OutputName]", artefact.spec.output_names)
        exact = self._references.exact(names, progress)
        errors = self._references.eager_errors(artefact.precision, names, progress)
        depth = self.model.config.depth
        truths: dict[str, Truth] = {
            name: Truth(exact[name], yardsticks(errors[name], reference_lengths(exact[name]), limits, depth))
            for name in names
        }
        return truths, [name for name in names if not np.isfinite(errors[name]).all()]

    def run_all(
        self,
        artefact: Artefact,
        session: Session,
        scores: Scores,
        batch_sizes: Iterable[int],
        progress: Progress,
    ) -> None:
        """Score every sample at every batch size.

        Raises:
            RunFailed: when the backend fails.
            Fault: when outputs are missing, misshapen or not finite.
        """
        spec = artefact.spec
        image_size = self.model.config.image_size if network_is_dynamic(spec) else None
        plan = [(size, indices) for size in batch_sizes for indices in rounds(len(self.samples), size)]
        progress.phase(f"{artefact.name} on {session.facts.backend}", len(plan))
        for size, indices in plan:
            chosen = [self.samples[index] for index in indices]
            try:
                outputs = session.run(fed(spec, chosen, self.model.preprocessing))
            except RunFailed as error:
                raise RunFailed(f"at batch {size}: {error.found}") from error
            check_outputs(outputs, spec, [sample.name for sample in chosen], image_size)
            scores.add(size, indices, outputs)
            progress.advance()
