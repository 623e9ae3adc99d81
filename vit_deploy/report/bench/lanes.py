"""Charts of one lane per row, on one common scale: distributions, samples over time, bars.

A lane has its name above what is drawn, so that long names have room on a phone as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.report.charts import LETTER
from vit_deploy.report.svg import Frame, Scale, element, horizontal, log_ticks, svg, text, titled, x_axis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDE, NARROW = 940.0, 330.0
_NAME_HEIGHT = 20.0
_GAP = 12.0


@dataclass(frozen=True)
class Place:
    """Where a lane is drawn: the common scale along x, and its own edges along y."""

    x: Scale
    top: float
    base: float
    narrow: bool


@dataclass(frozen=True)
class Lane:
    """One row of a chart.

    Attributes:
        name: stands above it on the left.
        note: its figures, above it on the right; left out where there is no room for them.
        draw: gives the markup of the lane itself.
        style: the CSS class suffix of its colour.
    """

    name: str
    note: str
    draw: Callable[[Place], str]
    style: int | str = 0


@dataclass(frozen=True)
class Axis:
    """What all lanes have in common along x.

    Attributes:
        low: its lower end.
        high: its upper end.
        title: what it shows.
        log: whether it is logarithmic.
        ticks: what is written below it; round numbers unless given.
        rules: where lines go down through all lanes; at the ticks unless given.
        room: right of the lanes, in CSS pixels.
    """

    low: float
    high: float
    title: str
    log: bool = False
    ticks: Sequence[tuple[float, str]] | None = None
    rules: Sequence[float] | None = None
    room: float = 10.0

    def marks(self, most: int) -> Sequence[tuple[float, str]]:
        """What is written below the axis, of which a phone has room for less."""
        if self.ticks is not None:
            every = -(-len(self.ticks) // (2 * most))
            return self.ticks[:: max(1, every)]
        scale = Scale(self.low, self.high, 0, 1)
        return log_ticks(self.low, self.high, most) if self.log else scale.ticks(most)


def lane_chart(label: str, lanes: Sequence[Lane], axis: Axis, height: float) -> tuple[str, str]:
    """The lanes below each other, for a wide screen and for a narrow one.

    Args:
        label: what a screen reader tells of the chart.
        lanes: from top to bottom.
        axis: the scale along x.
        height: of a lane without its name, in CSS pixels.
    """
    return _chart(label, lanes, axis, height, narrow=False), _chart(label, lanes, axis, height, narrow=True)


def _chart(label: str, lanes: Sequence[Lane], axis: Axis, height: float, *, narrow: bool) -> str:
    step = _NAME_HEIGHT + height + _GAP
    frame = Frame(NARROW if narrow else WIDE, 4 + step * len(lanes) + 36, 4, axis.room, 4, 36)
    x = horizontal(frame, (axis.low, axis.high), log=axis.log)
    parts = [x_axis(frame, x, axis.marks(5 if narrow else 9), axis.title, axis.rules)]
    for number, lane in enumerate(lanes):
        top = frame.top + number * step
        place = Place(x, top + _NAME_HEIGHT, top + _NAME_HEIGHT + height, narrow)
        parts.append(_names(frame, lane, top + 13))
        parts.append(element("g", lane.draw(place), class_=f"s{lane.style}"))
    return svg(frame, label, *parts, class_="narrow" if narrow else "wide")


def _names(frame: Frame, lane: Lane, y: float) -> str:
    """The name and, where it fits beside it, the note; a long name is cut."""
    room = int((frame.width - frame.left - 10) / (LETTER * 1.08))
    name = lane.name if len(lane.name) <= room else f"{lane.name[: room - 1]}…"
    parts = text(frame.left, y, name, class_="lane-name")
    if lane.note and len(name) + len(lane.note) + 2 <= room:
        parts += text(frame.width - 10, y, lane.note, text_anchor="end")
    return parts


def bar(place: Place, low: float, high: float, tip: str, class_: str = "bar") -> str:
    """A bar from one value to another, at least as wide as can be seen."""
    left, right = place.x(low), place.x(high)
    return titled(
        "rect",
        tip,
        x=left,
        y=place.top,
        width=max(1.0, right - left - (1 if right - left > 3 else 0)),
        height=place.base - place.top,
        class_=class_,
    )
