"""The libraries whose matrix products are timed, one module each.

A module has:

- ``NAME``: the library's distribution, by which its version is found;
- ``COMPUTES``: the precisions that it multiplies in, for each kind of device;
- ``open_products(wanted)``: a step that computes every product of ``wanted.gemms`` once, on operands of
  ``wanted.precision`` that it has made ready, and the library's version. Weights are distinct, activations
  are used again. Any exception says that the library is not able to.

Another library is another module, and a name in :data:`NAMES`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_deploy.facts import Device
    from vit_deploy.spec import Precision

NAMES = ("onnxruntime", "openvino", "numpy", "torch")


def provider(name: str) -> Any:
    """The module of one of :data:`NAMES`; its library is not imported yet."""
    return importlib.import_module(f"{__name__}.{name}")


def able(precision: Precision, device: Device) -> list[str]:
    """The libraries that multiply in a precision on a kind of device, installed or not."""
    return [name for name in NAMES if precision in provider(name).COMPUTES.get(device.kind, ())]
