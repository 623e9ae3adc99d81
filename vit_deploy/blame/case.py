"""One run of an artefact, looked into: its inputs, and what it gives beside the truth at every tap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.blame.eager_taps import EagerTaps, granted_errors
from vit_deploy.model.config import ViTConfig
from vit_deploy.parity.criterion import reference_lengths
from vit_deploy.parity.limits import LIMITS, NAMES

if TYPE_CHECKING:
    from vit_deploy.blame.eager_taps import Reading
    from vit_deploy.facts import Verdict
    from vit_deploy.parity import ParityCheck
    from vit_deploy.parity.ground import RunCase
    from vit_deploy.parity.limits import Limits
    from vit_deploy.protocols import Arrays, Artefact
    from vit_deploy.weights.imported import Model

MAX_SLOTS = 4
"""Slots of a run that are compared at taps, the one that is looked at among them."""

MAX_BYTES = 2**30
"""Of float64 truth; beyond it fewer slots are compared, one at least."""


def limits_of(artefact: Artefact, verdict: Verdict | None) -> Limits:
    """The limits that a verdict was given by; those of the table where there is none."""
    row = LIMITS[artefact.precision]
    stated = verdict.details.get("limits") if verdict is not None else None
    if not stated:
        return row
    return row.with_changes({name: stated.get(name) for name in NAMES if name not in ("epsilon", "confidence")})


class Case:
    """One run of an artefact, with what eager says of it at every tap.

    Args:
        check: gives the model, the samples and the inputs of the run.
        artefact: what is looked into.
        case: the run.
        limits: what the artefact is held to.
    """

    def __init__(self, check: ParityCheck, artefact: Artefact, case: RunCase, limits: Limits) -> None:
        self.check = check
        self.artefact = artefact
        self.case = case
        self.limits = limits
        self.slots = _slots(case, check.model)
        samples = [check.samples[case.indices[slot]] for slot in self.slots]
        self.truth = EagerTaps(check.model, samples, artefact.spec.output_names)

    def feed(self) -> Arrays:
        """The inputs of the run."""
        return self.check.feed(self.artefact, self.case)

    def read(self, tap: str, outputs: Arrays) -> Reading:
        """The artefact at a tap, in the slots that are compared."""
        found = outputs.get(tap)
        if found is not None and len(found) != self.case.batch_size:
            found = None
        part = found[self.slots] if found is not None else None
        return self.truth.read(tap, part, self.artefact.precision, self.limits)

    def moved(self, outputs: Arrays, untouched: Arrays) -> float:
        """How far an artefact's own outputs lie from another run's, in yardsticks; 0 where no bit differs."""
        import numpy as np

        worst = 0.0
        for name in self.artefact.spec.output_names:
            before, after = untouched.get(name), outputs.get(name)
            if before is None or after is None or before.shape != after.shape:
                return float("inf")
            if np.array_equal(before, after, equal_nan=True):
                continue
            exact = self.truth.exact(name)
            same_places = np.array_equal(np.isfinite(before), np.isfinite(after))
            if not same_places or before.shape[1:] != exact.shape[1:]:
                return float("inf")
            before, after = (np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0) for array in (before, after))
            eager = self.truth.eager_errors(name, self.artefact.precision)
            depth = self.check.model.config.depth
            granted = granted_errors(eager, exact, self.artefact.precision, self.limits, depth)
            apart = np.linalg.norm(after.astype(np.float64) - before.astype(np.float64), axis=-1)[self.slots]
            worst = max(worst, float((apart / reference_lengths(exact) / granted).max()))
        return worst


def _slots(case: RunCase, model: Model) -> list[int]:
    """The slot that is looked at, and others with other samples, as many as the truth may weigh."""
    config = model.config
    chosen = [case.slot]
    seen = {case.indices[case.slot]}
    most = MAX_SLOTS
    if isinstance(config, ViTConfig):
        per_sample = 8 * (2 * config.depth + 2) * config.num_tokens * config.embed_dim
        most = max(1, min(MAX_SLOTS, MAX_BYTES // per_sample))
    for slot, index in enumerate(case.indices):
        if index not in seen and len(chosen) < most:
            chosen.append(slot)
            seen.add(index)
    return sorted(chosen)
