"""The drift picture: how far an artefact is from the truth at every tap, beside eager PyTorch itself.

All taps are in one run, which may disturb the backend's fusions: how far the artefact's own outputs
moved because of that is said.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vit_deploy.blame.case import Case, limits_of
from vit_deploy.blame.formats import found_taps, open_tapped
from vit_deploy.blame.opening import opener
from vit_deploy.blame.record import Drift
from vit_deploy.errors import VitDeployError
from vit_deploy.facts import Verdict
from vit_deploy.protocols import SessionOptions, Silent

if TYPE_CHECKING:
    from vit_deploy.blame.formats import Opener
    from vit_deploy.facts import Device
    from vit_deploy.parity import ParityCheck
    from vit_deploy.protocols import Artefact, Progress, Runtime

_SILENT = Silent()


def measure_drift(
    check: ParityCheck,
    artefact: Artefact,
    runtime: Runtime,
    device: Device,
    *,
    open_session: Opener | None = None,
    verdict: Verdict | None = None,
    progress: Progress = _SILENT,
) -> Drift:
    """The error of an artefact from tap to tap, in the order of computation.

    Args:
        check: gives the model, the inputs and the limits.
        artefact: honest or not.
        runtime: runs it.
        device: where.
        open_session: opens an artefact; as the check does when ``None``.
        verdict: says which run is looked into; the first samples at the smallest batch when ``None``.
        progress: told how far it is.

    Returns:
        The readings. That an artefact cannot be looked into is said in ``missing``, never raised.
    """
    progress.phase(f"{artefact.name}: errors from tap to tap", 2)
    judged = verdict if verdict is not None else Verdict(passed=None)
    case = Case(check, artefact, check.case(artefact, judged), limits_of(artefact, verdict))
    try:
        return _measure(case, runtime, device, opener(check, open_session), progress)
    except VitDeployError as error:
        return Drift(artefact.name, missing=error.found)
    finally:
        case.truth.close()


def _measure(case: Case, runtime: Runtime, device: Device, open_session: Opener, progress: Progress) -> Drift:
    artefact, options, inputs = case.artefact, SessionOptions(), case.feed()
    taps = found_taps(artefact)
    with open_session(runtime, artefact, device, options) as session:
        untouched = session.run(inputs)
    progress.advance()
    with tempfile.TemporaryDirectory(prefix="vit-deploy-drift-") as folder:
        opened = open_tapped(artefact, taps, Path(folder), runtime, device, options, open_session)
        with opened as session:
            outputs = session.run(inputs)
    progress.advance()
    wanted = {*taps, *artefact.spec.output_names}
    readings = tuple(case.read(tap, outputs).public for tap in case.truth.names if tap in wanted)
    return Drift(artefact.name, readings, disturbed=_disturbed(case.moved(outputs, untouched)))


def _disturbed(moved: float) -> str:
    if not moved:
        return ""
    if moved == float("inf"):
        return "with taps in it the artefact gives NaN or Inf, or other outputs than without"
    return f"with taps in it the artefact's own outputs move by {moved:.3g} times eager's own error"
