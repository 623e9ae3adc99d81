"""Markdown for a pull request: what it says, that nothing in it is markup by accident, and that it fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.report import specimens
from vit_deploy.blame.record import Drift
from vit_deploy.report.document import Judged, build_report
from vit_deploy.report.markdown import MOST_BYTES, code, escape, fenced, markdown, sparkline, write_markdown


def rendered(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


def test_the_verdict_comes_first_then_the_table_then_the_culprit():
    lines = markdown(specimens.report()).splitlines()
    assert lines[0] == "### ❌ Parity: 1 of 3 artefacts failed"
    assert lines[2] == "1 passed, 1 could not be checked here."
    assert (
        "| `onnx-fp16` | ❌ failed | 412 × (≤ 4) | 330 × (≤ 2) | 2 of 7, and 1 near-tie | `onnxruntime` |"
        in lines
    )
    table = next(
        place for place, line in enumerate(lines) if line.startswith("| `onnx-fp32` | ✅ passed | 5.00 ×")
    )
    culprit = next(place for place, line in enumerate(lines) if line.startswith("> The error comes in"))
    assert table < culprit < lines.index("<details>")


def test_a_success_says_so():
    found = build_report("b", specimens.judged()[:1], [], {})
    assert markdown(found).startswith("### ✅ Parity: the artefact is equal to eager PyTorch\n")


def test_what_differs_from_the_accepted_bundle_is_listed():
    lines = markdown(specimens.report(against=True)).splitlines()
    first = lines.index("❌ **Beside the bundle that was accepted last**")
    assert lines[first + 2].startswith("- ❌ `onnx-fp16`: 11 of 12 attentions are fused")
    assert lines[first + 3].startswith("- torch 2.13.0 was 2.12.1")


def test_the_drift_is_a_row_of_bars():
    readings = build_report("b", specimens.judged(), [], {}).artefacts[1].drift.readings
    bars = sparkline(readings)
    assert len(bars) == len(readings)
    assert len(set(bars[:15])) == 1
    assert min(bars[15:]) > max(bars[:15])
    assert "first beyond its limit: blocks.7.attn" in markdown(specimens.report())
    faults = specimens.nothing_but_faults().artefacts[0].drift.readings
    assert sparkline(faults) == "▁!!"


def test_figures_are_folded_away():
    tokens = rendered(markdown(specimens.report()))
    assert tokens.count("<details>") == tokens.count("</details>") == 4
    assert "<summary><code>onnx-fp16</code>: figures</summary>" in tokens
    assert tokens.count("<table>") >= 6


HTML = ("<script", "<img", "<iframe", "<a ")


@pytest.mark.parametrize(
    "make", [lambda: specimens.report(hostile=True, against=True), specimens.nothing_but_faults]
)
def test_nothing_that_a_user_named_is_markup(make):
    text = markdown(make())
    page = rendered(text)
    assert not any(tag in page for tag in HTML)
    assert "@everyone" not in strip_code(text)
    assert "#1 " not in strip_code(text)
    assert "\x1b" not in text
    assert "\x00" not in text


def strip_code(text: str) -> str:
    """What stands outside code, where GitHub looks for mentions."""
    page = rendered(text)
    while "<code" in page:
        before, _, rest = page.partition("<code")
        page = before + rest.partition("</code>")[2]
    return page


@pytest.mark.parametrize(
    "text",
    [
        "*a* _b_ `c` ~~d~~",
        "[a](http://b.c) ![x](y)",
        "<b>bold</b> &amp; <!-- x",
        "# head",
        "- list",
        "1. list",
        "a | b",
        "===",
    ],
)
def test_escaped_text_renders_as_itself(text: str):
    page = rendered(f"before\n\n{escape(text)}\n\nafter")
    shown = (
        page.replace("\u200b", "")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", '"')
    )
    assert shown == f"<p>before</p>\n<p>{text}</p>\n<p>after</p>\n"


@pytest.mark.parametrize("text", ["plain", "a`b", "``", "`", "a|b", "x\ny"])
def test_code_renders_as_itself_inside_a_table(text: str):
    page = rendered(f"| a |\n| :-- |\n| {code(text)} |\n")
    flat = text.replace("\n", " ")
    assert f"<code>{flat}</code>" in page


def test_a_block_of_code_ends_where_it_ends():
    page = rendered("\n".join([*fenced(["a", "```", "<b>"]), "after"]))
    assert "<p>after</p>" in page
    assert "&lt;b&gt;" in page


def many(count: int, depth: int) -> list[Judged]:
    entries = []
    for number in range(count):
        base = specimens.judged()[number % 3]
        drift = Drift(base.name, specimens.drift(base.name, 1.0, depth=depth).readings)
        entries.append(replace(base, name=f"{base.name}-{number}", drift=drift, unmet=("x" * 5000,) * 50))
    return entries


def test_it_stays_below_githubs_limit_and_says_what_is_left_out():
    found = build_report("b", many(150, 80), specimens.samples(), specimens.ENVIRONMENT)
    text = markdown(found)
    assert len(text.encode()) <= MOST_BYTES < 65_536
    assert text.startswith("### ❌")
    assert text.endswith("*The rest is left out: the HTML and the JSON report have it.*\n")
    assert "*50 more are in the JSON report.*" in text
    assert rendered(text).count("<details>") == rendered(text).count("</details>")


def test_it_is_written(tmp_path: Path):
    write_markdown(specimens.report(hostile=True), tmp_path / "parity.md")
    assert "größe 犬" in (tmp_path / "parity.md").read_text(encoding="utf-8")
