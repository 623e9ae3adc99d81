"""What every exporter promises; a new file in exporters/ is held to it without a line here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vit_deploy import registry
from vit_deploy.protocols import Exporter, Silent, option_fields
from vit_deploy.spec import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable

FORMATS = registry.formats()
MADE_AGAIN = [pytest.param(name, marks=pytest.mark.slow) if name == "pt2" else name for name in FORMATS]
"""Where a test makes an artefact anew: to compile one takes ten seconds and more."""


class Listener(Silent):
    def __init__(self) -> None:
        self.phases: list[str] = []

    def phase(self, text: str, total: int | None = None) -> None:
        self.phases.append(text)


@pytest.mark.parametrize("name", FORMATS)
def test_it_keeps_the_protocol(name: str) -> None:
    exporter = registry.exporter(name)
    assert isinstance(exporter, Exporter)
    assert exporter.format == name
    assert exporter.description
    assert exporter.precisions <= set(PRECISIONS)
    assert not exporter.needs or exporter.needs in FORMATS
    found = exporter.available()
    assert found.ok or (found.reason and found.mend)


@pytest.mark.parametrize("name", FORMATS)
def test_its_options_are_frozen_and_described(name: str) -> None:
    options = registry.exporter(name).Options
    assert dataclasses.is_dataclass(options)
    assert options.__dataclass_params__.frozen
    for field in option_fields(options).values():
        assert field.metadata["help"]
    options()  # every option has a default


@pytest.mark.parametrize("name", FORMATS)
def test_what_it_made_is_there_and_is_told(name: str, exported: Callable) -> None:
    made = exported(name)
    on_disk = sorted(str(path.relative_to(made.folder)) for path in made.folder.rglob("*") if path.is_file())
    assert sorted(made.files.files) == on_disk
    assert made.files.spec == made.model.config.io_spec(("logits", "embedding", "tokens"))
    assert made.files.tools
    assert all(isinstance(version, str) and version for version in made.files.tools.values())
    json.dumps(dict(made.files.facts), default=lambda value: list(value))


@pytest.mark.parametrize("name", MADE_AGAIN)
def test_same_input_same_bytes_and_no_machine_in_them(name: str, export: Callable) -> None:
    # TensorRT orders several outputs anew in each build; with one its plans are reproducible.
    first, second = (export(name, outputs=("logits",)) for _ in range(2))
    here = str(Path(__file__).parents[2]).encode()
    for file in first.files.files:
        data = (first.folder / file).read_bytes()
        assert data == (second.folder / file).read_bytes(), f"{file} differs between two exports"
        assert here not in data
        assert str(first.folder).encode() not in data


@pytest.mark.parametrize("name", MADE_AGAIN)
def test_it_tells_its_progress(name: str, export: Callable) -> None:
    listener = Listener()
    export(name, progress=listener)
    assert listener.phases
