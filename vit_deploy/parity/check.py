"""Judges artefacts of one model by the parity criterion, and gives verdicts.

A verdict is about an artefact in a backend on a device: the outputs of a session are compared with
eager PyTorch on the CPU (see :mod:`vit_deploy.parity.criterion`) at batch 1, 2 and the largest, in
every slot of the batch (see :mod:`vit_deploy.parity.plan`); where the image size is free, at other sizes
too.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import BackendDied, BackendMissing, HostileInput, RunFailed
from vit_deploy.facts import Availability, Verdict
from vit_deploy.model.contract import network_is_dynamic
from vit_deploy.parity.choosing import because, choose_runtime
from vit_deploy.parity.conclusion import circumstances, conclude
from vit_deploy.parity.decisions import Findings
from vit_deploy.parity.declared import Fault, batch_sizes, spec_fault
from vit_deploy.parity.ground import Ground, RunCase
from vit_deploy.parity.inputs import Sample, make_samples
from vit_deploy.parity.limits import LIMITS, SUSPECT, Limits
from vit_deploy.parity.mixed import overflow_told
from vit_deploy.parity.plan import plan_runs
from vit_deploy.parity.ratios import within
from vit_deploy.parity.resizing import ResizeCheck
from vit_deploy.parity.sizes import SizesCheck, largest
from vit_deploy.protocols import SessionOptions, Silent
from vit_deploy.spec import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from vit_deploy.facts import Device
    from vit_deploy.parity.reference_cache import ReferenceCache
    from vit_deploy.parity.scores import Scores
    from vit_deploy.parity.truth import Truth
    from vit_deploy.protocols import Arrays, Artefact, Progress, Runtime, Session
    from vit_deploy.spec import Precision
    from vit_deploy.weights.imported import Model

    Opener = Callable[[Runtime, Artefact, Device, SessionOptions], Session]
    """How a session is opened: in this process, or in one of its own."""

_SILENT = Silent()

DECISION_SAMPLES = 80
"""More pictures where shares of decisions are judged: 59 clear ones show 95 % of them."""


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
        precisions: of the artefacts that will be judged; where the share of equal decisions counts for one of
            them, :data:`DECISION_SAMPLES` more pictures are generated.

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
        cache: ReferenceCache | None = None,
        precisions: Iterable[Precision] = (),
    ) -> None:
        model.require_steady()
        self.model = model
        self._limits = _table(limits)
        by_share = any(self._limits[precision].top1 is not None for precision in precisions)
        natural = DECISION_SAMPLES if by_share else 0
        self.samples: tuple[Sample, ...] = make_samples(
            model.preprocessing, model.config, seed, images, natural
        )
        self._threads = threads
        self._open = open_session or _open_here
        self._ground = Ground(model, self.samples, cache=cache)
        self._resizes = ResizeCheck(model, images, seed)
        self._sizes = SizesCheck(model, seed, cache)

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
            HostileInput: when the reference weights cannot be read, or eager PyTorch gives NaN or Inf in
                float64: there is nothing to compare with.
        """
        chosen, found = choose_runtime(artefact, runtime, device)
        if chosen is None or not found.ok:
            return Verdict(passed=None, reason=because(chosen.name if chosen else "", found))
        fault = spec_fault(artefact.spec, self.model.config)
        if fault:
            return Verdict(passed=False, backend=chosen.name, reason=fault)
        options = SessionOptions(threads=self._threads)
        with _torch_threads(self._threads):
            # Before it is opened, so that eager's weights in float64 and the artefact's are not held at once.
            self._ground.truths(artefact, self._limits[artefact.precision], progress)
            try:
                session = self._open(chosen, artefact, device or chosen.devices()[0], options)
            except BackendMissing as error:
                missing = Availability.no(error.found, error.next_command)
                return Verdict(passed=None, reason=because(chosen.name, missing))
            except (RunFailed, HostileInput) as error:
                broken = _broke_down(error)
                return Verdict(passed=False, backend=chosen.name, reason=error.found, evidence=broken)
            with session:
                return self._judge(artefact, session, chosen.name, progress)

    def _judge(self, artefact: Artefact, session: Session, backend: str, progress: Progress) -> Verdict:
        limits = self._limits[artefact.precision]
        truths, overflowed = self._ground.truths(artefact, limits, progress)
        scores = self._ground.scores(artefact, truths, limits)
        more: dict[str, Any] = {}
        evidence: dict[str, Any] = {}
        try:
            runs = plan_runs(self.samples, batch_sizes(artefact.spec.batch))
            self._ground.run_all(artefact, session, scores, runs, progress)
            found = scores.findings()
            if not found.broken:
                reason, more, evidence = self._elsewhere(artefact, session, scores, truths, progress)
                found += Findings((reason,) if reason else ())
        except RunFailed as error:
            found, evidence = Findings((error.found,)), _broke_down(error)
        except Fault as fault:
            too = f"; eager PyTorch in {artefact.precision} overflows too: choose another precision"
            found = Findings((str(fault) + (too if overflowed else ""),))
        passed, reason = conclude(found, artefact, session)
        watch = self._ground.ranges(progress)
        if passed is not True and (overflow := overflow_told(watch, artefact)):
            passed, reason = False, f"{reason}; {overflow}" if passed is False else overflow
        return Verdict(
            passed=passed,
            backend=backend,
            reason=reason,
            worst_ratio=largest(scores.worst_ratio(), "worst_ratio", more),
            p95_ratio=largest(scores.p95_ratio(), "p95_ratio", more),
            samples=len(self.samples),
            details={
                **scores.details(),
                **more,
                **circumstances(artefact, session, overflowed),
                **({} if watch is None else {"range_watch": watch.to_dict()}),
            },
            evidence={**scores.evidence(), **evidence},
        )

    def _elsewhere(
        self,
        artefact: Artefact,
        session: Session,
        scores: Scores,
        truths: Mapping[str, Truth],
        progress: Progress,
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """What is wrong at other sizes than the model's own; the details of them, and the evidence."""
        limits = self._limits[artefact.precision]
        if artefact.spec.contract == "image":
            reason, details = self._resizes.judge(artefact.spec, session, truths, limits, progress)
            return reason, details, {"resizing": True} if reason else {}
        if network_is_dynamic(artefact.spec):
            return self._sizes.judge(artefact, session, scores, limits, progress)
        return "", {}, {}

    def open(self, runtime: Runtime, artefact: Artefact, device: Device, *, optimise: bool = True) -> Session:
        """Open an artefact as it is opened to be judged: with as many threads, and in the same process.

        Raises:
            BackendMissing: when this machine cannot.
            RunFailed: when the backend refuses the artefact.
            UsageFailed: when the backend cannot do without its optimisations.
        """
        return self._open(runtime, artefact, device, SessionOptions(threads=self._threads, optimise=optimise))

    def resizing(self, artefact: Artefact, session: Session, progress: Progress = _SILENT) -> str:
        """What is wrong with how an artefact resizes pictures; nothing where it is right.

        Args:
            artefact: one that takes pictures of any size.
            session: runs it.
            progress: told how far it is.

        Raises:
            RunFailed: when the backend fails.
        """
        limits = self._limits[artefact.precision]
        truths, _ = self._ground.truths(artefact, limits, progress)
        return self._resizes.judge(artefact.spec, session, truths, limits, progress)[0]

    def case(self, artefact: Artefact, verdict: Verdict) -> RunCase:
        """The run that shows best what is wrong with an artefact: the worst that its verdict knows of."""
        run = verdict.evidence.get("worst_run")
        if run is None:
            return RunCase.least(artefact.spec.batch, len(self.samples))
        size = run.get("image_size")
        image_size = None if size is None else (size[0], size[1])
        return RunCase(run["batch_size"], tuple(run["indices"]), run["slot"], image_size)

    def ground(self, case: RunCase) -> Ground:
        """The model and the samples of a run: at the model's own image size, or at another."""
        return self._ground if case.image_size is None else self._sizes.ground(case.image_size)

    def feed(self, artefact: Artefact, case: RunCase) -> Arrays:
        """The inputs of that run, by the artefact's contract."""
        return self.ground(case).feed(artefact, case)

    def ratio(self, artefact: Artefact, outputs: Arrays, case: RunCase) -> float:
        """The worst ratio of that run, over all outputs that the artefact declares.

        Args:
            artefact: gives the precision and the outputs.
            outputs: by name, in any floating dtype; what the artefact does not declare is passed over.
            case: the run that gave them.

        Returns:
            Infinite where an output is missing, of another shape or not finite.
        """
        ground = self.ground(case)
        with _torch_threads(self._threads):
            truths, _ = ground.truths(artefact, self._limits[artefact.precision], _SILENT)
        return ground.ratio(outputs, truths, case)

    def limit(self, artefact: Artefact, verdict: Verdict) -> float:
        """The limit of ratios that an artefact broke: that on the worst one, unless only the other was."""
        limits = self._limits[artefact.precision]
        worst = SUSPECT if limits.worst is None else limits.worst
        found = verdict.worst_ratio, verdict.p95_ratio
        if limits.p95 is None or None in found:
            return worst
        only_p95 = within(found[0], worst) and not within(found[1], limits.p95)  # type: ignore[arg-type]
        return limits.p95 if only_p95 else worst


def _broke_down(error: Exception) -> dict[str, Any]:
    """That the backend crashed or hung, for those who would run the artefact again to see why it fails."""
    return {"broke_down": True} if isinstance(error, BackendDied) else {}


def _table(limits: Limits | Mapping[str, float | None] | None) -> Mapping[Precision, Limits]:
    """The limits in force by precision."""
    if isinstance(limits, Limits):
        return dict.fromkeys(PRECISIONS, limits)
    return {precision: row.with_changes(limits or {}) for precision, row in LIMITS.items()}


def _open_here(runtime: Runtime, artefact: Artefact, device: Device, options: SessionOptions) -> Session:
    return runtime.open(artefact, device, options)


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
