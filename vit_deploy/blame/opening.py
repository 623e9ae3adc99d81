"""How blame opens sessions: as the caller says, or as the check itself does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vit_deploy.blame.formats import Opener
    from vit_deploy.facts import Device
    from vit_deploy.parity import ParityCheck
    from vit_deploy.protocols import Artefact, Runtime, Session, SessionOptions


def opener(check: ParityCheck, open_session: Opener | None) -> Opener:
    """``open_session``, or the check's own way: with as many threads, and in the same process."""
    if open_session is not None:
        return open_session

    def as_judged(runtime: Runtime, artefact: Artefact, device: Device, options: SessionOptions) -> Session:
        return check.open(runtime, artefact, device, optimise=options.optimise)

    return as_judged
