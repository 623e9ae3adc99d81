"""What charts are drawn with: elements of inline SVG, frames, scales and axes.

A chart is text for a page of HTML. Colours come from the page, by CSS classes, so that one chart serves
light and dark. Everything that is written into a chart is escaped here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from vit_deploy.report.words import superscript

if TYPE_CHECKING:
    from collections.abc import Sequence


def element(name: str, *children: str, **attributes: object) -> str:
    """One element; ``_`` in a name of an attribute is ``-`` and ``None`` leaves it out.

    Args:
        name: of the element.
        children: its content, markup already.
        attributes: their values, which are escaped. ``class_`` is ``class``.
    """
    told = "".join(
        f" {key.rstrip('_').replace('_', '-')}={quoteattr(_value(value))}"
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{told}>{''.join(children)}</{name}>" if children else f"<{name}{told}/>"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return str(value)


def text(x: float, y: float, content: str, **attributes: object) -> str:
    """A line of text, escaped."""
    return element("text", escape(content), x=x, y=y, **attributes)


def titled(name: str, title: str, **attributes: object) -> str:
    """An element with a title, which a browser shows when it is pointed at."""
    return element(name, element("title", escape(title)), **attributes)


@dataclass(frozen=True)
class Frame:
    """The size of a chart in CSS pixels, and the room around what is drawn."""

    width: float
    height: float
    left: float = 48
    right: float = 16
    top: float = 14
    bottom: float = 34

    @property
    def inner_width(self) -> float:
        """Of what is drawn."""
        return self.width - self.left - self.right


@dataclass(frozen=True)
class Scale:
    """Maps values to places along an axis, upwards or to the right."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; of one beyond the ends, the nearer end."""
        low, high, value = (self._linear(entry) for entry in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def _linear(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value

    def ticks(self, most: int = 7) -> list[tuple[float, str]]:
        """Values to mark, with their labels: powers of ten, or round numbers."""
        if self.log:
            first = math.ceil(self._linear(self.low) - 1e-9)
            last = math.floor(self._linear(self.high) + 1e-9)
            every = max(1, math.ceil((last - first + 1) / most))
            return [(10.0**power, power_of_ten(power)) for power in range(first, last + 1, every)]
        step = _round_step((self.high - self.low) / max(1, most - 1))
        places = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        return [(place * step, f"{place * step:g}") for place in places]


def power_of_ten(power: int) -> str:
    """``10⁻⁷``; 1, 10 and 100 as they are."""
    return f"{10**power}" if 0 <= power <= 2 else f"10{superscript(power)}"


def decades(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten around positive values, at least two decades."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if not positive:
        return 0.1, 10.0
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    return 10.0**low, 10.0 ** max(high, low + 2)


def _round_step(step: float) -> float:
    if step <= 0 or not math.isfinite(step):
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(nice * power for nice in (1, 2, 5, 10) if nice * power >= step * (1 - 1e-9))


def svg(frame: Frame, label: str, *children: str, class_: str = "") -> str:
    """A whole chart, with the name that a screen reader tells."""
    return element(
        "svg",
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {frame.width:g} {frame.height:g}",
        width=frame.width,
        height=frame.height,
        role="img",
        aria_label=label,
        class_=f"chart {class_}".strip(),
    )


def y_axis(frame: Frame, scale: Scale, title: str, ticks: Sequence[tuple[float, str]] | None = None) -> str:
    """Lines across at each tick, with labels on the left, and the axis' title above them."""
    parts = []
    for value, label in scale.ticks() if ticks is None else ticks:
        y = scale(value)
        parts.append(element("line", x1=frame.left, x2=frame.width - frame.right, y1=y, y2=y, class_="rule"))
        parts.append(text(frame.left - 7, y + 4, label, text_anchor="end"))
    return "".join(parts) + text(frame.left, frame.top - 4, title, class_="axis-title")


def vertical(frame: Frame, bounds: tuple[float, float], *, log: bool = False) -> Scale:
    """The scale of the y axis."""
    return Scale(*bounds, frame.height - frame.bottom, frame.top + 6, log)


def horizontal(frame: Frame, bounds: tuple[float, float], *, log: bool = False) -> Scale:
    """The scale of the x axis."""
    return Scale(*bounds, frame.left, frame.width - frame.right, log)


_MANTISSAS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))


def log_ticks(low: float, high: float, most: int = 7) -> list[tuple[float, str]]:
    """Round numbers between two positive ones, of which few lie close together on a log scale.

    Where the two are less than a factor of about three apart, the numbers are at even distances.
    """
    best: list[float] = []
    for mantissas in _MANTISSAS:
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        found = [mantissa * 10.0**power for power in powers for mantissa in mantissas]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) <= most:
            best = found
    if len(best) >= 3:
        return [(value, plain_number(value)) for value in best]
    ticks = Scale(low, high, 0, 1).ticks(most)
    return [(value, plain_number(value)) for value, _ in ticks if low <= value <= high and value > 0]


def plain_number(value: float) -> str:
    """``0.25``, ``1,500``: never in powers of ten."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    told = f"{value:,.{min(12, digits)}f}"
    return told.rstrip("0").rstrip(".") if "." in told else told


def x_axis(
    frame: Frame,
    scale: Scale,
    ticks: Sequence[tuple[float, str]],
    title: str,
    rules: Sequence[float] | None = None,
) -> str:
    """Labels below each tick, lines down at each or at ``rules``, and the axis' title below all."""
    base = frame.height - frame.bottom
    places = [scale(value) for value in ([value for value, _ in ticks] if rules is None else rules)]
    parts = [element("line", x1=x, x2=x, y1=frame.top, y2=base, class_="rule") for x in places]
    for value, label in ticks:
        x = scale(value)
        # Labels at the edges turn inwards, so that nothing is cut off.
        over, under = x + len(label) * 3.4 > frame.width, x - len(label) * 3.4 < 0
        parts.append(text(x, base + 15, label, text_anchor="end" if over else "start" if under else "middle"))
    middle = frame.left + frame.inner_width / 2
    return "".join(parts) + text(middle, frame.height - 3, title, text_anchor="middle", class_="axis-title")
