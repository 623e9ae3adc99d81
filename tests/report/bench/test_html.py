"""The page of a benchmark: what it says, that it asks for nothing, that nothing in it is markup by accident."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.report.bench import specimens
from tests.report.test_html import Tree
from vit_deploy.bench.document import BenchReport
from vit_deploy.errors import BackendMissing, OutputFailed
from vit_deploy.report.bench.html import html, write_html
from vit_deploy.report.page import MOST_BYTES

EVERY = [specimens.report, specimens.quiet, specimens.unsound, specimens.nothing, specimens.hostile]


def text_of(report: BenchReport) -> str:
    return Tree(html(report)).text


def test_the_text_of_the_page_is_as_it_was_read(golden):
    told = [line.strip() for line in Tree(html(specimens.report())).words]
    golden("bench-page.txt", "\n".join(line for line in told if line) + "\n")


def test_the_verdict_is_told_in_words():
    text = text_of(specimens.report())
    assert "Fastest at batch 1: onnx-int8 on onnxruntime, 78.4 ms, 3.7× eager (95 %: 3.6–3.8)" in text
    assert (
        "but it was never verified against eager PyTorch; of those that were, openvino-bf16 on openvino" in text
    )
    assert "openvino-bf16 on openvino is fastest: " not in text


def test_what_cannot_be_told_apart_is_not_called_faster():
    found = specimens.rows((1,))[:3]
    found[1]["ratio_interval"], found[2]["ratio_interval"] = (0.74, 0.80), (0.75, 0.79)
    text = text_of(specimens.document(found))
    assert "onnx-fp32 on onnxruntime" in text
    assert "is among the fastest" in text
    assert "not told apart from" in text
    assert 'class="fastest"' not in html(specimens.document(found))


def test_an_unsound_run_decides_nothing():
    text = text_of(specimens.unsound())
    assert "This run is unsound: its figures decide nothing" in text
    assert "took 1.09 × its own time (95 %: 1.03–1.15), which does not hold 1" in text
    assert "Interrupted before its end" in text
    assert "Fastest at" not in text
    assert "Lowest median, which decides nothing, at batch 1" in text


def test_what_failed_was_disturbed_or_was_never_verified_is_said():
    text = text_of(specimens.report())
    for told in (
        "1 of 11 cases failed",
        "tensorrt-fp16 on tensorrt_rtx, batch 1: the worker died of SIGSEGV",
        "another process took 31 % of a core in round 3",
        "Never verified: parity with eager PyTorch was not checked",
        "Mend: vit-deploy doctor",
    ):
        assert told in text, told


def test_where_there_is_nothing_to_draw_there_is_no_frame():
    page = html(specimens.quiet())
    text = Tree(page).text
    assert "Throughput against batch size" not in text  # one batch size
    assert "The frontier" not in text
    assert "Under load" not in text
    assert "Left out" not in text
    assert "<figure>" not in html(specimens.nothing())


@pytest.mark.parametrize("make", EVERY)
def test_it_asks_for_nothing_and_runs_nothing_but_its_own(make):
    tree = Tree(html(make()))
    for tag, attributes in tree.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "poster", "data"):
            if name in attributes:
                assert (attributes[name] or "").startswith(("#", "data:")), (tag, attributes)
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
    tags = [tag for tag, _ in tree.elements]
    assert tags.count("script") == 1
    assert not {"iframe", "object", "embed", "form", "base"} & set(tags)


def test_what_a_user_named_is_text_and_turns_nothing_round():
    page = html(specimens.hostile())
    assert "<script>alert(1)</script> \"'&]]>" in Tree(page).text
    assert "alert(1)</script>" not in page
    assert "größe 犬" in page
    assert "\u202e" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize("count", [1000, 5000])
def test_it_stays_small_whatever_the_number_of_rows_and_says_what_it_left_out(count: int):
    page = html(specimens.many(count, each=2))
    assert len(page.encode()) < MOST_BYTES
    assert "It was shortened to stay small" in page


def test_it_stays_small_whatever_the_length_of_names():
    long = "x" * 20_000
    found = [
        specimens.row((f"{long}{n}", long, *specimens.WAYS[1][2:]), n + 1, n, key=str(n)) for n in range(60)
    ]
    found += [{**specimens.failed(long, long, 1, long), "key": f"f{n}"} for n in range(60)]
    skipped = [{"backend": long, "reason": long, "mend": long}] * 60
    page = html(specimens.document(found, skipped=skipped, environment={str(n): long for n in range(300)}))
    assert len(page.encode()) < MOST_BYTES


def test_the_page_is_the_same_each_time():
    assert html(specimens.report()) == html(specimens.report())


def test_it_is_written_whole_or_not_at_all(tmp_path: Path):
    write_html(specimens.quiet(), tmp_path / "bench.html")
    assert (tmp_path / "bench.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    with pytest.raises(OutputFailed):
        write_html(specimens.quiet(), tmp_path / "nowhere" / "bench.html")


def test_without_jinja2_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(BackendMissing, match="jinja2") as caught:
        html(specimens.quiet())
    assert caught.value.next_command == "pip install 'vit-deploy[report]'"
