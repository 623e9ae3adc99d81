"""The cells of the page's tables: texts, and the numbers that they are sorted by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.report.bench import words
from vit_deploy.report.bench.rows import is_baseline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vit_deploy.bench.document import RowRecord

    Cut = Callable[[str], str]


_SHOWN_ELSEWHERE = ("unverified", "disturbed")
"""Notes that the page tells in a place of their own."""


def failed_cells(row: RowRecord, cut: Cut) -> dict[str, Any]:
    """Of a row that failed: why."""
    return {"error": cut(row.error or "it gave no reason")}


def result_cells(row: RowRecord, cut: Cut) -> dict[str, Any]:
    """Of a row that holds: every figure with its interval."""
    share = row.limit.get("share") if row.limit else None
    device = row.peak_device_bytes
    return {
        "flags": [cut(told) for told in _flags(row)],
        "p50": words.number(row.p50_ms),
        "p50_interval": words.between(row.p50_interval_ms, row.p50_ms),
        "p90": words.number(row.p90_ms),
        "p99": words.number(row.p99_ms),
        "rate": words.number(row.images_per_s),
        "rate_interval": words.between(row.images_per_s_interval, row.images_per_s),
        "baseline": is_baseline(row),
        "ratio": words.ratio(row.ratio),
        "ratio_interval": words.between(row.ratio_interval, row.ratio),
        "share": words.percent(share),
        "memory": words.gigabytes(row.peak_rss_bytes),
        "device_memory": f"+ {words.gigabytes(device)} GPU" if device else "",
        "cold": words.seconds(row.cold_ms),
        "parity": words.parity(row),
        "by": {
            "p50": row.p50_ms,
            "p90": row.p90_ms,
            "p99": row.p99_ms,
            "rate": row.images_per_s,
            "ratio": row.ratio,
            "share": share,
            "memory": row.peak_rss_bytes,
            "cold": row.cold_ms,
        },
    }


def _flags(row: RowRecord) -> list[str]:
    """What a reader of the figures must know; why it was disturbed stands at the top of the page."""
    told = ["disturbed"] if row.disturbed else []
    return told + [note for note in row.notes if not note.startswith(_SHOWN_ELSEWHERE)]


def limit_cells(limit: Mapping[str, Any]) -> dict[str, Any]:
    """How close to the ceiling a row comes."""
    flops, moved = limit.get("flops"), limit.get("bytes_moved")
    return {
        "rate": words.number(limit.get("gflops_per_s")),
        "ceiling": words.number(limit.get("ceiling_gflops_per_s")),
        "share": words.percent(limit.get("share")),
        "flops": words.number(None if flops is None else flops / 1e9),
        "moved": words.gigabytes(None if moved is None else round(moved)),
        "by": {
            "rate": limit.get("gflops_per_s"),
            "ceiling": limit.get("ceiling_gflops_per_s"),
            "share": limit.get("share"),
            "flops": flops,
            "moved": moved,
        },
    }
