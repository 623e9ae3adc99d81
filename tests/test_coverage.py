"""The coverage table says what the library does: every proof again, the other acts for a few."""

from __future__ import annotations

import json
import random
import re
import zlib
from pathlib import Path

import pytest
import torch

from tests.specimens import SPECIMENS, STRANGERS, by_id
from tests.specimens.__main__ import JSON, PAGE
from tests.specimens.measure import ACTS, Cell, export, export_any_size, prove
from tests.specimens.table import Row, page
from vit_deploy.errors import VitDeployError
from vit_deploy.proof import LIMIT
from vit_deploy.weights import load_model

MEASURED = json.loads(JSON.read_text(encoding="utf-8"))
ROWS = {row.id: row for row in map(Row.from_dict, MEASURED["specimens"])}
REFUSED = {row.id: row for row in map(Row.from_dict, MEASURED["strangers"])}
SMALL = [name for name in sorted(ROWS) if not name.endswith("asked for")]
"""All but the bare files, which are of real sizes."""

SAMPLE = random.Random(zlib.crc32(b"coverage")).sample(SMALL, 3)
"""Specimens that are exported here; the rest is exported by `make test-all`."""

AGAIN = "run `make coverage` and read the diff"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_table_has_every_specimen_once():
    assert [row["name"] for row in MEASURED["specimens"]] == [entry.name for entry in SPECIMENS], AGAIN
    assert [row["name"] for row in MEASURED["strangers"]] == [entry.name for entry in STRANGERS], AGAIN


def test_every_cell_is_measured_and_none_failed():
    for row in ROWS.values():
        for act in ACTS:
            assert row.cells[act].verdict in {"passed", "refused"}, f"{row.id}, {act}: {row.cells[act]}"
            assert bool(row.cells[act].reason) == (row.cells[act].verdict == "refused"), (row.id, act)
        assert row.cells["proved"].verdict == "passed", row.id
    assert {row.cells["proved"].verdict for row in REFUSED.values()} == {"refused"}


def test_what_is_proved_is_enough():
    proved = [row for row in ROWS.values() if row.cells["proved"].figure <= LIMIT]
    assert len(proved) >= 40
    assert len({row.source for row in proved}) >= 5


def test_the_page_is_written_from_the_measurements():
    assert PAGE.read_text(encoding="utf-8") == page(MEASURED), AGAIN


def test_messages_name_nothing_of_the_machine_that_measured():
    text = JSON.read_text(encoding="utf-8")
    assert not re.search(r"/tmp|/home|/root|tmp\w{6,}", text)


@pytest.mark.parametrize("name", [entry.id for entry in SPECIMENS])
def test_specimens_are_proved(name: str, tmp_path: Path):
    model, cell = prove(by_id(name), tmp_path)
    assert model is not None, cell
    assert cell.claim == ROWS[name].cells["proved"].claim, AGAIN
    assert cell.figure <= LIMIT


@pytest.mark.parametrize("name", [entry.id for entry in STRANGERS])
def test_strangers_are_refused_in_words(name: str, tmp_path: Path):
    stranger = by_id(name)
    arguments = stranger.save(tmp_path / "checkpoint")
    with pytest.raises(VitDeployError) as raised:
        load_model(**arguments)
    assert re.search(stranger.says, raised.value.found, re.IGNORECASE), raised.value.found
    assert raised.value.expected or raised.value.next_command
    _, cell = prove(stranger, tmp_path)
    assert cell.claim == REFUSED[name].cells["proved"].claim, AGAIN


def remeasure(name: str, folder: Path) -> dict[str, Cell]:
    model, _ = prove(by_id(name), folder)
    assert model is not None
    return {**export(model, folder / "out"), "size": export_any_size(model, folder / "any")}


def compare(name: str, cells: dict[str, Cell]) -> None:
    for act, cell in cells.items():
        if cell.verdict != "unavailable":
            assert cell.claim == ROWS[name].cells[act].claim, f"{name}, {act}: {AGAIN}"


@pytest.mark.parametrize("name", SAMPLE)
def test_a_few_are_exported_again(name: str, rtx: None, tmp_path: Path):
    compare(name, remeasure(name, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ROWS) - set(SAMPLE)))
def test_the_rest_is_exported_again(name: str, tmp_path: Path):
    compare(name, remeasure(name, tmp_path))
