"""Which backend judges an artefact, and whether it can here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy import registry
from vit_deploy.facts import Availability

if TYPE_CHECKING:
    from vit_deploy.facts import Device
    from vit_deploy.protocols import Artefact, Runtime


def choose_runtime(
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


def because(name: str, found: Availability) -> str:
    """Why a backend cannot judge, in a line."""
    told = "; ".join(part for part in (found.reason, found.mend) if part)
    return f"{name}: {told}" if name else told
