"""Artefacts of one model, judged, looked into and held to what was asked of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.blame.record import Culprit, Drift
    from vit_deploy.facts import Device, Verdict
    from vit_deploy.parity import ParityCheck
    from vit_deploy.parity.requirements import Requirement
    from vit_deploy.protocols import Artefact, Progress, Runtime


@dataclass(frozen=True)
class Judged:
    """One artefact and everything that was found out about it.

    Attributes:
        name: of the artefact.
        format: of its files.
        precision: that was declared.
        contract: what it takes.
        bytes: its size.
        verdict: the parity check's.
        culprit: whose fault an error is; ``None`` where there is none, or where it was not looked for.
        drift: its error from tap to tap; ``None`` where it was not measured.
        unmet: what was required of it and is not so, a sentence each.
    """

    name: str
    format: str
    precision: str
    contract: str
    bytes: int
    verdict: Verdict
    culprit: Culprit | None = None
    drift: Drift | None = None
    unmet: tuple[str, ...] = ()


def judged_as(artefact: Artefact, nbytes: int, verdict: Verdict, requirements: Sequence[Requirement]) -> Judged:
    """An artefact with its verdict, and what is required of it and is not so."""
    from vit_deploy.parity.requirements import built_as_judged, unmet_from_built

    return Judged(
        artefact.name,
        artefact.format,
        artefact.precision,
        artefact.spec.contract,
        nbytes,
        verdict,
        unmet=tuple(unmet_from_built(requirements, built_as_judged(artefact, verdict))),
    )


@dataclass(frozen=True)
class Verification:
    """How artefacts are verified.

    Attributes:
        check: judges them; it knows the model, the inputs and how sessions are opened.
        runtime: runs them; the first that this machine can run when ``None``.
        device: where; the runtime's best when ``None``.
        requirements: what is asked of them beside parity.
        blame: whether the stage and the block at fault are looked for where one fails.
        drift: whether the error is followed from block to block, in those that pass too.
    """

    check: ParityCheck
    runtime: Runtime | None = None
    device: Device | None = None
    requirements: Sequence[Requirement] = ()
    blame: bool = True
    drift: bool = False

    def judge(self, artefact: Artefact, nbytes: int, progress: Progress | None = None) -> Judged:
        """Everything there is to say of one artefact.

        Args:
            artefact: what is judged.
            nbytes: of its files.
            progress: told how far it is.

        Raises:
            HostileInput: when the reference weights cannot be read, or give NaN.
        """
        progress = progress or Silent()
        verdict = self.check.judge(artefact, runtime=self.runtime, device=self.device, progress=progress)
        judged = judged_as(artefact, nbytes, verdict, self.requirements)
        if not verdict.backend:  # nothing here could open it
            return judged
        return replace(
            judged,
            culprit=self._culprit(artefact, verdict, progress),
            drift=self._drift(artefact, verdict, progress),
        )

    def _culprit(self, artefact: Artefact, verdict: Verdict, progress: Progress) -> Culprit | None:
        if not self.blame or verdict.passed is not False:
            return None
        from vit_deploy.blame.culprit import find_culprit

        return find_culprit(self.check, artefact, verdict, *self._place(verdict), progress=progress)

    def _drift(self, artefact: Artefact, verdict: Verdict, progress: Progress) -> Drift | None:
        if not self.drift or "worst_run" not in verdict.evidence or verdict.evidence.get("broke_down"):
            return None
        from vit_deploy.blame.drift import measure_drift

        return measure_drift(self.check, artefact, *self._place(verdict), verdict=verdict, progress=progress)

    def _place(self, verdict: Verdict) -> tuple[Runtime, Device]:
        """What ran the artefact, and where."""
        from vit_deploy import registry

        runtime = self.runtime or registry.runtime(verdict.backend)
        return runtime, self.device or runtime.devices()[0]
