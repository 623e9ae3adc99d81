"""Finds exporters and runtimes by name, and imports one only when it is asked for.

The modules of ``exporters/`` and ``vit_deploy/runtimes/`` are the registry: a file ``foo.py`` there
defines ``EXPORTER`` or ``RUNTIME``. Their heavy imports stand inside functions, so listing them
works with none of their libraries installed.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from vit_deploy.errors import unknown_name
from vit_deploy.protocols import Selective

if TYPE_CHECKING:
    from vit_deploy.facts import Device
    from vit_deploy.protocols import Exporter, Runtime
    from vit_deploy.spec import Precision

ALIASES = {
    "trt": "tensorrt",
    "ort": "onnxruntime",
    "ts": "torchscript",
    "pytorch": "eager",
    "jit": "torchscript",
    "ov": "openvino",
    "aoti": "pt2",
}
"""Short names users type."""


def _modules(package: str) -> list[str]:
    home = importlib.import_module(package)
    return sorted(entry.name for entry in pkgutil.iter_modules(home.__path__) if not entry.name.startswith("_"))


def formats() -> list[str]:
    """The names of all formats, in alphabetical order."""
    return _modules("vit_deploy.exporters")


def backends() -> list[str]:
    """The names of all backends, in alphabetical order."""
    return _modules("vit_deploy.runtimes")


def canonical(name: str) -> str:
    """The full name behind an alias."""
    return ALIASES.get(name, name)


def exporter(name: str) -> Exporter:
    """The exporter of a format.

    Raises:
        UsageFailed: for an unknown name, with the nearest ones.
    """
    if canonical(name) not in formats():
        raise unknown_name("format", name, formats(), "vit-deploy formats")
    found: Exporter = importlib.import_module(f"vit_deploy.exporters.{canonical(name)}").EXPORTER
    return found


def runtime(name: str) -> Runtime:
    """The runtime of a backend.

    Raises:
        UsageFailed: for an unknown name, with the nearest ones.
    """
    if canonical(name) not in backends():
        raise unknown_name("backend", name, [*backends(), *sorted(ALIASES)], "vit-deploy doctor")
    found: Runtime = importlib.import_module(f"vit_deploy.runtimes.{canonical(name)}").RUNTIME
    return found


def precisions(found: Exporter) -> frozenset[Precision]:
    """What can be made of a format: what it offers, and what it is built from offers too."""
    return found.precisions & precisions(exporter(found.needs)) if found.needs else found.precisions


def computes(found: Runtime, precision: Precision, device: Device | None = None) -> Precision | None:
    """What a runtime computes an artefact of ``precision`` in: that, another one, or ``None``."""
    return found.computes(precision, device) if isinstance(found, Selective) else precision


def runtimes_for(format: str, precision: Precision | None = None) -> list[Runtime]:
    """The runtimes that can open a format, those that this machine can run first.

    Args:
        format: of the artefact.
        precision: of the artefact; those that compute in it come first then, and those that cannot at all last.
    """
    fitting = [found for found in map(runtime, backends()) if format in found.formats]
    return sorted(fitting, key=lambda found: (not found.available().ok, _distance(found, precision)))


def _distance(found: Runtime, precision: Precision | None) -> int:
    if precision is None:
        return 0
    computed = computes(found, precision)
    return 2 if computed is None else int(computed != precision)
