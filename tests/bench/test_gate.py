"""Gates: they fail only what is surely beyond the limit, and judge nothing that cannot be believed."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tests.bench import results
from vit_deploy.bench.compare import compare
from vit_deploy.bench.gate import NotJudged, judge_comparison, judge_result, parse_gate
from vit_deploy.bench.gate_grammar import in_unit
from vit_deploy.cli._bench_compare import command
from vit_deploy.errors import GateFailed, UsageFailed, VitDeployError

UNSOUND = {"sound": False, "ratio": 1.04, "ratio_interval": [1.03, 1.05], "key": "k", "reason": "it is 4 % off"}


def report(centre_ms: float, *, spread: float = 0.005, **changes):
    row = results.row(rounds=results.drawn(centre_ms, noise=1e-6), spread=spread)
    return results.report({**row, **changes})


def outcome(gate, old, new):
    (finding,) = judge_comparison([parse_gate(gate)], compare(old, new)).findings
    return finding.outcome


@pytest.mark.parametrize(
    ("text", "above", "limit", "relative"),
    [
        ("p50 > +3%", True, 0.03, True),
        ("  p50>+3 %  ", True, 0.03, True),
        ("images_per_s < -5.5%", False, -0.055, True),
        ("images_per_s < \u22125%", False, -0.05, True),
        ("p99 > 50ms", True, 50.0, False),
        ("p99 > 1.5 s", True, 1500.0, False),
        ("p90 > 800us", True, 0.8, False),
        ("p90 > 800 \u03bcs", True, 0.8, False),
        ("cold > 2s", True, 2000.0, False),
        ("rss > 2GB", True, 2e9, False),
        ("rss > .5 GiB", True, 2.0**29, False),
        ("bytes > +0%", True, 0.0, True),
        ("images_per_s < 120", False, 120.0, False),
        ("ratio > 0.9", True, 0.9, False),
        ("ratio > 0.9x", True, 0.9, False),
    ],
)
def test_gates_are_read(text, above, limit, relative):
    gate = parse_gate(text)
    assert (gate.above, gate.relative) == (above, relative)
    assert gate.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "such as"),
        ("p50", "METRIC > LIMIT"),
        ("p50 >= +3%", "METRIC > LIMIT"),
        ("p50 > +3% and p90 > 5ms", "METRIC > LIMIT"),
        ("p50 > three", "METRIC > LIMIT"),
        ("p50 > nan", "METRIC > LIMIT"),
        ("p50 > 1e9ms", "METRIC|is in"),
        ("p95 > +3%", "did you mean 'p9"),
        ("throughput < 5", "unknown metric"),
        ("p50 > 3%", r"\+3% is more"),
        ("p50 > +3ms", "has a sign"),
        ("p50 > 3", "p50 is in ns or us"),
        ("rss > 3ms", "rss is in B"),
        ("ratio > 3ms", "in %"),
        ("p50 < -100%", "less than nothing"),
        ("p50 > " + "9" * 60 + "ms", "out of reach"),
        ("p50 > +" + "9" * 500 + "%", "no gate"),
        ("p50 > ٣ms", "METRIC > LIMIT"),
        ("$(rm -rf /)", "no gate"),
    ],
)
def test_what_is_no_gate_is_refused_with_examples(text, told):
    with pytest.raises(UsageFailed, match=told) as refusal:
        parse_gate(text)
    assert "p50" in str(refusal.value)
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize(
    ("gate", "new_ms", "expected"),
    [
        ("p50 > +3%", 10.0, "holds"),
        ("p50 > +3%", 10.1, "holds"),
        ("p50 > +3%", 10.3, "undecided"),
        ("p50 > +3%", 10.6, "failed"),
        ("p50 > +3%", 5.0, "holds"),
        ("p50 < -3%", 5.0, "failed"),
        ("images_per_s < -3%", 10.0, "holds"),
        ("images_per_s < -3%", 10.3, "undecided"),
        ("images_per_s < -3%", 11.0, "failed"),
        ("p50 > 10ms", 9.0, "holds"),
        ("p50 > 10ms", 10.01, "undecided"),
        ("p50 > 10ms", 10.5, "failed"),
        ("p90 > 10ms", 10.5, "failed"),
        ("p90 > +3%", 10.5, "failed"),
        ("p90 > +3%", 10.1, "holds"),
        ("p99 > 10ms", 10.5, "undecided"),
        ("images_per_s < 100", 20.0, "failed"),
        ("images_per_s < 40", 20.0, "holds"),
    ],
)
def test_a_gate_fails_only_where_the_whole_interval_is_beyond(gate, new_ms, expected):
    assert outcome(gate, report(10.0), report(new_ms)) == expected


def test_the_wider_the_interval_the_less_is_decided():
    assert outcome("p50 > +3%", report(10.0), report(10.6)) == "failed"
    assert outcome("p50 > +3%", report(10.0, spread=0.05), report(10.6)) == "undecided"
    assert outcome("p50 > +3%", report(10.0), report(10.6, spread=0.05)) == "undecided"
    assert outcome("p50 > +3%", report(10.0), report(10.6, p50_interval_ms=None)) == "undecided"


def test_what_is_measured_once_is_judged_by_its_value():
    old, new = report(10.0), report(10.0, peak_rss_bytes=441_000_000, cold_start_ms={"open": 2000.0})
    assert outcome("rss > +10%", old, new) == "failed"
    assert outcome("rss > +11%", old, new) == "holds"
    assert outcome("rss > 441MB", old, new) == "holds"
    assert outcome("cold > 1s", old, new) == "failed"
    assert outcome("bytes > +1%", old, new) == "undecided"
    moved = {"limit": {"bytes_moved": 100.0}}, {"limit": {"bytes_moved": 200}}
    assert outcome("bytes > +1%", report(10.0, **moved[0]), report(10.0, **moved[1])) == "failed"


def test_a_ratio_is_judged_but_not_the_baselines_own():
    def one(mine):
        eager = results.drawn(20.0, noise=1e-6)
        base = results.row("pytorch-fp32", "eager", eager)
        base |= {"ratio": 1.0, "ratio_interval": [1.0, 1.0], "baseline_key": base["key"]}
        rounds = results.drawn(mine, noise=1e-6)
        return results.report(base, results.row(rounds=rounds, baseline=(base["key"], eager)))

    (finding,) = judge_comparison([parse_gate("ratio > +3%")], compare(one(10.0), one(11.0))).findings
    assert finding.outcome == "failed"
    assert "onnx-fp32" in finding.key
    absolute = judge_result([parse_gate("ratio > 0.6")], one(10.0)).findings
    assert {entry.outcome for entry in absolute} == {"holds"}
    assert judge_result([parse_gate("ratio > 0.4")], one(10.0)).of("failed")


@pytest.mark.parametrize(
    "changes",
    [{"soundness": UNSOUND}, {"interrupted": True}],
    ids=["unsound", "interrupted"],
)
def test_nothing_is_judged_on_a_run_that_cannot_be_believed(changes):
    fit, unfit = report(10.0), results.report(**changes)
    gates = [parse_gate("p50 > 1ms")]
    for old, new, word in ((fit, unfit, "NEW"), (unfit, fit, "OLD")):
        with pytest.raises(NotJudged, match=word) as refusal:
            judge_comparison(gates, compare(old, new))
        assert refusal.value.exit_code == 1
    with pytest.raises(NotJudged, match="the run"):
        judge_result(gates, unfit)


def test_a_run_whose_soundness_was_not_measured_is_judged():
    assert judge_result([parse_gate("p50 > 1ms")], results.report(soundness=None)).of("failed")


def test_a_disturbed_row_is_not_judged_but_its_memory_is():
    old, new = report(10.0), report(20.0, disturbed=["others used 40 % of the cores"])
    assert outcome("p50 > +3%", old, new) == "refused"
    assert outcome("p50 > +3%", new, old) == "refused"
    assert outcome("p50 > 1ms", old, new) == "refused"
    assert outcome("rss > +3%", old, new) == "holds"
    assert outcome("p50 > 1ms", new, old) == "failed"  # a disturbance of OLD is nothing to NEW's own figure
    with pytest.raises(NotJudged, match="40 %"):
        judge_comparison([parse_gate("p50 > +3%")], compare(old, new)).require()
    both = judge_comparison([parse_gate("p50 > +3%"), parse_gate("rss > +3%")], compare(old, new))
    both.require()
    assert both.passed is None


def test_a_disturbed_baseline_disturbs_a_ratio():
    eager = results.drawn(20.0)
    base = {**results.row("pytorch-fp32", "eager", eager), "disturbed": ["steal"]}
    mine = results.row(baseline=(base["key"], eager))
    findings = judge_result([parse_gate("ratio > 0.1")], results.report(base, mine)).findings
    assert findings[1].outcome == "refused"


def test_a_row_that_held_and_is_lost_fails_every_gate():
    old = results.report(results.row("a"), results.row("b"), results.row("c"), results.failed("d"))
    new = results.report(results.row("a"), results.failed("b", error="no memory"), results.failed("d"))
    judged = judge_comparison([parse_gate("rss > +3%")], compare(old, new))
    assert {entry.key.partition("/")[0]: entry.outcome for entry in judged.findings} == {
        "a": "holds",
        "b": "failed",
        "c": "failed",
        "d": "undecided",
    }
    with pytest.raises(GateFailed) as failure:
        judged.require()
    assert failure.value.exit_code == 5
    assert "no memory" in str(failure.value)
    assert "c/onnxruntime" in str(failure.value)
    assert "a/onnxruntime" not in str(failure.value)


def test_a_new_row_is_judged_by_its_own_figures_only():
    old, new = (
        results.report(results.row("a")),
        results.report(results.row("a"), results.row("b"), results.failed("c")),
    )
    relative = judge_comparison([parse_gate("p50 > +3%")], compare(old, new))
    assert [entry.key.partition("/")[0] for entry in relative.findings] == ["a"]
    absolute = judge_comparison([parse_gate("rss > 1MB")], compare(old, new))
    assert [entry.outcome for entry in absolute.findings] == ["failed"] * 3


def test_a_gate_of_one_result():
    judged = judge_result([parse_gate("p50 > 9ms")], results.report(results.row("a"), results.failed("b")))
    assert [entry.outcome for entry in judged.findings] == ["failed", "failed"]
    with pytest.raises(UsageFailed, match="earlier result"):
        judge_result([parse_gate("p50 > +9%")], report(10.0))


def test_strict_fails_what_is_not_decided():
    judged = judge_comparison([parse_gate("p50 > +3%")], compare(report(10.0), report(10.3)))
    judged.require()
    assert judged.passed is None
    with pytest.raises(GateFailed, match="not decided"):
        judged.require(strict=True)


def test_results_without_a_common_row_are_not_judged():
    old, new = results.report(results.failed("a")), results.report(results.row("b"))
    with pytest.raises(NotJudged):
        judge_comparison([parse_gate("p50 > +3%")], compare(old, new)).require()


def test_figures_have_units():
    assert [in_unit(value, "bytes") for value in (5, 1500, 2.5e6, 3e9, 4e12)] == [
        "5 B", "1.5 kB", "2.5 MB", "3 GB", "4000 GB",
    ]  # fmt: skip
    assert (in_unit(12.345, "ms"), in_unit(1234.5, "rate"), in_unit(0.5, "ratio")) == (
        "12.3 ms",
        "1234/s",
        "0.500",
    )


def run(tmp_path, old, new, *words):
    paths = []
    for name, entry in (("old.json", old), ("new.json", new)):
        (tmp_path / name).write_text(entry.to_json(), encoding="utf-8")
        paths.append(str(tmp_path / name))
    return CliRunner().invoke(command, [*paths, *words])


@pytest.mark.parametrize(
    ("words", "new_ms", "exit_code"),
    [
        (["--fail-if", "p50 > +3%"], 10.1, None),
        (["--fail-if", "p50 > +3%"], 10.3, None),
        (["--fail-if", "p50 > +3%", "--strict"], 10.3, 5),
        (["--fail-if", "p50 > +3%"], 11.0, 5),
        (["--fail-if", "rss > +3%", "--fail-if", "p50 > +3%"], 11.0, 5),
        (["--fail-if", "nonsense"], 10.0, 2),
    ],
    ids=str,
)
def test_exit_codes(tmp_path, words, new_ms, exit_code):
    told = tmp_path / "comment.md"
    found = run(tmp_path, report(10.0), report(new_ms), *words, "--markdown", str(told))
    error = found.exception
    assert getattr(error, "exit_code", None) == exit_code, found.output
    assert exit_code is None or isinstance(error, VitDeployError)
    if exit_code != 2:  # what was found is told before the command fails
        assert "onnx-fp32" in found.stdout
        assert "**Gates**" in told.read_text()
    if new_ms == 10.3 and exit_code is None:
        assert "warning: not decided" in found.stderr


def test_a_refusal_shows_the_comparison_first(tmp_path):
    found = run(tmp_path, report(10.0), results.report(soundness=UNSOUND), "--fail-if", "p50 > +3%", "--json")
    assert isinstance(found.exception, NotJudged)
    told = json.loads(found.stdout)
    assert told["passed"] is None
    assert "4 % off" in told["not_judged"]
    assert told["rows"]
