"""A slice of the mutation testing of the parity check; and its published table is of the present faults."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parity.faults import FAULTS
from benchmarks.parity.honest import HONEST
from benchmarks.parity.measure import judge_fault, judge_honest
from benchmarks.parity.table import names_in_table, totals
from benchmarks.parity.workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.parity.case import Fault, Honest

REPOSITORY = Path(__file__).parents[2]
README = REPOSITORY / "benchmarks" / "parity" / "README.md"
RESULT = REPOSITORY / "benchmarks" / "results" / "amd-epyc-2-cores" / "mutations.json"

KINDS = ("model", "weights", "graph", "preprocessing", "runtime")
DEAD_HEAD = "one dead head in block 7"
QUICK = ("vit", "dinov2")
"""Two subjects: the references of each cost a second or two."""


def _faults() -> list[Fault]:
    """The dead head, and two or so of each kind, drawn by a seed."""
    drawn = random.Random(2026)
    chosen = [fault for fault in FAULTS if fault.name == DEAD_HEAD]
    for kind in KINDS:
        known = [f for f in FAULTS if f.kind == kind and f.family in QUICK and not f.missed and f not in chosen]
        chosen += drawn.sample(known, 2 if kind == "weights" else 3 if kind == "runtime" else 2)
    return chosen


def _honest() -> list[Honest]:
    known = [artefact for artefact in HONEST if artefact.family in QUICK and not artefact.needs]
    return random.Random(2026).sample(known, 6)


@pytest.fixture(scope="module")
def bench() -> Iterator[Workbench]:
    with Workbench(threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return json.loads(RESULT.read_text(encoding="utf-8"))


@pytest.mark.parametrize("fault", _faults(), ids=lambda fault: fault.name)
def test_a_fault_is_caught(fault: Fault, bench: Workbench) -> None:
    row = judge_fault(fault, bench, others=False, blame=False)
    assert row["caught"], row


@pytest.mark.parametrize("honest", _honest(), ids=lambda honest: honest.name)
def test_an_honest_artefact_passes(honest: Honest, bench: Workbench) -> None:
    row = judge_honest(honest, bench, others=False)
    assert not row["refused"], row


def test_there_are_as_many_as_was_promised() -> None:
    assert len(FAULTS) >= 40
    assert len(HONEST) >= 50
    assert {fault.kind for fault in FAULTS} == set(KINDS)
    for named in (FAULTS, HONEST):
        names = [entry.name for entry in named]
        assert len(set(names)) == len(names)


def test_the_published_table_is_of_the_present_faults(published: dict[str, Any]) -> None:
    names = [fault.name for fault in FAULTS]
    assert names_in_table(README) == names, "run `make mutations`"
    assert [row["name"] for row in published["faults"]] == names, "run `make mutations`"
    known = {row["name"] for row in (*published["honest"], *published["left_out"])}
    assert known == {artefact.name for artefact in HONEST}, "run `make mutations`"


def test_what_was_missed_has_a_reason(published: dict[str, Any]) -> None:
    missed = [row for row in published["faults"] if not row["caught"]]
    assert all(row["missed"] for row in missed)
    text = README.read_text(encoding="utf-8")
    assert all(row["missed"] in text for row in missed)


def test_the_published_result_keeps_the_bounds(published: dict[str, Any]) -> None:
    counted = totals(published)
    ours = counted["checkers"]["vit-deploy"]
    assert ours["caught"] >= 0.95 * counted["faults"]
    assert ours["refused_fp32"] == ours["refused_lower"] == 0


def test_the_front_page_says_what_was_measured(published: dict[str, Any]) -> None:
    counted = totals(published)
    checkers, blame = counted["checkers"], counted["blame"]
    refused = {name: row["refused_fp32"] + row["refused_lower"] for name, row in checkers.items()}
    page = " ".join((README.parents[2] / "README.md").read_text(encoding="utf-8").split())
    caught = checkers["vit-deploy"]["caught"]
    assert f"Of {counted['faults']} injected faults it catches {caught} and names the right stage" in page
    assert f"for {blame['stage']}; of {counted['honest']} honest artefacts it refuses none." in page
    assert refused["vit-deploy"] == 0
    polygraphy = f"catch {checkers['Polygraphy']['caught']} and refuse {refused['Polygraphy']} honest ones"
    assert f"Polygraphy's defaults {polygraphy}" in page
    assert f"timm's exporter catch {checkers['timm']['caught']}." in page
