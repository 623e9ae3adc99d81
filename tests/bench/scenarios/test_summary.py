"""Summaries as LoadGen 6.0.17 writes them, shortened, and what is made of them."""

from __future__ import annotations

import json

import pytest

from vit_deploy.bench.scenarios.loadgen import judge
from vit_deploy.bench.scenarios.summary import read_summary
from vit_deploy.errors import RunFailed

RULE = "================================================"
SERVER = f"""{RULE}
MLPerf Results Summary
{RULE}
SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 95.98
Result is : INVALID
  Performance constraints satisfied : NO
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
 * Reduce target QPS to improve latency.
Early Stopping Result:
 * Run unsuccessful.
 * Processed 113 queries.
 * Would need to run at least 13904 more queries,
 with the run being successful if every additional
 query were under latency.

{RULE}
Additional Stats
{RULE}
Scheduled samples per second : 109.20
Min latency (ns)                : 10194813
50.00 percentile latency (ns)   : 113753298
90.00 percentile latency (ns)   : 152520706
99.00 percentile latency (ns)   : 168410796
99.90 percentile latency (ns)   : 172662267

{RULE}
Test Parameters Used
{RULE}
target_qps : 120
"""
VALID = (
    SERVER.replace("INVALID", "VALID")
    .replace(": NO", ": Yes")
    .replace(" * Reduce target QPS to improve latency.\n", "")
    .replace(" * Run unsuccessful.", " * Run successful.")
)
SHORT = ["5 s at least, of MLPerf's 600 s"]


def detail(message, is_error=True):
    entry = {"key": "error_runtime", "value": message, "metadata": {"is_error": is_error, "is_warning": False}}
    return f":::MLLOG {json.dumps(entry)}\n"


def test_a_summary_is_read():
    found = read_summary(SERVER)
    assert not found.valid
    assert found.satisfied == {
        "Performance constraints": False,
        "Min duration": True,
        "Min queries": True,
        "Early stopping": False,
    }
    assert found.latency_ms == pytest.approx(
        {"p50": 113.753298, "p90": 152.520706, "p99": 168.410796, "p99.9": 172.662267}
    )
    assert found.number("Completed samples per second") == 95.98
    assert found.number("no such line") is None
    assert found.reasons[0] == "Reduce target QPS to improve latency."
    assert found.reasons[-1].endswith("13904 more queries, with the run being successful if every additional "
                                      "query were under latency.")  # fmt: skip
    assert "Result is : INVALID" in found.lines
    assert not any("target_qps" in line or RULE in line for line in found.lines)


def test_spacing_and_order_do_not_matter():
    loose = "\n".join(reversed(SERVER.replace(" : ", ":   ").splitlines()))
    assert read_summary(loose).satisfied == read_summary(SERVER).satisfied
    assert read_summary(loose).latency_ms == read_summary(SERVER).latency_ms


@pytest.mark.parametrize("text", ["", "Result is : \n", "Result is : MAYBE", RULE])
def test_a_summary_without_a_result_is_a_failure(text):
    with pytest.raises(RunFailed, match="no result"):
        read_summary(text)


def test_errors_come_from_the_detailed_log():
    log = (
        detail("all is well", is_error=False)
        + detail("out of slots") * 2
        + ':::MLLOG {"is_error": true, broken'
    )
    assert read_summary(VALID, log).errors[0] == "out of slots"
    assert len(read_summary(VALID, log).errors) == 2


def test_valid_is_only_what_loadgen_calls_so_by_mlperfs_rules():
    assert judge(read_summary(VALID), []) == ("valid", "")
    verdict, why = judge(read_summary(VALID), SHORT)
    assert verdict == "short run"
    assert "600 s" in why


def test_an_error_makes_it_invalid_whatever_the_summary_says():
    verdict, why = judge(read_summary(VALID, detail("out of slots")), [])
    assert verdict == "invalid"
    assert "out of slots" in why


def test_a_latency_that_was_not_held_is_invalid_with_loadgens_reasons():
    for short in ([], SHORT):
        verdict, why = judge(read_summary(SERVER), short)
        assert verdict == "invalid"
        assert "Performance constraints not satisfied" in why
        assert "Reduce target QPS" in why


def test_too_few_queries_alone_are_a_short_run_and_invalid_by_mlperfs_rules():
    few = VALID.replace("Result is : VALID", "Result is : INVALID").replace(
        "Early stopping satisfied: Yes", "Early stopping satisfied: NO"
    )
    log = detail("IssueQueryThread 0 Ending early: Max test duration reached. duration_ns 4000000000")
    verdict, why = judge(read_summary(few, log), SHORT)
    assert verdict == "short run"
    assert "Early stopping not satisfied" in why
    assert judge(read_summary(few), [])[0] == "invalid"
