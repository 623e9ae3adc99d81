"""Markdown and CSV of a benchmark, its words, and the order and names of its rows."""

from __future__ import annotations

import csv as format_csv
import io
import re

import pytest

from tests.report.bench import specimens
from vit_deploy.report.bench import words
from vit_deploy.report.bench.csv import COLUMNS, csv, write_csv
from vit_deploy.report.bench.markdown import markdown, write_markdown
from vit_deploy.report.bench.rows import Naming, frontier, groups


def test_markdown_is_as_it_was_read(golden):
    golden("bench.md", markdown(specimens.report()))


def test_csv_is_as_it_was_read(golden, tmp_path):
    write_csv(specimens.report(), tmp_path / "bench.csv")
    raw = (tmp_path / "bench.csv").read_bytes()
    assert raw.count(b"\r\n") == raw.count(b"\n") == 12
    golden("bench.csv.txt", raw.decode("utf-8").replace("\r\n", "\n"))


def test_headings_keep_their_names_and_places():
    names = list(COLUMNS)
    assert names[:6] == ["key", "artefact", "format", "precision", "backend", "device"]
    assert len(names) == len(set(names)) == 51
    assert names[-3:] == ["sha256", "sound", "interrupted"]


def test_csv_reads_back_what_was_measured():
    report = specimens.report()
    read = list(format_csv.DictReader(io.StringIO(csv(report), newline="")))
    assert len(read) == len(report.rows)
    for line, row in zip(read, report.rows, strict=True):
        assert line["key"] == row.key
        assert line["ok"] == ("true" if row.ok else "false")
        assert (float(line["p50_ms"]) if line["p50_ms"] else None) == row.p50_ms
        assert (int(line["peak_rss_bytes"]) if line["peak_rss_bytes"] else None) == row.peak_rss_bytes


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula_to_a_spreadsheet(start: str):
    way = (f"{start}HYPERLINK(1)", *specimens.WAYS[1][1:])
    report = specimens.document([specimens.row(way, 1, 1, notes=(f"  {start}x",))])
    line = next(format_csv.DictReader(io.StringIO(csv(report), newline="")))
    assert line["artefact"].startswith("'")
    assert not line["notes"].startswith(("=", "+", "-", "@"))
    for name, cell in line.items():
        assert not cell.startswith(("=", "+", "-", "@")), name


def test_names_are_no_markup_in_markdown():
    text = markdown(specimens.hostile())
    # What stands in a block or a span of code is shown as it is.
    bare = re.sub(r"(?s)(`+)(?!`).*?(?<!`)\1(?!`)", "", text)
    assert "alert(1)" in bare
    assert "<script" not in bare
    assert "@everyone" not in bare
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_markdown_of_many_rows_fits_a_comment(tmp_path):
    write_markdown(specimens.many(900, each=2), tmp_path / "b.md")
    assert (tmp_path / "b.md").stat().st_size < 65_000


def test_a_failed_run_says_so_first():
    assert markdown(specimens.unsound()).startswith("### ❌ Benchmark: this run is unsound")
    assert markdown(specimens.nothing()).startswith("### ❌ Benchmark: nothing could be measured")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        *[(None, "–"), (0.0, "0"), (9.996, "10.0"), (99.96, "100"), (1234.5, "1,234")],
        *[(0.01234, "0.0123"), (2.5e-7, "0.000000250")],
    ],
)
def test_numbers_have_three_digits(value: float | None, told: str):
    assert words.number(value) == told


def test_the_ends_of_an_interval_are_told_apart_where_they_can_be():
    assert words.between((2.21, 2.36), 2.3, 2) == "2.2–2.4"
    assert words.between((216.94, 217.2), 217.0) == "216.9–217.2"
    assert words.between((5.0, 5.0), 5.0) == "5.0000–5.0000"
    assert words.between(None) == ""


def test_the_frontier_holds_what_none_beats_in_both():
    report = specimens.report()
    front = frontier(report.rows)
    assert [(row.artefact, row.batch_size) for row in front] == [("onnx-int8", 1), ("onnx-int8", 8)]
    for row in (row for row in report.rows if row.ok and row not in front):
        assert any(other.p50_ms <= row.p50_ms and other.images_per_s >= row.images_per_s for other in front)


def test_names_tell_what_differs_and_no_more():
    found = specimens.rows((1,))[:2]
    assert (
        Naming(specimens.document(found).rows).whole(specimens.document(found).rows[0])
        == "pytorch-fp32 on eager"
    )
    found[1]["streams"] = 2
    rows = specimens.document(found).rows
    assert Naming(rows).whole(rows[1]) == "onnx-fp32 on onnxruntime, 2 streams"


def test_groups_have_the_fastest_first_and_what_failed_last():
    first, second = groups(specimens.report())
    assert [first.title, second.title] == ["batch 1", "batch 8"]
    assert [row.artefact for row in first.rows][0::5] == ["onnx-int8", "tensorrt-fp16"]
