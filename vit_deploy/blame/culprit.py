"""Whose fault it is that an artefact fails, and where in the model: the ladder and the search in one sentence.

What is done is bounded: one run for each stage, a few more where one of our passes is to be found, and the
search for the block.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.blame.ladders import ladder_of
from vit_deploy.blame.opening import opener
from vit_deploy.blame.record import Culprit, TapReading
from vit_deploy.blame.resized import blame_resize
from vit_deploy.blame.stages import Fall, Walk
from vit_deploy.blame.taps import in_words
from vit_deploy.errors import VitDeployError
from vit_deploy.parity.declared import spec_fault
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from vit_deploy.facts import Device, Verdict
    from vit_deploy.parity import ParityCheck
    from vit_deploy.parity.check import Opener
    from vit_deploy.protocols import Artefact, Progress, Runtime

_SILENT = Silent()


def find_culprit(
    check: ParityCheck,
    artefact: Artefact,
    verdict: Verdict,
    runtime: Runtime,
    device: Device,
    *,
    open_session: Opener | None = None,
    progress: Progress = _SILENT,
) -> Culprit:
    """The stage at which an artefact goes wrong, and the first tap that shows it.

    Args:
        check: that judged it.
        artefact: that failed.
        verdict: that says so.
        runtime: that it failed in.
        device: where.
        open_session: how a session is opened; as the check does it when ``None``.
        progress: told which stage is tried.

    Returns:
        What was found. That nothing was found, or could be, is said there too: nothing is raised for it.

    Raises:
        HostileInput: when the reference weights cannot be read.
    """
    fault = spec_fault(artefact.spec, check.model.config)
    if fault:
        return Culprit("export", "", f"introduced at the export stage: {fault}")
    if verdict.evidence.get("broke_down"):
        # Its graph would be run in this process too, which could end, or never come back, likewise.
        told = "introduced at the runtime stage: the backend crashed or hung on it; it was not run again"
        return Culprit("runtime", "", told)
    with tempfile.TemporaryDirectory(prefix="vit-deploy-blame-") as folder:
        walk = Walk(
            check,
            artefact,
            check.case(artefact, verdict),
            check.limit(artefact, verdict),
            runtime,
            device,
            opener(check, open_session),
            Path(folder),
            progress,
        )
        if verdict.evidence.get("resizing"):
            return blame_resize(walk)
        fall = ladder_of(artefact.format)(walk)
    if fall is None:
        return _nothing(walk, verdict)
    searched = _Searched.of(walk, verdict, fall)
    where = searched.where or fall.where
    return Culprit(
        stage=fall.reading.kind,
        where=where,
        sentence=_sentence(fall, where),
        stages=tuple(walk.readings),
        bisection=searched.bisection,
        runs=searched.runs,
        notes=(*walk.notes, *searched.notes),
    )


@dataclass(frozen=True)
class _Searched:
    """What the search for the block found, or why there was none."""

    where: str = ""
    bisection: tuple[TapReading, ...] = ()
    runs: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, walk: Walk, verdict: Verdict, fall: Fall) -> _Searched:
        """Search, unless the artefact gives nothing that could be compared."""
        from vit_deploy.blame.search import find

        if fall.broke:
            return cls()
        try:
            found: Any = find(
                walk.check,
                walk.artefact,
                verdict,
                walk.runtime,
                walk.device,
                open_session=walk.opener,
                progress=walk.progress,
            )
        except VitDeployError as error:
            return cls(notes=(f"the block was not looked for: {error.found}",))
        return cls(found.where, tuple(found.bisection), found.runs, tuple(found.notes))


def _sentence(fall: Fall, where: str) -> str:
    told = f"introduced at the {fall.reading.kind} stage: {fall.because}"
    return f"{in_words(where)}, {told}" if where else told


def _nothing(walk: Walk, verdict: Verdict) -> Culprit:
    """Every stage holds on the inputs that the artefact failed on, or could not be tried."""
    again = walk.readings[-1] if walk.readings else None
    if verdict.passed is False and again is not None and again.kind == "runtime" and again.holds:
        # The last rung is the artefact itself, in the backend that it failed in, on the run that it failed.
        sentence = (
            f"introduced at the runtime stage: {walk.runtime.name} does not give the same each time: the run "
            "that failed holds when it is done again"
        )
        return Culprit("runtime", "", sentence, stages=tuple(walk.readings), notes=tuple(walk.notes))
    sentence = "nothing was found: every stage that could be tried holds on these inputs"
    return Culprit(None, "", sentence, stages=tuple(walk.readings), notes=tuple(walk.notes))
