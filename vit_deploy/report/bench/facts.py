"""What a run was governed by and what it ran on, as names and values; scenarios and ceilings as cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.report.bench import words
from vit_deploy.report.bench.rows import visible
from vit_deploy.report.facts import fact_rows
from vit_deploy.report.words import UNKNOWN, count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.bench.document import BenchReport, RowRecord
    from vit_deploy.report.bench.rows import Naming

MOST_FACTS = 120
MOST_LETTERS = 300


def _cut(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(_short(name), _short(value)) for name, value in rows[:MOST_FACTS]]


def _short(text: str) -> str:
    text = visible(text)
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"


def settings_rows(report: BenchReport) -> list[tuple[str, str]]:
    """What governed the run, and how the turns were drawn."""
    rounds = len(report.order)
    drawn = [("turns", f"{count(rounds, 'round')}, each in a random order")] if rounds else []
    return _cut([*fact_rows(report.settings), *drawn])


def environment_rows(report: BenchReport) -> list[tuple[str, str]]:
    """Machine, system and versions."""
    return _cut(fact_rows(report.environment))


def machine_rows(report: BenchReport) -> list[tuple[str, str]]:
    """What the machine did meanwhile."""
    told = {
        _MACHINE.get(name, name): _shared(name, value)
        for name, value in report.machine.items()
        if name != "limits"
    }
    return _cut(fact_rows(told))


_MACHINE = {
    "measuring_s": "seconds of measuring",
    "steal_share": "taken by other guests of the host",
    "foreign_cores": "cores used by other processes",
    "quota_throttled_share": "held back by a quota",
    "thermal_throttles": "times slowed by heat",
    "mhz": "clock in MHz",
}


def _shared(name: str, value: Any) -> Any:
    """Shares in percent, numbers short; other facts as they are."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(value, dict):
        return {inner: _shared(inner, entry) for inner, entry in value.items()}
    if known and name.endswith("_share"):
        return words.percent(value)
    return words.number(value, 4) if isinstance(value, float) else value


def row_facts(row: RowRecord) -> list[tuple[str, str]]:
    """What a row's backend says of itself, its warm-up, its files."""
    hashes = {f"sha256 of {name}": value[:16] for name, value in list(row.files.items())[:4]}
    facts = {**(row.facts or {}), "warm-up": row.warm_up or {}, **hashes}
    return _cut(fact_rows(facts))


_GPU = {"h2d": "host to device", "compute": "compute", "d2h": "device to host", "enqueue": "enqueue"}


_LENGTHY = ("samples_ns", "products", "key")


def gpu_rows(row: RowRecord) -> list[tuple[str, str]]:
    """What was timed on the device, milliseconds and joules by name."""
    told = []
    for name, value in (row.gpu or {}).items():
        bare, _, unit = name.rpartition("_")
        known = _GPU.get(bare if unit in ("ms", "j") else name, (bare or name).replace("_", " "))
        told.append((known, f"{_number(value) if not isinstance(value, str) else value} {unit}".strip()))
    return _cut(told)


def ceiling_rows(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One ceiling; its single products are for the JSON document."""
    return _cut(fact_rows({name: value for name, value in entry.items() if name not in _LENGTHY}))


def order_text(report: BenchReport, most: int = 12) -> str:
    """In which order the workers measured: ``3 1 2 · 2 1 3``, the first rounds."""
    shown = [" ".join(str(place + 1) for place in entry[:30]) for entry in report.order[:most]]
    return " · ".join([*shown, *(["…"] if len(report.order) > most else [])])


def scenario_cells(report: BenchReport, entry: Mapping[str, Any], naming: Naming) -> dict[str, str]:
    """One scenario's figures as texts; a dash for what LoadGen did not tell."""
    row = report.row(str(entry.get("key")))
    latency = entry.get("latency_ms")
    latency = latency if isinstance(latency, dict) else {}
    cells = {
        "case": naming.whole(row) if row is not None else str(entry.get("key", UNKNOWN)),
        "scenario": str(entry.get("scenario", UNKNOWN))[:24],
        "verdict": str(entry.get("verdict", UNKNOWN)),
        "why": _short(_told(entry.get("why"))),
        "achieved": _number(entry.get("achieved_rate")),
        "target": _number(entry.get("target_rate")),
        "queries": f"{entry['queries']:,}" if isinstance(entry.get("queries"), int) else UNKNOWN,
        "slo": _slo(entry.get("slo")),
    }
    return {**cells, **{name: _number(latency.get(name)) for name in ("p50", "p90", "p99", "p99.9")}}


def _slo(value: Any) -> str:
    """What was asked of a percentile, and the highest rate that held it."""
    if not isinstance(value, dict):
        return _told(value) or UNKNOWN
    text = str(value.get("text") or "asked for")
    return f"{text}: held up to {_number(value.get('rate'))}/s" if value.get("met") else f"{text}: not met"


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {told}" for name, told in fact_rows(value))
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value))
    return "" if value is None else str(value)


def _number(value: Any) -> str:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return words.number(float(value)) if known else UNKNOWN
