"""Two results: what is known of each is put together honestly, and unlike environments do not meet."""

from __future__ import annotations

import copy
import json
import math
import re

import numpy as np
import pytest
from click.testing import CliRunner

from tests.bench import results
from vit_deploy.bench.compare import compare
from vit_deploy.bench.likeness import differences
from vit_deploy.bench.metrics import METRICS, Reading, change_between
from vit_deploy.cli._bench_compare import command
from vit_deploy.cli._bench_compare_view import markdown
from vit_deploy.errors import UsageFailed

EAGER = "pytorch-fp32/eager/cpu/b1/32x32/t2/s1"


def pair(old_ms: float = 10.0, new_ms: float = 10.0, eager_ms: float = 20.0, slow_day: float = 1.0, **changes):
    """OLD and NEW: eager and an artefact; on a slow day all of NEW takes longer."""

    def one(mine: float, eager: float, seed: int, **more):
        base = results.drawn(eager, seed=seed)
        rows = [
            results.row("pytorch-fp32", "eager", base, baseline=(EAGER, base)),
            results.row(rounds=results.drawn(mine, seed=seed + 1), baseline=(EAGER, base), **more),
        ]
        return results.report(*rows)

    return one(old_ms, eager_ms, 10), one(new_ms * slow_day, eager_ms * slow_day, 20, **changes)


def changes_of(old, new, key="onnx-fp32/onnxruntime/cpu/b1/32x32/t2/s1"):
    return next(row for row in compare(old, new).rows if row.key == key).changes


def test_a_change_and_its_interval_are_what_was_put_in():
    found = changes_of(*pair(10.0, 10.5))
    assert found["p50"].relative == pytest.approx(0.05, abs=0.01)
    low, high = found["p50"].interval
    assert low < found["p50"].relative < high
    assert found["p50"].word == "worse"
    assert found["images_per_s"].relative == pytest.approx(-0.048, abs=0.01)
    assert found["images_per_s"].word == "worse"
    assert changes_of(*pair(10.0, 9.0))["p50"].word == "better"
    assert changes_of(*pair())["p50"].word == "same"
    assert list(found) == list(METRICS)


def test_a_slow_day_is_in_the_latency_and_not_in_the_ratio():
    found = changes_of(*pair(slow_day=1.2))
    assert found["p50"].relative == pytest.approx(0.2, abs=0.01)
    assert found["p50"].word == "worse"
    assert abs(found["ratio"].relative) < 0.01
    assert found["ratio"].word == "same"


def test_the_baseline_has_no_ratio_to_itself():
    ratio = changes_of(*pair(), key=EAGER)["ratio"]
    assert (ratio.relative, ratio.why) == (None, "it is the baseline")


def test_ratios_to_two_baselines_are_not_compared():
    old, _ = pair()
    other = results.row("other", "eager", results.drawn(20.0))
    mine = results.row(baseline=(other["key"], results.drawn(20.0)))
    ratio = changes_of(old, results.report(mine, other))["ratio"]
    assert (ratio.relative, ratio.why) == (None, "its baseline is another row now")


def test_what_is_measured_once_has_no_interval():
    old, new = pair(peak_rss_bytes=500_000_000)
    found = changes_of(old, new)
    assert found["rss"].relative == pytest.approx(0.25)
    assert (found["rss"].interval, found["rss"].word) == (None, "unknown")
    assert found["cold"].relative == 0.0
    assert (found["bytes"].old, found["bytes"].why) == (None, "it was not measured")


def test_a_row_without_an_interval_says_why():
    few = results.drawn(10.0, rounds=3)
    rows = results.row(rounds=few, p50_interval_ms=None)
    p50 = changes_of(results.report(rows), results.report(rows))["p50"]
    assert p50.relative == 0.0
    assert (p50.word, p50.interval) == ("unknown", None)
    assert "3 rounds" in p50.why


def test_intervals_of_changes_hold_the_truth_as_often_as_they_say():
    generator, held = np.random.default_rng(0), 0
    for _ in range(2000):
        (old, a), (new, b) = generator.normal(100, 2, size=(2, 30)), generator.normal(103, 1, size=(2, 30))
        readings = []
        for value, _sample, width in ((old[0], a, 2.0), (new[0], b, 1.0)):
            half = 1.96 * width
            readings.append(Reading(value, (value - half, value + half)))
        _, (low, high) = change_between(*readings)
        held += low <= 0.03 <= high
    assert 0.93 < held / 2000 < 0.97


def test_tails_are_drawn_by_round():
    """Rounds that differ make the tail uncertain; as many samples all alike do not."""

    def width(rounds):
        reading = METRICS["p90"].read(results.report(results.row(rounds=rounds)).rows[0])
        low, high = reading.interval
        assert low <= reading.value <= high
        return high - low

    alike = [results.drawn(10.0, rounds=1, per_round=100, seed=0)[0]] * 8
    spread = [[round(sample * (1 + 0.2 * place)) for sample in entry] for place, entry in enumerate(alike)]
    assert width(spread) > 5 * width(alike)
    few = METRICS["p99"].read(results.report(results.row(rounds=results.drawn(10.0, rounds=3))).rows[0])
    assert few.value is None
    assert "too few" in few.why


def test_many_samples_are_thinned_without_moving_the_tail():
    rounds = results.drawn(10.0, rounds=8, per_round=3000, noise=0.02)
    reading = METRICS["p99"].read(results.report(results.row(rounds=rounds)).rows[0])
    assert reading.value == pytest.approx(np.quantile(np.concatenate(rounds), 0.99) / 1e6, rel=1e-3)
    assert reading.interval[0] < reading.value < reading.interval[1]
    assert reading.interval[1] / reading.interval[0] < 1.05


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (Reading(None), Reading(1.0), (None, None)),
        (Reading(0.0), Reading(1.0), (None, None)),
        (Reading(1.0), Reading(0.0, (0.0, 0.0)), (-1.0, None)),
        (Reading(1.0, (0.0, 2.0)), Reading(1.0, (0.9, 1.1)), (0.0, None)),
        (Reading(5e-324), Reading(1e18), (None, None)),
    ],
)
def test_what_cannot_be_divided_is_not(old, new, expected):
    assert change_between(old, new) == expected


def test_a_huge_change_stays_finite():
    relative, interval = change_between(Reading(1e-9, (1e-10, 1e-8)), Reading(1e18, (1e17, 1e18)))
    assert math.isfinite(relative)
    assert all(map(math.isfinite, interval))


def test_rows_of_one_result_only_and_lost_ones_are_told():
    old = results.report(
        results.row("a"), results.row("b"), results.row("gone", "openvino"), results.failed("c")
    )
    new = results.report(
        results.row("a"),
        results.failed("b", error="out of memory"),
        results.row("d"),
        skipped=[{"backend": "openvino", "reason": "not installed", "mend": "pip install it"}],
    )
    found = compare(old, new)
    assert [row.new.artefact for row in found.rows] == ["a", "b"]
    assert [row.artefact for row in found.only_old] == ["gone", "c"]
    assert [row.artefact for row in found.only_new] == ["d"]
    reasons = {key.partition("/")[0]: reason for key, reason in found.lost.items()}
    assert reasons == {"gone": "it is missing: not installed", "b": "it failed: out of memory"}


def test_other_bytes_are_told_even_behind_an_unchanged_graph():
    old, new = pair(files={"model.onnx": "a" * 64, "model.data": "b" * 64})
    row = next(row for row in compare(old, new).rows if row.key != EAGER)
    assert row.files_changed == ("model.data",)
    assert "other bytes: model.data" in row.notes


def with_environment(report, **changes):
    return report.model_copy(update={"environment": {**report.environment, **changes}})


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"cpu": "Another CPU"}, "cpu"),
        ({"cores": 64}, "cores"),
        ({"gpus": ["NVIDIA H100"]}, "gpus"),
        ({"system": "Linux aarch64"}, "system"),
        ({"python": "3.13.1"}, "python"),
    ],
)
def test_unlike_environments_are_refused_and_can_be_allowed(changes, name):
    old, new = pair()
    new = with_environment(new, **changes)
    with pytest.raises(UsageFailed, match=f"{name}: ") as refusal:
        compare(old, new)
    assert f"--allow-different {name}" in refusal.value.next_command
    for allowed in ([name], ["all"], [f" {name} ", ""]):
        assert [entry.name for entry in compare(old, new, allowed).differences if entry.refused] == [name]
    with pytest.raises(UsageFailed):
        compare(old, new, ["threads"])


def test_memory_and_patch_releases_refuse_nothing():
    old, new = pair()
    new = with_environment(new, memory_bytes=1, python="3.11.9", packages={"timm": "9"})
    found = compare(old, new).differences
    assert {entry.name for entry in found} == {"python", "timm", "vit-deploy", "torch", "onnxruntime"}
    assert not any(entry.refused for entry in found)


def test_a_backends_version_is_what_its_rows_say():
    old, new = pair(facts={"version": "1.33.0"})
    (found,) = [entry for entry in differences(old, new) if entry.refused]
    assert str(found) == "onnxruntime: 1.32.0 → 1.33.0"
    for allowed in ("onnxruntime", "versions", "all"):
        assert compare(old, new, [allowed]).rows
    with pytest.raises(UsageFailed, match="unknown difference 'ort'"):
        compare(old, new, ["ort"])


def test_threads_refuse_only_where_no_rows_can_meet():
    row = results.row()
    other = {**results.row(), "threads": 4, "key": "onnx-fp32/onnxruntime/cpu/b1/32x32/t4/s1"}
    with pytest.raises(UsageFailed, match="threads: 2 → 4"):
        compare(results.report(row), results.report(other))
    assert len(compare(results.report(row), results.report(row, other)).rows) == 1


def write(tmp_path, old, new):
    paths = []
    for name, report in (("old é.json", old), ("new result.json", new)):
        path = tmp_path / name
        path.write_text(report.to_json(), encoding="utf-8")
        paths.append(str(path))
    return paths


def invoke(*words):
    return CliRunner().invoke(command, list(words))


def test_the_command_prints_a_table(tmp_path):
    found = invoke(*write(tmp_path, *pair(10.0, 10.5)))
    assert found.exit_code == 0, found.output
    assert "onnx-fp32" in found.stdout
    assert "cpu/b1/32x32/t2/s1" in found.stdout
    assert "✗" in found.stdout
    assert "✓" not in found.stdout
    assert "+5." in found.stdout
    assert "not interleaved" in found.stderr


def test_the_commands_document(tmp_path):
    found = invoke(*write(tmp_path, *pair(10.0, 10.5)), "--json", "--fail-if", "p50 > +50%")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["schema"] == "vit-deploy/bench-compare/1"
    assert told["environment"] == results.ENVIRONMENT
    assert told["passed"] is True
    row = told["rows"][1]
    assert row["changes"]["p50"]["word"] == "worse"
    assert {gate["outcome"] for gate in told["gates"]} == {"holds"}


def test_markdown_is_inert_whatever_the_names(tmp_path):
    old = results.report(results.row(results.HOSTILE), results.row("b"))
    new = results.report(
        results.row(results.HOSTILE, rounds=results.drawn(20.0)), results.failed("b", error="<b>|x")
    )
    paths = write(tmp_path, old, new)
    told = tmp_path / "a comment é.md"
    found = invoke(*paths, "--markdown", str(told))
    assert found.exit_code == 0, found.output
    text = told.read_text(encoding="utf-8")
    assert text.startswith("### Benchmark: 1 slower")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", text)
    assert "<script>" not in outside
    assert "<b>" not in outside
    assert "\x1b" not in text + found.stdout


def test_a_comment_fits_however_many_rows(tmp_path):
    rows = [
        results.row(f"artefact-{number}-{'x' * 300}", rounds=results.drawn(10.0, rounds=6, per_round=6))
        for number in range(300)
    ]
    report = results.report(*rows)
    text = markdown(compare(report, copy.deepcopy(report)), None)
    assert len(text.encode()) < 65_536
    assert "left out" in text or "more rows" in text
