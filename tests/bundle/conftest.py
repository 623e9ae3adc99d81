"""A bundle with one trivial artefact, made the way exports make it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vit_deploy.bundle import edit_bundle
from vit_deploy.facts import Verdict
from vit_deploy.protocols import ExportedFiles, NoOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.weights.imported import Model


@pytest.fixture
def add_artefact() -> Callable[..., None]:
    """Put an artefact with the given content into a bundle."""

    def add(path: Path, model: Model, content: bytes = b"content", name: str = "onnx-fp32") -> None:
        with edit_bundle(path, model) as editor:
            folder = editor.stage(name)
            (folder / "model.onnx").write_bytes(content)
            exported = ExportedFiles(("model.onnx",), model.config.io_spec(), {"nodes": 1}, {"onnx": "1"})
            candidate = editor.candidate(name, "onnx", "fp32", exported)
            editor.accept(candidate, exported, NoOptions(), Verdict(passed=True, worst_ratio=1.23456))

    return add


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    return tmp_path / "a bündle — 中文"
