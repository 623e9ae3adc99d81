"""The document: every name of a row is in it, it is read back as it was written, its schema is published."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import numpy as np
import pytest
from pydantic import ValidationError

from tests.bench import results
from vit_deploy.bench import Settings, run_bench
from vit_deploy.bench.document import SCHEMA, BenchReport, json_schema, read_result
from vit_deploy.bench.listener import Quiet
from vit_deploy.bench.plan import Skipped
from vit_deploy.bench.records import RowRecord
from vit_deploy.bench.result import BenchResult, Row


def measured(fake_cases):
    cases = fake_cases(quick={"step_us": 200}, broken={"crash_after": 40})
    return run_bench(cases, Settings(duration_s=0.05, rounds=2, timeout_s=60.0))


def test_a_row_and_its_record_have_the_same_names():
    assert [entry.name for entry in fields(Row)] == list(RowRecord.model_fields)


def test_a_result_and_its_document_have_the_same_names():
    told = BenchResult((), (), {}).to_dict()
    assert {"schema_", "environment", "skipped", *told} == set(BenchReport.model_fields)


def test_what_a_run_found_is_written_and_read_back(fake_cases, tmp_path):
    result = measured(fake_cases)
    report = BenchReport.of(result, results.ENVIRONMENT, [Skipped("tensorrt", "no GPU", "one")])
    path = tmp_path / "a result é.json"
    path.write_text(report.to_json(), encoding="utf-8")
    again = read_result(path)
    assert again == report
    assert again.schema_ == SCHEMA
    assert again.skipped[0].reason == "no GPU"
    by_name = {row.artefact: row for row in again.rows}
    assert by_name["quick"].samples_ns
    assert len(by_name["quick"].rounds_ns) == len(by_name["quick"].round_lengths) > 0
    assert [list(entry) for entry in by_name["quick"].rounds_ns] == [
        list(entry)
        for entry in np.split(by_name["quick"].samples_ns, np.cumsum(by_name["quick"].round_lengths)[:-1])
    ]
    assert by_name["broken"].error
    assert by_name["broken"].p50_ms is None
    for row, record in zip(result.rows, again.rows, strict=True):
        assert json.loads(json.dumps(row.to_dict())) == record.model_dump(mode="json")


def test_no_figure_and_no_text_of_a_backend_costs_a_run():
    odd = {"nan": math.nan, "far": [math.inf], "array": np.arange(2), 3: "\ud800", "own": object}
    given = results.row(facts=odd, error="\udcff", notes=("\ud800",))
    base = BenchResult((), (), {})

    class Odd(BenchResult):
        def to_dict(self):
            return {**base.to_dict(), "rows": [given]}

    report = BenchReport.of(Odd((), (), {}), results.ENVIRONMENT)
    again = json.loads(report.to_json())
    facts = again["rows"][0]["facts"]
    assert (facts["nan"], facts["far"], facts["array"], facts["3"]) == (None, [None], [0, 1], "?")
    report.to_json().encode("utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {"p50_ms": -1.0},
        {"p50_ms": "10"},
        {"p50_ms": True},
        {"p50_ms": math.nan},
        {"p50_ms": math.inf},
        {"p50_ms": 1e30},
        {"p50_ms": None},
        {"batch_size": 1.5},
        {"batch_size": 10**30},
        {"image_size": [224]},
        {"ratio_interval": [0.9, 1.0, 1.1]},
        {"facts": {"a": math.inf}},
        {"facts": {"a": 10**400}},
        {"facts": {"a": {1, 2}}},
        {"samples_ns": [1]},
        {"samples_ns": [-1] * 320},
        {"round_elapsed_ns": []},
        {"ok": 1},
        {"a_new_name": 1},
    ],
    ids=str,
)
def test_what_no_run_can_have_written_is_refused(changes):
    with pytest.raises(ValidationError):
        results.report({**results.row(), **changes})


def test_deep_entries_are_refused():
    deep: dict = {}
    for _ in range(40):
        deep = {"a": deep}
    with pytest.raises(ValidationError, match="deep"):
        results.report({**results.row(), "facts": deep})


def test_rows_are_found_by_key():
    report = results.report(results.row("a"), results.row("b"))
    assert report.row(report.rows[1].key) is report.rows[1]
    assert report.row("none") is None
    assert report.rows[0].cold_ms == 1032.0


def test_the_published_schema_is_golden(golden):
    golden("../../docs/bench.schema.json", json.dumps(json_schema(), indent=2, sort_keys=True) + "\n")


def test_a_run_that_was_stopped_has_a_document(fake_cases, tmp_path):
    """Ctrl-C in the second group: the first one's rows hold, and the document says that it is a part."""

    class Stopping(Quiet):
        def round_done(self, case_index, measured):
            if measured.case.batch_size == 2 and len(measured.rounds) == 2:
                raise KeyboardInterrupt

    cases = fake_cases((1, 2, 3), quick={"step_us": 200})
    settings = Settings(duration_s=0.05, rounds=8, timeout_s=60.0, soundness=False)
    report = BenchReport.of(run_bench(cases, settings, listener=Stopping()), results.ENVIRONMENT)
    (tmp_path / "part.json").write_text(report.to_json(), encoding="utf-8")
    again = read_result(tmp_path / "part.json")
    assert again.interrupted
    assert again.rows[0].ok
    assert not again.rows[2].ok
    assert again.rows[2].error
