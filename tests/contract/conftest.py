"""Each format is exported once for the whole module of contract tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from vit_deploy import registry
from vit_deploy.model.config import ViTConfig
from vit_deploy.protocols import Artefact, ExportedFiles, Silent
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.weights.imported import Model

OUTPUTS = ("logits", "embedding", "tokens")


@dataclass(frozen=True)
class Exported:
    """What one exporter made."""

    model: Model
    files: ExportedFiles
    folder: Path
    artefact: Artefact


@pytest.fixture(scope="session")
def contract_model() -> Model:
    config = ViTConfig(
        image_size=(32, 48), patch_size=8, embed_dim=60, depth=2, num_heads=5, mlp_dim=150, num_classes=7
    )
    return random_model(config, "contract", seed=3)


@pytest.fixture(scope="session")
def export(contract_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """Export the contract model to a format, with what it is built from."""

    def run(name: str, progress: Any = None, outputs: tuple[str, ...] = OUTPUTS) -> Exported:
        exporter = registry.exporter(name)
        found = exporter.available()
        if not found.ok:
            pytest.skip(f"{name} cannot be exported here: {found.reason}; {found.mend}")
        source = run(exporter.needs, outputs=outputs).artefact if exporter.needs else None
        folder = tmp_path_factory.mktemp(f"{name} ünïcode")
        spec = contract_model.config.io_spec(outputs)
        files = exporter.export(
            contract_model, spec, exporter.Options(), folder, progress or Silent(), source=source
        )
        artefact = Artefact(
            f"{name}-fp32",
            name,
            "fp32",
            folder / files.files[0],
            files.spec,
            contract_model.config,
            files.facts,
        )
        return Exported(contract_model, files, folder, artefact)

    return run


@pytest.fixture(scope="session")
def exported(export: Callable[..., Exported]) -> Callable[[str], Exported]:
    """The same, made once for each format."""
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in made:
            made[name] = export(name)
        return made[name]

    return get
