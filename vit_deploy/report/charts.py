"""Charts: lines over named steps, histograms, meters.

Series differ in dash and marker as well as in colour (CSS classes ``s0`` … ``s5``; ``sref``, ``sref1`` and
``sref2`` for what the others are compared with), so that they can be told apart in grey.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vit_deploy.report.svg import (
    Frame,
    Scale,
    decades,
    element,
    horizontal,
    power_of_ten,
    svg,
    text,
    titled,
    vertical,
    y_axis,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STYLES = 6
"""How many series can be told apart."""

LETTER = 6.4
"""About how wide a letter of an axis is, in CSS pixels."""


@dataclass(frozen=True)
class Figure:
    """One picture at two widths, of which a page shows the one that fits.

    Attributes:
        wide: for screens and paper.
        narrow: for phones.
        legend: each series with its style.
        band: whether a band of what is allowed is drawn.
        left_out: how many series there are beyond those that can be told apart.
    """

    wide: str
    narrow: str
    legend: tuple[tuple[int | str, str], ...] = ()
    band: bool = False
    left_out: int = 0


def both(draw: Callable[[Frame, str], str], height: float = 310) -> tuple[str, str]:
    """What ``draw`` makes of the frame for screens and of that for phones, with the CSS class of each."""
    narrow = Frame(330, height * 0.8, left=42, right=8, bottom=38)
    return draw(Frame(940, height, left=50, bottom=38), "wide"), draw(narrow, "narrow")


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: shown in the legend.
        values: one for each step; ``None`` is not finite and drawn at the top edge, NaN is not drawn.
        style: a number below :data:`STYLES`, or ``ref``, ``ref1``, ``ref2`` for what the others are
            compared with.
        tips: what is shown when a point is pointed at, one for each value.
    """

    name: str
    values: Sequence[float | None]
    style: int | str
    tips: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Mark:
    """A step that is pointed out, by its place, with a label, and one for where there is little room."""

    place: int
    label: str
    short: str = ""


def line_chart(
    frame: Frame,
    label: str,
    steps: Sequence[str],
    series: Sequence[Series],
    *,
    y_title: str,
    x_title: str = "",
    band: Sequence[float | None] = (),
    mark: Mark | None = None,
    class_: str = "",
) -> str:
    """Lines over named steps, on a log scale, with what is allowed as a band below its upper edge.

    Args:
        frame: its size.
        label: what a screen reader tells of it.
        steps: the names along the x axis; an empty one is not shown.
        series: the lines.
        y_title: what the y axis shows.
        x_title: what the steps are.
        band: the most that is allowed at each step.
        mark: a step that is pointed out.
        class_: CSS classes of the whole.
    """
    shown = [value for entry in series for value in entry.values if value]
    scale = vertical(frame, decades([*shown, *(value for value in band if value)]), log=True)
    x = horizontal(frame, (-0.35, max(len(steps) - 0.65, 0.65)))
    parts = [y_axis(frame, scale, y_title)]
    if band:
        parts.append(_band(frame, x, scale, band))
    parts.append(_step_labels(frame, x, steps, x_title))
    if mark is not None:
        parts.append(_marked(frame, x, mark))
    parts += [_line(frame, x, scale, entry) for entry in series]
    return svg(frame, label, *parts, class_=class_)


def _band(frame: Frame, x: Scale, y: Scale, allowed: Sequence[float | None]) -> str:
    points = [(x(place), y(value)) for place, value in enumerate(allowed) if value]
    if not points:
        return ""
    left, right, base = frame.left, frame.width - frame.right, frame.height - frame.bottom
    edge = [(left, points[0][1]), *points, (right, points[-1][1])]
    area = " ".join(f"{px:.1f},{py:.1f}" for px, py in [(left, base), *edge, (right, base)])
    upper = " ".join(f"{px:.1f},{py:.1f}" for px, py in edge)
    return element("polygon", points=area, class_="band") + element(
        "polyline", points=upper, class_="band-edge"
    )


def _step_labels(frame: Frame, x: Scale, steps: Sequence[str], title: str) -> str:
    y = frame.height - frame.bottom + 16
    shown = [(x(place), name) for place, name in enumerate(steps) if name]
    labels = [text(at, y, name, text_anchor=_anchor(frame, at, name)) for at, name in shown]
    middle = frame.left + frame.inner_width / 2
    return "".join(labels) + text(middle, frame.height - 3, title, text_anchor="middle", class_="axis-title")


def _anchor(frame: Frame, place: float, name: str) -> str:
    """Names at the edges turn inwards, so that nothing is cut off."""
    half = len(name) * LETTER / 2
    if place + half > frame.width:
        return "end"
    return "start" if place - half < 0 else "middle"


def _marked(frame: Frame, x: Scale, mark: Mark) -> str:
    place = x(mark.place)
    left, right = place - 6, frame.width - place - 6
    fits = max(left, right) >= len(mark.label) * LETTER * 1.12
    label = mark.label if fits else mark.short or mark.label
    late = left > right
    return element(
        "line", x1=place, x2=place, y1=frame.top, y2=frame.height - frame.bottom, class_="mark"
    ) + text(
        place + (-6 if late else 6),
        frame.top + 14,
        label,
        class_="mark-label",
        text_anchor="end" if late else None,
    )


def _line(frame: Frame, x: Scale, y: Scale, series: Series) -> str:
    """The line with a marker at each value; what is not finite stands at the top edge."""
    # A value of 0 has no logarithm: it stands at the lower edge.
    tips = series.tips or [""] * len(series.values)
    places = [
        (x(place), frame.top + 6 if value is None else y(value), value, tip)
        for place, (value, tip) in enumerate(zip(series.values, tips, strict=True))
        if value is None or not math.isnan(value)
    ]
    points = " ".join(f"{px:.1f},{py:.1f}" for px, py, *_ in places)
    marks = [marker(series.style, px, py, tip, finite=value is not None) for px, py, value, tip in places]
    return element("g", element("polyline", points=points, class_="line"), *marks, class_=f"s{series.style}")


def _circle(x: float, y: float) -> str:
    return f"M{x - 3:.1f} {y:.1f}a3 3 0 1 0 6 0a3 3 0 1 0-6 0z"


def _polygon(*corners: tuple[float, float]) -> Callable[[float, float], str]:
    def draw(x: float, y: float) -> str:
        return "M" + "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in corners) + "z"

    return draw


_CROSS = _polygon((-4, -4), (0, -1), (4, -4), (1, 0), (4, 4), (0, 1), (-4, 4), (-1, 0))

_SHAPES: tuple[Callable[[float, float], str], ...] = (
    _circle,
    _polygon((-3, -3), (3, -3), (3, 3), (-3, 3)),
    _polygon((0, -4), (4, 3), (-4, 3)),
    _polygon((0, -4), (4, 0), (0, 4), (-4, 0)),
    _polygon((0, 4), (4, -3), (-4, -3)),
    _polygon((-4, -1.5), (4, -1.5), (4, 1.5), (-4, 1.5)),
)


def marker(style: int | str, x: float, y: float, tip: str, *, finite: bool = True) -> str:
    """What stands at a point of a series, with what is shown when it is pointed at."""
    draw = _CROSS if not finite else _SHAPES[style % STYLES] if isinstance(style, int) else None
    if draw is None:
        return titled("circle", tip, cx=x, cy=y, r=2, class_="dot") if tip else ""
    shape = draw(x, y)
    return titled("path", tip, d=shape, class_="dot") if tip else element("path", d=shape, class_="dot")


def swatch(style: int | str) -> str:
    """The sample of a line that stands in a legend."""
    line = element("line", x1=1.0, x2=27.0, y1=6.0, y2=6.0, class_="line")
    return element(
        "svg",
        element("g", line, marker(style, 14, 6, ""), class_=f"s{style}"),
        viewBox="0 0 28 12",
        width=28,
        height=12,
        aria_hidden="true",
        class_="swatch",
    )


@dataclass(frozen=True)
class Limit:
    """A value on the x axis that is pointed out."""

    value: float
    label: str


def histogram(
    frame: Frame,
    label: str,
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    x_title: str,
    limits: Sequence[Limit] = (),
    class_: str = "",
) -> str:
    """Bars between edges that are powers of ten, with limits as lines; what is beyond the last is hatched.

    Args:
        frame: its size.
        label: what a screen reader tells of it.
        edges: the logarithm to base ten of each edge, rising, one more than there are counts.
        counts: how many lie between one edge and the next.
        x_title: what the x axis shows.
        limits: lines, whose values are logarithms as well.
        class_: CSS classes of the whole.
    """
    x = horizontal(frame, _reach(frame, edges, limits))
    y = Scale(0, max([1, *counts]), frame.height - frame.bottom, frame.top + 22)  # room for the labels
    beyond = max((limit.value for limit in limits), default=math.inf)
    base = frame.height - frame.bottom
    parts = [y_axis(frame, y, "count")]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            left, top = x(low), min(y(count), base - 1.5)
            tip = f"{count:,} between {10**low:.3g} and {10**high:.3g}"
            kind = "bar beyond" if low >= beyond else "bar"
            parts.append(
                titled(
                    "rect",
                    tip,
                    x=left,
                    y=top,
                    width=max(1.0, x(high) - left - 1),
                    height=base - top,
                    class_=kind,
                )
            )
    parts.append(element("line", x1=frame.left, x2=frame.width - frame.right, y1=base, y2=base, class_="axis"))
    parts += [_limit_line(frame, x, limit, last=limit is limits[-1]) for limit in limits]
    parts.append(_power_labels(frame, x))
    parts.append(
        text(frame.width - frame.right, frame.height - 3, x_title, text_anchor="end", class_="axis-title")
    )
    return svg(frame, label, *parts, class_=class_)


def _reach(frame: Frame, edges: Sequence[float], limits: Sequence[Limit]) -> tuple[float, float]:
    """What the x axis spans: all edges and limits, with room for a label before the first limit."""
    marks = [limit.value for limit in limits]
    low, high = min([*edges, *marks]) - 0.15, max([*edges, *marks]) + 0.15
    if limits:
        wide = len(limits[0].label) * LETTER * 1.12 + 8
        low = min(low, marks[0] - (high - marks[0]) * wide / max(1.0, frame.inner_width - wide))
    return low, high


def _power_labels(frame: Frame, x: Scale) -> str:
    low, high = math.ceil(x.low), math.floor(x.high)
    every = max(1, math.ceil((high - low + 1) / max(1, int(frame.inner_width / 44))))
    y = frame.height - frame.bottom + 16
    return "".join(
        text(x(power), y, power_of_ten(power), text_anchor="middle") for power in range(low, high + 1, every)
    )


def _limit_line(frame: Frame, x: Scale, limit: Limit, *, last: bool) -> str:
    """The last label stands to the right of its line, the others to the left: the lines may be close."""
    place, base = x(limit.value), frame.height - frame.bottom
    wide = len(limit.label) * LETTER * 1.12
    before = place - wide > frame.left and (not last or place + wide > frame.width)
    return element("line", x1=place, x2=place, y1=frame.top, y2=base, class_="mark") + text(
        place + (-5 if before else 5),
        frame.top + 12,
        limit.label,
        class_="mark-label",
        text_anchor="end" if before else None,
    )


def meter(share: float | None, *, beyond: bool) -> str:
    """A short bar that shows how much of what is allowed is used, full where it is more than that."""
    used = 1.0 if share is None or beyond else min(1.0, max(0.03, share))
    bar = element("rect", x=0, y=0, width=64, height=6, rx=3, class_="meter-all")
    fill = element(
        "rect", x=0, y=0, width=64 * used, height=6, rx=3, class_="meter-bad" if beyond else "meter-good"
    )
    return element("svg", bar, fill, viewBox="0 0 64 6", width=64, height=6, aria_hidden="true", class_="meter")
