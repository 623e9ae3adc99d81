"""The page in a real browser, without a network: it loads, complains of nothing, asks for nothing, and fits."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.report import browser, specimens
from vit_deploy.report.html import write_html

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.report.browser import Page

PAGES = {
    "plain": specimens.report,
    "hostile": lambda: specimens.report(hostile=True, against=True),
    "faults": specimens.nothing_but_faults,
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
    write_html(PAGES[request.param](), specimens.pictures(specimens.samples()), target)
    return target


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("page") / "parity.html"
    write_html(specimens.report(), specimens.pictures(specimens.samples()), target)
    return target


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_loads_from_a_file_complains_of_nothing_and_asks_for_nothing(
    page: Page, path: Path, width: int, dark: bool
):
    page.show(width, dark=dark)
    page.goto(path)
    assert page.evaluate("document.readyState") == "complete"
    assert page.evaluate("document.querySelector('h1').innerText.length") > 5
    assert page.complaints == []
    assert page.requests[0] == path.as_uri()
    assert all(address.startswith("data:image/") for address in page.requests[1:])
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert struct.unpack(">II", page.screenshot()[16:24])[0] == width


OUTSIDE = """
[...document.body.querySelectorAll("*")].filter((node) => {
  const box = node.getBoundingClientRect();
  const scrolls = node.closest(".scroll, svg, .skip, .quiet, thead, details:not([open])");
  return !scrolls && box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((node) => `${node.tagName} ${node.className} ${node.textContent.slice(0, 40)}`)
"""


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_stands_beside_the_page(page: Page, path: Path, width: int):
    page.show(width)
    page.goto(path)
    assert page.evaluate(OUTSIDE) == []


BOXES = """
[...document.querySelectorAll("svg[role=img]")].map((node) => {
  const box = node.getBoundingClientRect();
  const hidden = getComputedStyle(node).display === "none";
  return [hidden, box.width, box.height, node.querySelectorAll("text").length];
})
"""


@pytest.mark.parametrize("width", WIDTHS)
def test_one_of_the_two_sizes_of_each_chart_is_shown(page: Page, plain: Path, width: int):
    page.show(width)
    page.goto(plain)
    boxes = page.evaluate(BOXES)
    shown = [box for box in boxes if not box[0]]
    assert len(shown) == 9  # an overview; for two artefacts drift, two histograms, ranges
    assert len(boxes) == 14  # histograms have one size
    assert all(wide > 250 and high > 100 and labels for _, wide, high, labels in shown)


CUT = """
[...document.querySelectorAll("svg[role=img]")].filter((node) => getComputedStyle(node).display !== "none")
  .flatMap((chart) => [...chart.querySelectorAll("text")].filter((label) => {
    const box = label.getBoundingClientRect(), around = chart.getBoundingClientRect();
    return box.left < around.left - 1 || box.right > around.right + 1
      || box.top < around.top - 2 || box.bottom > around.bottom + 2;
  }).map((label) => label.textContent))
"""


@pytest.mark.parametrize("width", WIDTHS)
def test_no_label_of_a_chart_is_cut_off(page: Page, plain: Path, width: int):
    page.show(width)
    page.goto(plain)
    assert page.evaluate(CUT) == []


CONTRAST = """
(() => {
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[0-9.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = new Set();
  document.querySelectorAll("details").forEach((node) => { node.open = true; });
  for (const node of document.body.querySelectorAll("*")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.closest("script, style, title") || !node.getBoundingClientRect().width) continue;
    const style = getComputedStyle(node);
    const ink = luminance(parse(node.closest("svg") ? style.fill : style.color));
    const paper = luminance(behind(node));
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    const name = node.className.baseVal ?? node.className;
    if (ratio < 4.5) found.add(`${node.tagName} ${name} ${ratio.toFixed(2)}`);
  }
  return [...found];
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(page: Page, path: Path, dark: bool):
    page.show(1280, dark=dark)
    page.goto(path)
    assert page.evaluate(CONTRAST) == []


def test_dark_and_light_are_two_pictures(page: Page, plain: Path):
    page.show(1280, dark=False)
    page.goto(plain)
    light, white = page.screenshot(), page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.show(1280, dark=True)
    dark, black = page.screenshot(), page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    assert white == "rgb(255, 255, 255)"
    assert sum(map(int, black.removeprefix("rgb(").removesuffix(")").split(","))) < 100


def test_a_table_can_be_sorted(page: Page, plain: Path):
    page.show(1280)
    page.goto(plain)
    script = """
    (() => {
      const table = [...document.querySelectorAll("table.sortable")].at(-1);
      table.closest("details").open = true;
      const button = table.querySelectorAll("thead button")[2];
      const column = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[2].dataset.value));
      button.click(); const up = column(); button.click();
      return [up, column(), table.querySelector("[aria-sort]").getAttribute("aria-sort")];
    })()
    """
    up, down, state = page.evaluate(script)
    assert up == sorted(up) == down[::-1]
    assert len(set(up)) > 2
    assert state == "descending"
    assert page.complaints == []


def test_it_is_read_without_javascript(page: Page, plain: Path):
    page.show(1280)
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.goto(plain)
        text = page.evaluate("document.body.innerText")
    finally:
        page.send("Emulation.setScriptExecutionDisabled", value=False)
    assert "1 of 3 artefacts failed" in text
    assert "The error comes in at blocks.7.attn" in text


def test_it_is_printed_with_its_details_open_and_nothing_cut(page: Page, plain: Path):
    page.show(1280, media="print")
    page.goto(plain)
    shown = "[...document.querySelectorAll('details table')].map((node) => node.getBoundingClientRect().height)"
    assert all(height > 40 for height in page.evaluate(shown))
    assert page.pdf().startswith(b"%PDF-")
