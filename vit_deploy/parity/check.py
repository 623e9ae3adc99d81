"""Judges artefacts of one model by the parity criterion, and gives verdicts.

A verdict is about an artefact in a backend on a device: the outputs of a session are compared with
eager PyTorch on the CPU (see :mod:`vit_deploy.parity.criterion`) at batch 1, 2 and the largest, in
every slot of the batch; where the image size is free, at other sizes too.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from vit_deploy import registry
from vit_deploy.errors import BackendMissing, HostileInput, RunFailed
from vit_deploy.facts import Availability, Verdict
from vit_deploy.model.contract import network_is_dynamic
from vit_deploy.parity.declared import Fault, batch_sizes, spec_fault
from vit_deploy.parity.ground import Ground, RunCase
from vit_deploy.parity.inputs import Sample, make_samples
from vit_deploy.parity.limits import LIMITS, SUSPECT, Limits
from vit_deploy.parity.resizing import ResizeCheck
from vit_deploy.parity.scores import Scores, within
from vit_deploy.parity.sizes import SizesCheck, largest
from vit_deploy.protocols import SessionOptions, Silent
from vit_deploy.spec import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from vit_deploy.facts import Device
    from vit_deploy.protocols import Arrays, Artefact, Progress, Runtime, Session
    from vit_deploy.spec import Precision
    from vit_deploy.weights.imported import Model

    Opener = Callable[[Runtime, Artefact, Device, SessionOptions], Session]
    """How a session is opened: in this process, or in one of its own."""

_SILENT = Silent()


class ParityCheck:
    """Judges any number of artefacts of one model; what eager gives is computed once.

    Args:
        model: the model that the artefacts were made from.
        images: the user's pictures, judged beside the generated ones.
        seed: of the generated pictures.
        limits: in place of those of :data:`vit_deploy.parity.limits.LIMITS` at every precision; or, by
            name, what is changed in the table.
        threads: CPU threads of eager and of the backend; their own defaults when ``None``.
        open_session: opens an artefact in a runtime; in this process when ``None``.
        cache: keeps what eager gives on disk; nothing does when ``None``.

    Raises:
        HostileInput: for a picture that cannot be read.
        ImportFailed: for a model that differs from itself.
        UsageFailed: for a limit that there is not.
    """

    def __init__(
        self,
        model: Model,
        *,
        images: Sequence[Path] = (),
        seed: int = 0,
        limits: Limits | Mapping[str, float | None] | None = None,
        threads: int | None = None,
        open_session: Opener | None = None,
        cache: Any = None,
    ) -> None:
        model.require_steady()
        self.model = model
        self.samples: tuple[Sample, ...] = make_samples(model.preprocessing, model.config, seed, images)
        self._limits = _table(limits)
        self._threads = threads
        self._open = open_session or _open_here
        self._cache = cache
        self._ground = Ground(model, self.samples)
        self._resizes = ResizeCheck(model, images, seed)
        self._sizes = SizesCheck(model, seed)

    def judge(
        self,
        artefact: Artefact,
        *,
        runtime: Runtime | None = None,
        device: Device | None = None,
        progress: Progress = _SILENT,
    ) -> Verdict:
        """Judge one artefact.

        Args:
            artefact: what is judged.
            runtime: runs it; the first that this machine can run when ``None``.
            device: where; the runtime's best when ``None``.
            progress: told how far it is.

        Returns:
            The verdict. What is wrong with the artefact is in the verdict, never raised; where it
            cannot be judged here, ``passed`` is ``None``.

        Raises:
            HostileInput: when the reference weights cannot be read.
        """
        chosen, found = _choose(artefact, runtime, device)
        if chosen is None or not found.ok:
            return Verdict(passed=None, reason=_because(chosen.name if chosen else "", found))
        fault = spec_fault(artefact.spec, self.model.config)
        if fault:
            return Verdict(passed=False, backend=chosen.name, reason=fault)
        options = SessionOptions(threads=self._threads)
        with _torch_threads(self._threads):
            try:
                session = self._open(chosen, artefact, device or chosen.devices()[0], options)
            except BackendMissing as error:
                missing = Availability.no(error.found, error.next_command)
                return Verdict(passed=None, reason=_because(chosen.name, missing))
            except (RunFailed, HostileInput) as error:
                return Verdict(passed=False, backend=chosen.name, reason=error.found)
            with session:
                return self._judge(artefact, session, chosen.name, progress)

    def _judge(self, artefact: Artefact, session: Session, backend: str, progress: Progress) -> Verdict:
        import numpy as np

        limits = self._limits[artefact.precision]
        truths, overflowed = self._ground.truths(artefact, limits, progress)
        if not all(np.isfinite(truth.exact).all() for truth in truths.values()):
            reason = "eager PyTorch itself gives NaN or Inf in float64, so there is nothing to compare with"
            return Verdict(passed=None, backend=backend, reason=reason)
        scores = Scores(self.samples, truths, limits)
        reason = ""
        more: dict[str, Any] = {}
        try:
            self._ground.run_all(artefact, session, scores, batch_sizes(artefact.spec.batch), progress)
            reason = scores.reason()
            if artefact.spec.contract == "image" and not reason:
                reason, more = self._resizes.judge(artefact.spec, session, truths, limits, progress)
            elif network_is_dynamic(artefact.spec) and not reason:
                reason, more = self._sizes.judge(artefact, session, scores, limits, progress)
        except RunFailed as error:
            reason = error.found
        except Fault as fault:
            reason = str(fault)
            if overflowed:
                reason += f"; eager PyTorch in {artefact.precision} overflows too: choose another precision"
        passed, reason = _with_precision(not reason, reason, artefact, session)
        return Verdict(
            passed=passed,
            backend=backend,
            reason=reason,
            worst_ratio=largest(scores.worst_ratio(), "worst_ratio", more),
            p95_ratio=largest(scores.p95_ratio(), "p95_ratio", more),
            samples=len(self.samples),
            details={**scores.details(), **more, **_circumstances(artefact, session, overflowed)},
            evidence=scores.evidence(),
        )

    def open(self, runtime: Runtime, artefact: Artefact, device: Device, *, optimise: bool = True) -> Session:
        """Open an artefact as it is opened to be judged: with as many threads, and in the same process.

        Raises:
            BackendMissing: when this machine cannot.
            RunFailed: when the backend refuses the artefact.
            UsageFailed: when the backend cannot do without its optimisations.
        """
        return self._open(runtime, artefact, device, SessionOptions(threads=self._threads, optimise=optimise))

    def case(self, artefact: Artefact, verdict: Verdict) -> RunCase:
        """The run that shows best what is wrong with an artefact: the worst that its verdict knows of."""
        run = verdict.evidence.get("worst_run")
        if run is None:
            return RunCase.least(artefact.spec.batch, len(self.samples))
        return RunCase(run["batch_size"], tuple(run["indices"]), run["slot"])

    def feed(self, artefact: Artefact, case: RunCase) -> Arrays:
        """The inputs of that run, by the artefact's contract."""
        return self._ground.feed(artefact, case)

    def ratio(self, artefact: Artefact, outputs: Arrays, case: RunCase) -> float:
        """The worst ratio of that run, over all outputs that the artefact declares.

        Args:
            artefact: gives the precision and the outputs.
            outputs: by name, in any floating dtype; what the artefact does not declare is passed over.
            case: the run that gave them.

        Returns:
            Infinite where an output is missing, of another shape or not finite.
        """
        with _torch_threads(self._threads):
            truths, _ = self._ground.truths(artefact, self._limits[artefact.precision], _SILENT)
        return self._ground.ratio(outputs, truths, case)

    def limit(self, artefact: Artefact, verdict: Verdict) -> float:
        """The limit of ratios that an artefact broke: that on the worst one, unless only the other was."""
        limits = self._limits[artefact.precision]
        worst = SUSPECT if limits.worst is None else limits.worst
        found = verdict.worst_ratio, verdict.p95_ratio
        if limits.p95 is None or None in found:
            return worst
        only_p95 = within(found[0], worst) and not within(found[1], limits.p95)  # type: ignore[arg-type]
        return limits.p95 if only_p95 else worst


def _table(limits: Limits | Mapping[str, float | None] | None) -> Mapping[Precision, Limits]:
    """The limits in force by precision."""
    if isinstance(limits, Limits):
        return dict.fromkeys(PRECISIONS, limits)
    return {precision: row.with_changes(limits or {}) for precision, row in LIMITS.items()}


def _open_here(runtime: Runtime, artefact: Artefact, device: Device, options: SessionOptions) -> Session:
    return runtime.open(artefact, device, options)


def _choose(
    artefact: Artefact, runtime: Runtime | None, device: Device | None
) -> tuple[Runtime | None, Availability]:
    """The runtime that judges, and whether it can; the first that can where none was named."""
    if runtime is not None and artefact.format not in runtime.formats:
        formats = ", ".join(sorted(runtime.formats))
        return runtime, Availability.no(f"it opens {formats}, not {artefact.format}", "leave --backend out")
    candidates = [runtime] if runtime is not None else registry.runtimes_for(artefact.format)
    verdicts = [(candidate, candidate.available(device)) for candidate in candidates]
    if not verdicts:
        return None, Availability.no(f"no backend opens {artefact.format}", "vit-deploy formats")
    chosen, found = next((entry for entry in verdicts if entry[1].ok), verdicts[0])
    if found.ok and device is None and not chosen.devices():
        found = Availability.no("it finds no device here", "vit-deploy doctor")
    return chosen, found


def _because(name: str, found: Availability) -> str:
    told = "; ".join(part for part in (found.reason, found.mend) if part)
    return f"{name}: {told}" if name else told


def _with_precision(passed: bool, reason: str, artefact: Artefact, session: Session) -> tuple[bool | None, str]:
    """A pass counts only at the precision that was declared."""
    effective = session.facts.precision
    if not passed or effective == artefact.precision:
        return passed, reason
    told = f"{session.facts.backend} computes in {effective} what is declared as {artefact.precision}"
    if effective == "fp32":
        return None, f"{told}: it agrees, but that says nothing of {artefact.precision}"
    return False, told


def _circumstances(artefact: Artefact, session: Session, overflowed: Sequence[str]) -> dict[str, Any]:
    facts = session.facts
    circumstances: dict[str, Any] = {
        "batch_sizes": batch_sizes(artefact.spec.batch),
        "device": facts.device,
        "precision": facts.precision,
        "version": facts.version,
    }
    if overflowed:
        circumstances["eager_overflows"] = list(overflowed)
    return circumstances


@contextlib.contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    """PyTorch's threads are one number for the whole process: it is put back afterwards."""
    import torch

    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)
