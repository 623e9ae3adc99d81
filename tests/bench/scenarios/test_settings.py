from __future__ import annotations

import builtins
import importlib.util
import re
from pathlib import Path

import pytest

from vit_deploy.bench.scenarios import (
    SCENARIOS,
    ScenarioSettings,
    Slo,
    available,
    parse_scenarios,
    parse_slo,
    run_scenarios,
)
from vit_deploy.bench.statistics import samples_needed
from vit_deploy.errors import BackendMissing, UsageFailed


@pytest.mark.parametrize(
    ("text", "name", "limit_ms"),
    [
        ("p99=50ms", "p99", 50),
        ("p90=0.2s", "p90", 200),
        (" P99.9 <= 1.5 ms ", "p99.9", 1.5),
        ("p95=900us", "p95", 0.9),
    ],
)
def test_an_slo_is_read(text, name, limit_ms):
    slo = parse_slo(text)
    assert slo.name == name
    assert slo.limit_ms == pytest.approx(limit_ms)
    assert slo.percentile == pytest.approx(float(name[1:]) / 100)
    assert parse_slo(str(slo)) == Slo(name, pytest.approx(slo.limit_s))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p99",
        "50ms",
        "p99=50",
        "p99=0ms",
        "p99=-1ms",
        "p99=.ms",
        "p98=50ms",
        "p99=nanms",
        "p99=1e9s",
        "p99=٥ms",
    ],
)
def test_another_slo_is_refused_with_an_example(text):
    with pytest.raises(UsageFailed) as caught:
        parse_slo(text)
    assert caught.value.expected


def test_scenarios_are_named_as_people_write_them():
    assert parse_scenarios("server, single-stream,Offline,server") == ["Server", "SingleStream", "Offline"]
    assert parse_scenarios("all") == ["SingleStream", "MultiStream", "Offline", "Server"]
    with pytest.raises(UsageFailed, match="did you mean 'server'"):
        parse_scenarios("servr")
    with pytest.raises(UsageFailed, match="no scenario"):
        parse_scenarios(" , ")


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_duration_s": 0},
        {"min_duration_s": float("nan")},
        {"max_duration_s": 1.0, "min_duration_s": 2.0},
        {"target_rate": 0.0},
        {"percentile": 1.0},
        {"probes": 0},
        {"seed": -1},
    ],
)
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(UsageFailed):
        ScenarioSettings(**wrong)


def test_without_loadgen_the_extra_is_named(monkeypatch, fake_cases):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not available().ok
    assert available().mend == "pip install 'vit-deploy[loadgen]'"
    with pytest.raises(BackendMissing) as caught:
        run_scenarios(fake_cases(only={}), ["Server"], ScenarioSettings())
    assert caught.value.exit_code == 4
    assert "vit-deploy[loadgen]" in str(caught.value)


def test_the_words_can_be_read_without_loadgen(monkeypatch):
    imported = builtins.__import__

    def refuse(name, *arguments, **named):
        assert name != "mlperf_loadgen"
        return imported(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert parse_scenarios("offline") == ["Offline"]
    assert available().ok


def test_the_page_says_what_loadgens_own_rules_say():
    from vit_deploy.bench.scenarios.loadgen import EARLY_STOPPING, rules
    from vit_deploy.bench.scenarios.search import SPAN, STEP_DOWN

    text = (Path(__file__).parents[3] / "docs" / "scenarios.md").read_text(encoding="utf-8")
    rows = dict(
        re.findall(r"^\| (\w+Stream|Offline|Server) \|.*\| (600 s, [0-9,]+) \w+ \|$", text, re.MULTILINE)
    )
    assert set(rows) == set(SCENARIOS)
    for name, told in rows.items():
        made = rules(name)
        assert told == f"{made.min_duration_ms / 1e3:g} s, {made.min_query_count:,}"
    assert EARLY_STOPPING["Server"] == 662
    assert "662\nwith one" in text
    probes = ScenarioSettings().probes
    assert SPAN ** (2.0**-probes) < 1.05
    assert SPAN == 20
    assert STEP_DOWN == 0.95
    assert f"{samples_needed(0.99)} queries for p99, {samples_needed(0.999):,} for p99.9" in text
