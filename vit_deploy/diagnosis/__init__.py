"""What ``vit-deploy doctor`` looks at: small checks in one table, each a fact, a verdict and a mend.

A check never raises: one that does becomes a ``bad`` row itself, so that the others are still seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.diagnosis import machine, software
from vit_deploy.diagnosis.finding import Check, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CHECKS", "Check", "Finding", "diagnose"]

CHECKS: dict[str, Callable[[], Finding]] = {
    "python": software.check_python,
    "packages": software.check_packages,
    "torch": software.check_torch,
    "exporters": software.check_exporters,
    "onnxruntime": software.check_onnxruntime,
    "tensorrt": software.check_tensorrt,
    "openvino": software.check_openvino,
    "backends": software.check_backends,
    "gpu": machine.check_gpu,
    "processor": machine.check_processor,
    "cores": machine.check_cores,
    "memory": machine.check_memory,
    "cache folder": machine.check_cache_folder,
    "temporary folder": machine.check_temporary_folder,
}
"""Every check by name, in the order they are shown."""


def diagnose(more: Mapping[str, Callable[[], Finding]] | None = None) -> list[Check]:
    """Run every check, and ``more`` after them."""
    return [_run(name, check) for name, check in {**CHECKS, **(more or {})}.items()]


def _run(name: str, check: Callable[[], Finding]) -> Check:
    try:
        finding = check()
    except Exception as error:  # whatever a broken set-up throws is the finding
        reason = " ".join(str(error).split()) or "no message"
        finding = Finding.bad(
            f"the check stopped with {type(error).__name__}: {reason}",
            "reinstall: pip install --force-reinstall vit-deploy",
        )
    return Check(name, finding.fact, finding.verdict, finding.mend)
