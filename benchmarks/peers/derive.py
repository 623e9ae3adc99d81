"""Intervals derived anew from the samples that are kept: a table is of today's statistics."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.bootstrap import round_medians
from vit_deploy.bench.launches import median_over_launches, ratio_of_rounds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.bench.bootstrap import Estimate

NS_PER_MS = 1e6


def derived(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group of ``peers.json`` with the medians' and the ratios' intervals of its samples.

    Only a row that took turns with the baseline whose samples are kept has its ratio derived; where the rows
    did not fit into memory side by side, a later run had a baseline of its own, and its ratios stay.
    """
    first = group["runs"][0]["tools"] if group["runs"] else []
    by_key = {row["key"]: row for row in group["rows"] if row.get("ok") and row["tool"] in first}
    return {**group, "rows": [_derived(row, by_key) if row.get("ok") else row for row in group["rows"]]}


def _derived(row: dict[str, Any], by_key: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    rounds = rounds_of(row)
    known = median_over_launches(rounds, row.get("launch_lengths", ()))
    fresh = {"p50_interval_ms": _scaled(known), "half_width": known.half_width if known else None}
    baseline = by_key.get(row["baseline_key"])
    if baseline is not None and baseline is not row and row["key"] in by_key:
        medians = round_medians(rounds), round_medians(rounds_of(baseline))
        ratio = ratio_of_rounds(*medians, row.get("launch_lengths", ()))
        if ratio is not None:
            fresh |= {"ratio": ratio.value, "ratio_interval": ratio.interval}
    return {**row, **fresh}


def rounds_of(row: Mapping[str, Any]) -> list[list[int]]:
    """The samples of a row, by round."""
    lengths = row["round_lengths"]
    ends = accumulate(lengths)
    return [row["samples_ns"][end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _scaled(known: Estimate | None) -> list[float] | None:
    if known is None or known.interval is None:
        return None
    return [end / NS_PER_MS for end in known.interval]
