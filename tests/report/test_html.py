"""The page of HTML: what it says, that it asks for nothing, that nothing in it is markup by accident."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.report import specimens
from vit_deploy.errors import BackendMissing, OutputFailed
from vit_deploy.report.document import ParityReport, build_report
from vit_deploy.report.html import MOST_BYTES, html, write_html
from vit_deploy.report.thumbnails import thumbnail

VOID = {"meta", "link", "img", "br"}


class Tree(HTMLParser):
    """Elements in order, that every one is closed, and the text outside of script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(report: ParityReport) -> str:
    return html(report, specimens.pictures(specimens.samples()))


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree(page_of(specimens.report()))


def test_the_verdict_is_told_in_words(tree: Tree):
    assert "1 of 3 artefacts failed" in tree.text
    assert "Equal: it computes what the checkpoint computes." in tree.text
    assert "its error is 412 times PyTorch’s own rounding error; up to 4 times is allowed." in tree.text
    assert "Not checked: this artefact could not be run and compared here" in tree.text
    assert "tensorrt: no CUDA device; vit-deploy doctor" in tree.text


def test_everything_that_was_found_out_is_shown(tree: Tree):
    for told in (
        "The error comes in at blocks.7.attn, with the pass that fuses attention",
        "fuse attention from here on the error is there 412 × ✘ diverges",
        "How the place was found: 3 extra runs",
        "first beyond its limit: blocks.7.attn",
        "fused-attention: 11 of 12",
        "logits error at the worst 412 × ≤ 4 × ✘ broken",
        "2 of 7, and 1 near-tie; at least 65.2 % with 95 % confidence",
        "from run to run equal to the last bit",
        "linear layers 48 × fp32",
        "block 11: the residual stream",
        "PyTorch: tabby cat, 87.0 % artefact: tiger, 61.0 %",
        "Every input (8)",
        "packages, torch 2.13.0",
    ):
        assert told in tree.text, told


def test_what_differs_from_the_accepted_bundle_is_shown():
    text = Tree(page_of(specimens.report(against=True))).text
    assert "✘ fails onnx-fp16 : 11 of 12 attentions are fused" in text
    assert "torch 2.13.0 was 2.12.1" in text


def test_what_failed_comes_before_what_passed(tree: Tree):
    order = [attributes.get("class") for tag, attributes in tree.elements if tag == "section"]
    assert [name for name in order if name] == ["artefact failed", "artefact unverified", "artefact passed"]


@pytest.mark.parametrize(
    "make",
    [specimens.report, lambda: specimens.report(hostile=True, against=True), specimens.nothing_but_faults],
)
def test_it_asks_for_nothing_and_runs_nothing_but_its_own(make):
    tree = Tree(page_of(make()))
    for tag, attributes in tree.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "poster", "data"):
            if name in attributes:
                assert (attributes[name] or "").startswith(("#", "data:")), (tag, attributes)
    tags = [tag for tag, _ in tree.elements]
    assert tags.count("script") == 1
    assert not {"iframe", "object", "embed", "form", "base"} & set(tags)


def test_no_style_asks_for_anything():
    style = page_of(specimens.report()).partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_what_a_user_named_is_text():
    page = page_of(specimens.report(hostile=True))
    tree = Tree(page)
    assert "<script>alert(1)</script> \"'&]]> @everyone" in tree.text
    assert "alert(1)</script>" not in page
    assert "größe 犬" in tree.text


def test_pictures_and_charts_can_be_told_without_seeing_them(tree: Tree):
    images = [attributes for tag, attributes in tree.elements if tag == "img"]
    assert len(images) == 12
    assert images[0]["alt"] == "Input image-4"
    charts = [attributes for tag, attributes in tree.elements if tag == "svg"]
    assert len(charts) > 20
    for attributes in charts:
        assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
    labels = " ".join(attributes.get("aria-label") or "" for attributes in charts)
    assert "first beyond its limit at blocks.7.attn" in labels
    assert "ratios of logits, the largest below" in labels


def test_tables_have_headers(tree: Tree):
    headers = [attributes for tag, attributes in tree.elements if tag == "th"]
    assert headers
    assert all(attributes.get("scope") in ("row", "col") for attributes in headers)


def test_what_could_not_be_judged_has_no_empty_parts():
    found = build_report("b", specimens.judged()[2:], [], {})
    tree = Tree(html(found, {}))
    assert "Nothing could be verified here" in tree.text
    assert "Where it is worst" not in tree.text
    assert "What was compared" not in tree.text


def test_faults_without_figures_are_shown():
    tree = Tree(page_of(specimens.nothing_but_faults()))
    assert "tokens is missing" in tree.text
    assert "The error was not followed from block to block: why" in tree.text


def test_a_page_of_many_artefacts_stays_small_and_says_what_it_left_out():
    base = specimens.judged()
    drifts = [specimens.drift("x", 1.0, 15, depth=48).readings for _ in base]
    judged = [
        replace(
            entry, name=f"{entry.name}-{number}", drift=entry.drift and replace(entry.drift, readings=readings)
        )
        for number in range(8)
        for entry, readings in zip(base, drifts, strict=True)
    ]
    found = build_report("b", judged, specimens.samples(), specimens.ENVIRONMENT)
    page = page_of(found)
    assert len(page.encode()) < MOST_BYTES
    assert "the JSON report has every row" in Tree(page).text
    assert page.count('<section id="artefact-') == 24


def test_the_page_is_the_same_each_time():
    assert page_of(specimens.report()) == page_of(specimens.report())


def test_it_is_written_whole_or_not_at_all(tmp_path: Path):
    found = specimens.report()
    pictures = {sample.name: sample.picture for sample in specimens.samples()}
    write_html(found, pictures, tmp_path / "parity.html")
    text = (tmp_path / "parity.html").read_text(encoding="utf-8")
    assert text.rstrip().endswith("</html>")
    assert text.count("<img ") == 12
    with pytest.raises(OutputFailed):
        write_html(found, {}, tmp_path / "nowhere" / "parity.html")


def test_without_jinja2_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(BackendMissing, match="jinja2") as caught:
        html(specimens.report(), {})
    assert caught.value.next_command == "pip install 'vit-deploy[report]'"


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [
        ((224, 224, 3), "jpeg", (128, 128)),
        ((100, 400, 3), "jpeg", (128, 32)),
        ((28, 28, 1), "png", (28, 28)),
        ((28, 28), "png", (28, 28)),
        ((28, 28, 12), "png", (28, 28)),
        ((28, 28, 2), "png", (28, 28)),
    ],
)
def test_pictures_are_made_small(shape: tuple[int, ...], kind: str, size: tuple[int, int]):
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = thumbnail(picture)
    assert re.match(f"data:image/{kind};base64,[A-Za-z0-9+/]+=*$", found.uri)
    assert (found.width, found.height) == size
    assert len(found.uri) < 20_000


@pytest.mark.parametrize(
    "picture", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros(4)]
)
def test_what_is_no_picture_has_none(picture):
    assert thumbnail(picture) is None
