"""Which backend judges an artefact, and whether it can here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy import registry
from vit_deploy.facts import Availability

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.facts import Device
    from vit_deploy.protocols import Artefact, Runtime
    from vit_deploy.spec import Precision

ON_A_GPU = "run vit-deploy verify on a machine with an NVIDIA GPU"

ELSEWHERE: Mapping[Precision, str] = {
    "fp16": ON_A_GPU,
    "bf16": f"pip install 'vit-deploy[openvino]' where the CPU has bf16 (avx512_bf16, amx_bf16), or {ON_A_GPU}",
    "fp8": ON_A_GPU,
}
"""Where a precision is computed that cannot be here; int8 is everywhere."""


def choose_runtime(
    artefact: Artefact, runtime: Runtime | None, device: Device | None
) -> tuple[Runtime | None, Availability]:
    """The runtime that judges, and whether it can.

    Where none was named it is the first that can, and those that compute in the artefact's precision come
    before those that compute it in another.
    """
    if runtime is not None and artefact.format not in runtime.formats:
        formats = ", ".join(sorted(runtime.formats))
        return runtime, Availability.no(f"it opens {formats}, not {artefact.format}", "leave --backend out")
    candidates = (
        [runtime] if runtime is not None else registry.runtimes_for(artefact.format, artefact.precision)
    )
    verdicts = [(candidate, _can_judge(candidate, artefact.precision, device)) for candidate in candidates]
    if not verdicts:
        return None, Availability.no(f"no backend opens {artefact.format}", "vit-deploy formats")
    chosen, found = next((entry for entry in verdicts if entry[1].ok), verdicts[0])
    if found.ok and device is None and not chosen.devices():
        found = Availability.no("it finds no device here", "vit-deploy doctor")
    return chosen, found


def _can_judge(runtime: Runtime, precision: Precision, device: Device | None) -> Availability:
    found = runtime.available(device)
    if found.ok and registry.computes(runtime, precision, device) is None:
        return Availability.no(f"it has no kernels for {precision} here", ELSEWHERE.get(precision, ""))
    return found


def because(name: str, found: Availability) -> str:
    """Why a backend cannot judge, in a line."""
    told = "; ".join(part for part in (found.reason, found.mend) if part)
    return f"{name}: {told}" if name else told
