"""The page in a real browser, without a network: it loads, complains of nothing, asks for nothing, and fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.report import browser
from tests.report.bench import specimens
from tests.report.test_browser import BOXES, CONTRAST, CUT, OUTSIDE
from vit_deploy.report.bench.html import write_html

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.report.browser import Page

PAGES = {
    "plain": specimens.report,
    "unsound": specimens.unsound,
    "quiet": specimens.quiet,
    "nothing": specimens.nothing,
    "hostile": specimens.hostile,
}
WIDTHS = (360, 1280)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = browser.find()
    if program is None:
        pytest.skip(f"no browser is installed: {browser.INSTALL}")
    with browser.opened(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module", params=PAGES)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("page") / f"{request.param} größe #1.html"
    write_html(PAGES[request.param](), target)
    return target


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("page") / "bench.html"
    write_html(specimens.report(), target)
    return target


@pytest.mark.parametrize("width", WIDTHS)
def test_it_complains_of_nothing_asks_for_nothing_and_fits(page: Page, path: Path, width: int):
    for dark in (False, True):
        page.show(width, dark=dark)
        page.goto(path)
        assert page.evaluate("document.querySelector('h1').innerText.length") > 5
        assert page.complaints == []
        assert page.requests[0] == path.as_uri()
        assert all(address.startswith("data:image/") for address in page.requests[1:])
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(CONTRAST) == []  # opens every fold, too
        assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(OUTSIDE) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_one_of_the_two_sizes_of_each_chart_is_shown_and_no_label_is_cut_off(
    page: Page, plain: Path, width: int
):
    page.show(width)
    page.goto(plain)
    page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    boxes = page.evaluate(BOXES)
    shown = [box for box in boxes if not box[0]]
    assert len(boxes) == 2 * len(shown)
    # Two distributions, throughput, frontier, cold start, memory, two courses over time.
    assert len(shown) == 8
    assert all(wide > 250 and high > 100 and labels for _, wide, high, labels in shown)
    assert page.evaluate(CUT) == []


def test_dark_and_light_are_two_pictures(page: Page, plain: Path):
    colours = []
    for dark in (False, True):
        page.show(1280, dark=dark)
        page.goto(plain)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] == "rgb(255, 255, 255)"
    assert sum(map(int, colours[1].removeprefix("rgb(").removesuffix(")").split(","))) < 100


def test_a_table_can_be_sorted_and_what_failed_stays_in_it(page: Page, plain: Path):
    page.show(1280)
    page.goto(plain)
    script = """
    (() => {
      const table = document.querySelector("table.results");
      const heading = [...table.querySelectorAll("thead button")].find((node) => node.innerText === "Memory");
      heading.click();
      return [...table.tBodies[0].rows].map((row) => row.cells[0].innerText.split(/\\s/)[0]);
    })()
    """
    names = page.evaluate(script)
    assert len(names) == 6
    whole = [name for name in names if name != "tensorrt-fp16"]
    assert whole == ["onnx-int8", "openvino-bf16", "onnx-fp32", "openvino-fp32", "pytorch-fp32"]
    assert page.complaints == []


def test_it_is_read_without_javascript(page: Page, plain: Path):
    page.show(1280)
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.goto(plain)
        text = page.evaluate("document.body.innerText")
    finally:
        page.send("Emulation.setScriptExecutionDisabled", value=False)
    assert "onnx-int8 on onnxruntime is fastest, but never verified" in text
    assert "the worker died of SIGSEGV" in text


def test_300_rows_of_10_000_samples_are_one_page_below_a_megabyte(page: Page, tmp_path: Path):
    report = specimens.many()
    assert sum(len(row.samples_ns) for row in report.rows) == 3_000_000
    path = tmp_path / "many.html"
    write_html(report, path)
    assert path.stat().st_size < 1_000_000
    for width in WIDTHS:
        page.show(width)
        page.goto(path)
        assert page.complaints == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert "variant-299" in page.evaluate("document.body.innerText")
