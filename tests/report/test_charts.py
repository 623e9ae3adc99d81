"""The helpers that charts are drawn with: scales, ticks, escaping, what is not finite."""

from __future__ import annotations

import itertools
import math
from xml.etree import ElementTree as ET

import pytest

from vit_deploy.report.charts import Limit, Mark, Series, histogram, line_chart, meter, swatch
from vit_deploy.report.figures import step_names
from vit_deploy.report.svg import Frame, Scale, decades, element, power_of_ten

FRAME = Frame(400, 200)
SVG = "{http://www.w3.org/2000/svg}"


def test_scales_map_their_ends_to_the_axis_and_stay_on_it():
    scale = Scale(1e-8, 1e-2, 0, 60, log=True)
    assert [scale(value) for value in (1e-8, 1e-5, 1e-2)] == pytest.approx([0, 30, 60])
    assert [scale(value) for value in (0, 1e-20, 1.0)] == pytest.approx([0, 0, 60])
    assert Scale(0, 10, 100, 0)(2.5) == 75


def test_ticks_are_powers_of_ten_or_round_numbers():
    assert Scale(1e-8, 1e-5, 0, 1, log=True).ticks() == [
        (1e-8, "10⁻⁸"), (1e-7, "10⁻⁷"), (1e-6, "10⁻⁶"), (1e-5, "10⁻⁵"),
    ]  # fmt: skip
    assert [label for _, label in Scale(1e-12, 1e6, 0, 1, log=True).ticks()] == [
        "10⁻¹²", "10⁻⁹", "10⁻⁶", "10⁻³", "1", "10³", "10⁶",
    ]  # fmt: skip
    assert [value for value, _ in Scale(0, 57, 0, 1).ticks()] == [0, 10, 20, 30, 40, 50]
    assert Scale(0, 0, 0, 1).ticks() == [(0, "0")]
    assert [power_of_ten(power) for power in (-1, 0, 2, 3)] == ["10⁻¹", "1", "100", "10³"]


def test_decades_hold_the_values():
    assert decades([3e-7, 2e-3]) == (1e-7, 1e-2)
    assert decades([5.0]) == (1.0, 100.0)
    assert decades([0.0, math.nan, math.inf]) == (0.1, 10.0)


def test_everything_written_is_escaped():
    assert element("text", class_='a"b', data_x="<&") == '<text class=\'a"b\' data-x="&lt;&amp;"/>'
    chart = line_chart(
        FRAME,
        '<label> "&',
        ["<a>", "b"],
        [Series("x", [1, 2], 0, ["<tip>", "&"])],
        y_title="<y>",
        mark=Mark(1, "<mark>"),
    )
    told = [node.text for node in ET.fromstring(chart).iter() if node.text]
    assert {"<a>", "<tip>", "&", "<y>", "<mark>"} <= set(told)


def points(chart: str, name: str) -> list[tuple[float, float]]:
    line = next(node for node in ET.fromstring(chart).iter(f"{SVG}polyline") if node.get("class") == name)
    return [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]


def test_a_line_has_a_point_for_each_value():
    chart = line_chart(FRAME, "c", ["a", "b", "c"], [Series("x", [1e-3, 1e-2, 0.1], 0)], y_title="y")
    (x0, y0), (x1, y1), (x2, y2) = points(chart, "line")
    assert x0 < x1 < x2
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 > y1 > y2
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)


def test_what_is_not_finite_stands_at_the_top_and_what_is_missing_nowhere():
    chart = line_chart(FRAME, "c", ["a", "b", "c"], [Series("x", [1e-3, None, math.nan], 0)], y_title="y")
    (_, low), (_, top) = points(chart, "line")
    assert top == FRAME.top + 6 < low


def test_the_band_ends_at_what_is_allowed():
    chart = line_chart(FRAME, "c", ["a", "b"], [Series("x", [1e-3, 1e-2], 0)], y_title="y", band=[1e-2, None])
    edge = points(chart, "band-edge")
    assert [y for _, y in edge] == [points(chart, "line")[1][1]] * 3
    assert edge[0][0] == FRAME.left
    assert edge[-1][0] == FRAME.width - FRAME.right


def test_a_mark_stays_inside_and_is_shortened_where_there_is_no_room():
    for place in range(3):
        chart = line_chart(
            Frame(330, 200),
            "c",
            ["a", "b", "c"],
            [Series("x", [1, 2, 3], 0)],
            y_title="y",
            mark=Mark(place, "x" * 60, "short"),
        )
        label = next(
            node for node in ET.fromstring(chart).iter(f"{SVG}text") if node.get("class") == "mark-label"
        )
        assert label.text == "short"
        assert 0 < float(label.get("x")) < 330


def test_bars_show_counts_and_those_beyond_the_last_limit_are_set_apart():
    chart = histogram(
        FRAME, "h", [-1, 0, 1, 2], [4, 0, 2], x_title="x", limits=[Limit(0.3, "p95"), Limit(1.0, "worst")]
    )
    bars = list(ET.fromstring(chart).iter(f"{SVG}rect"))
    assert [bar.get("class") for bar in bars] == ["bar", "bar beyond"]
    assert float(bars[0].get("height")) == pytest.approx(2 * float(bars[1].get("height")), abs=0.2)
    assert bars[0].find(f"{SVG}title").text == "4 between 0.1 and 1"


@pytest.mark.parametrize("style", [0, 1, 2, 3, 4, 5, "ref"])
def test_series_differ_in_their_markers(style: int | str):
    others = {
        swatch(other).partition("class=")[2].partition("/><")[2]
        for other in (*range(6), "ref")
        if other != style
    }
    assert ET.fromstring(swatch(style)) is not None
    assert swatch(style) not in others


def test_a_meter_is_full_beyond_the_limit():
    assert 'width="64"' in meter(0.1, beyond=True).partition("meter-all")[2]
    assert 'width="32"' in meter(0.5, beyond=False)
    assert "meter-bad" not in meter(0.5, beyond=False)


@pytest.mark.parametrize("depth", [1, 12, 24, 48])
@pytest.mark.parametrize("width", [330, 940])
def test_labels_of_blocks_do_not_meet(depth: int, width: int):
    inside = [f"blocks.{block}.{part}" for block in range(depth) for part in ("attn", "mlp")]
    taps = ["embed", *inside, "tokens", "embedding", "logits"]
    names = step_names(taps, Frame(width, 200))
    assert names[0] == "embed"
    assert names[-1] == "logits"
    step = Frame(width, 200).inner_width / len(taps)
    shown = [(place * step, len(name) * 6.4) for place, name in enumerate(names) if name]
    for (left, wide), (right, next_wide) in itertools.pairwise(shown):
        assert right - left > (wide + next_wide) / 2
