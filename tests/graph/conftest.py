"""Capturing takes a second each time; the tests of the passes need it once for each module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vit_deploy.graph import capture as module

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from vit_deploy.spec import IOSpec

_CAPTURED: dict[tuple[object, ...], ir.Model] = {}
_CAPTURE = module.capture


@pytest.fixture(autouse=True)
def _capture_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def capture(build: Callable[[], object], spec: IOSpec) -> ir.Model:
        key = (getattr(build(), "config", build), spec)
        if key not in _CAPTURED:
            _CAPTURED[key] = _CAPTURE(build, spec)
        return _CAPTURED[key].clone()

    monkeypatch.setattr(module, "capture", capture)
