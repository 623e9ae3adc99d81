"""Reads what LoadGen writes: ``mlperf_log_summary.txt``, and the errors in ``mlperf_log_detail.txt``.

The summary is made for people; its spacing and its set of lines differ between versions. So nothing here
depends on the order of lines or on how a colon is padded, and what is missing is ``None``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vit_deploy.bench.scenarios.settings import PERCENTILES
from vit_deploy.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

NS_PER_MS = 1e6
MOST_LINES = 40

_FIELD = re.compile(r"^\s*(.*?)\s*:\s*(\S.*?)\s*$")
_PERCENTILE = re.compile(r"^([0-9.]+) percentile latency \(ns\)$")
_RESULT, _SATISFIED, _STATS = "Result is", " satisfied", "Additional Stats"


@dataclass(frozen=True)
class Summary:
    """A summary, read.

    Attributes:
        valid: whether LoadGen says ``VALID``.
        satisfied: each of its conditions (``Min duration``, ``Early stopping`` …) and whether it held.
        latency_ms: by the names of :data:`~vit_deploy.bench.scenarios.settings.PERCENTILES`, in milliseconds.
        fields: every ``name : value`` line.
        reasons: its recommendations, and what it says of early stopping.
        lines: the lines that matter, as they stand: all before the test's parameters.
        errors: what the detailed log calls an error.
    """

    valid: bool
    satisfied: Mapping[str, bool]
    latency_ms: Mapping[str, float]
    fields: Mapping[str, str]
    reasons: tuple[str, ...]
    lines: tuple[str, ...]
    errors: tuple[str, ...] = field(default=())

    def number(self, name: str) -> float | None:
        """A field as a number, ``None`` where it is missing or is none."""
        try:
            return float(self.fields[name])
        except (KeyError, ValueError):
            return None


def read_summary(text: str, detail: str = "") -> Summary:
    """Read a summary.

    Args:
        text: of ``mlperf_log_summary.txt``.
        detail: of ``mlperf_log_detail.txt``.

    Raises:
        RunFailed: when it holds no result: LoadGen did not get to its end.
    """
    found = [match.groups() for line in text.splitlines() if (match := _FIELD.match(line))]
    fields = {str(name): str(value) for name, value in found}
    result = fields.get(_RESULT, "")
    if result not in ("VALID", "INVALID"):
        raise RunFailed(
            f"LoadGen's summary holds no result: {text.strip()[-200:]!r}", expected=f"a line {_RESULT} : VALID"
        )
    satisfied = {
        name.removesuffix(_SATISFIED): value.lower() == "yes"
        for name, value in fields.items()
        if name.endswith(_SATISFIED)
    }
    return Summary(
        valid=result == "VALID",
        satisfied=satisfied,
        latency_ms=_latencies(fields),
        fields=fields,
        reasons=_reasons(text),
        lines=_key_lines(text),
        errors=_errors(detail),
    )


def _latencies(fields: Mapping[str, str]) -> dict[str, float]:
    shares = {round(share * 100, 3): name for name, share in PERCENTILES.items()}
    found = {}
    for name, value in fields.items():
        match = _PERCENTILE.match(name)
        known = shares.get(round(float(match.group(1)), 3)) if match else None
        if known and value.isdigit():
            found[known] = int(value) / NS_PER_MS
    return found


def _reasons(text: str) -> tuple[str, ...]:
    """What stands under its two headings of reasons; an entry may go on over several lines."""
    entries: list[str] = []
    for line in text.partition(_STATS)[0].splitlines():
        if line.startswith(" * "):
            entries.append(line[3:].strip())
        elif line.startswith(" ") and not _FIELD.match(line) and entries:
            entries[-1] += f" {line.strip()}"
    return tuple(entry for entry in entries if entry != "Run successful.")


def _key_lines(text: str) -> tuple[str, ...]:
    lines = text.partition("Test Parameters Used")[0].splitlines()
    kept = [line.rstrip() for line in lines if line.strip() and not set(line.strip()) <= {"="}]
    return tuple(kept[:MOST_LINES])


def _errors(detail: str) -> tuple[str, ...]:
    """The values of the entries that are marked as errors; each is one JSON object on a line."""
    found = []
    for line in detail.splitlines():
        if '"is_error": true' not in line:
            continue
        try:
            found.append(str(json.loads(line.partition("{")[1] + line.partition("{")[2])["value"]))
        except (ValueError, KeyError, TypeError):
            found.append(line.strip()[:200])
    return tuple(dict.fromkeys(found))
