"""The OpenVINO package: how it is imported, whether it can be used here, and how its errors read.

Used by the exporter and the runtime alike. Nothing is imported from it until it is asked for.
"""

from __future__ import annotations

import sys
from typing import Any

from vit_deploy.environment import package_version
from vit_deploy.facts import Availability

INSTALL = "pip install 'vit-deploy[openvino]'"
REINSTALL = "pip install --force-reinstall openvino"


def load() -> Any:
    """The module, its telemetry left out: importing it would send word to its makers otherwise.

    ``openvino.tools.ovc`` sends an event when it is imported, and takes a stub where the telemetry package
    is missing (openvino/tools/ovc/telemetry_utils.py).

    Raises:
        ImportError: when it is missing or does not load.
        OSError: when one of its libraries does not load.
    """
    absent = object()
    held = sys.modules.get("openvino_telemetry", absent)
    if held is absent:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if held is absent:
            del sys.modules["openvino_telemetry"]
    return openvino


def availability() -> Availability:
    """Whether the package is installed and loads; if not, why and what mends it."""
    version = package_version("openvino")
    if not version:
        return Availability.no("openvino is not installed", INSTALL)
    try:
        load()
    except (ImportError, OSError, AttributeError) as error:
        return Availability.no(f"openvino does not load: {error}", REINSTALL, version)
    return Availability.yes(version)


def first_line(error: Exception) -> str:
    """What went wrong; the places in OpenVINO's own source that stand before it say nothing here."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from ", "Check "))]
    return (telling or lines or ["no reason given"])[0]
