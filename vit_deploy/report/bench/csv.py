"""CSV for spreadsheets and data frames: one line per case, plain numbers, units in the headings.

RFC 4180, in UTF-8. A text that a spreadsheet would take for a formula has an apostrophe before it, as
OWASP advises (https://owasp.org/www-community/attacks/CSV_Injection): names come from users. A heading,
once given out, keeps its name and place; new ones are added at the end.
"""

from __future__ import annotations

import csv as format_csv
import io
from typing import TYPE_CHECKING, Any

from vit_deploy.report.writing import write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.bench.document import BenchReport, RowRecord

    Cell = Callable[[RowRecord, BenchReport], Any]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def _plain(name: str) -> Cell:
    return lambda row, _: getattr(row, name)


def _end(name: str, place: int) -> Cell:
    def cell(row: RowRecord, _: BenchReport) -> Any:
        interval = getattr(row, name)
        return None if interval is None else interval[place]

    return cell


def _inside(name: str, key: str) -> Cell:
    return lambda row, _: (getattr(row, name) or {}).get(key)


COLUMNS: dict[str, Cell] = {
    "key": _plain("key"),
    "artefact": _plain("artefact"),
    "format": _plain("format"),
    "precision": _plain("precision"),
    "backend": _plain("backend"),
    "device": _plain("device"),
    "batch_size": _plain("batch_size"),
    "image_height": _end("image_size", 0),
    "image_width": _end("image_size", 1),
    "contract": _plain("contract"),
    "threads": _plain("threads"),
    "streams": _plain("streams"),
    "cuda_graph": _plain("cuda_graph"),
    "ok": _plain("ok"),
    "error": _plain("error"),
    "verified": _plain("verified"),
    "parity_worst_ratio": _plain("worst_ratio"),
    "samples": lambda row, _: len(row.samples_ns),
    "rounds": lambda row, _: len(row.round_lengths),
    "p50_ms": _plain("p50_ms"),
    "p50_low_ms": _end("p50_interval_ms", 0),
    "p50_high_ms": _end("p50_interval_ms", 1),
    "p90_ms": _plain("p90_ms"),
    "p99_ms": _plain("p99_ms"),
    "images_per_s": _plain("images_per_s"),
    "images_per_s_low": _end("images_per_s_interval", 0),
    "images_per_s_high": _end("images_per_s_interval", 1),
    "baseline_key": _plain("baseline_key"),
    "ratio": _plain("ratio"),
    "ratio_low": _end("ratio_interval", 0),
    "ratio_high": _end("ratio_interval", 1),
    "throughput_ratio": _plain("throughput_ratio"),
    "throughput_ratio_low": _end("throughput_ratio_interval", 0),
    "throughput_ratio_high": _end("throughput_ratio_interval", 1),
    "gflops_per_s": _inside("limit", "gflops_per_s"),
    "ceiling_gflops_per_s": _inside("limit", "ceiling_gflops_per_s"),
    "ceiling_share": _inside("limit", "share"),
    "bytes_moved": _inside("limit", "bytes_moved"),
    "cold_import_ms": _inside("cold_start_ms", "import"),
    "cold_check_ms": _inside("cold_start_ms", "check"),
    "cold_open_ms": _inside("cold_start_ms", "open"),
    "cold_first_ms": _inside("cold_start_ms", "first"),
    "cold_total_ms": _plain("cold_ms"),
    "peak_rss_bytes": _plain("peak_rss_bytes"),
    "peak_device_bytes": _plain("peak_device_bytes"),
    "warm_up_settled": _inside("warm_up", "settled"),
    "disturbed": _plain("disturbed"),
    "notes": _plain("notes"),
    "sha256": _plain("sha256"),
    "sound": lambda _, report: None if report.soundness is None else report.soundness.sound,
    "interrupted": lambda _, report: report.interrupted,
}
"""Each heading with what stands below it."""


def write_csv(report: BenchReport, path: str | Path) -> None:
    """Write one line per case.

    Raises:
        OutputFailed: when it cannot be written.
    """
    write_text(path, csv(report))


def csv(report: BenchReport) -> str:
    """The rows as CSV, their headings first, lines ending in CR LF.

    ``sound``, empty where that was not measured, and ``interrupted`` are of the run as a whole: a line that
    is copied elsewhere still tells them.
    """
    text = io.StringIO()
    writer = format_csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in report.rows:
        writer.writerow([_cell(cell(row, report)) for cell in COLUMNS.values()])
    return text.getvalue()


def _cell(value: Any) -> str:
    """Nothing for what is not known; ``true`` and ``false``; numbers that read back as they were."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return _text("; ".join(map(str, value)))
    return _text(str(value))


def _text(text: str) -> str:
    """One line of valid Unicode that is no formula."""
    visible = "".join(letter if letter.isprintable() or letter in "\t\r\n" else "\ufffd" for letter in text)
    flat = " ".join(visible.encode("utf-8", "replace").decode("utf-8").split())
    return f"'{flat}" if visible.startswith(_FORMULA) or flat.startswith(_FORMULA) else flat
