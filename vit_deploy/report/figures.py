"""The pictures of a parity report: drift by block, histograms of ratios, ranges by block."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from vit_deploy.parity.ranges import FP16_MAX, PLACES
from vit_deploy.report import words
from vit_deploy.report.charts import (
    LETTER,
    STYLES,
    Figure,
    Limit,
    Mark,
    Series,
    both,
    histogram,
    line_chart,
)
from vit_deploy.report.svg import Frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vit_deploy.report.document import ArtefactReport
    from vit_deploy.report.records import Histogram, Tap

_BLOCK = re.compile(r"blocks\.(\d+)(?:\.(attn|mlp))?")


def drift_figure(artefact: ArtefactReport) -> Figure | None:
    """The relative error from tap to tap beside eager's own, what is allowed, where it first diverges."""
    drift = artefact.drift
    if drift is None or not drift.readings:
        return None
    readings = drift.readings
    taps = [tap.tap for tap in readings]
    series = (
        Series(f"eager PyTorch, {artefact.dtype}", [tap.eager_error for tap in readings], "ref"),
        Series(artefact.name, [tap.error for tap in readings], 0, [_tip(tap) for tap in readings]),
    )
    band = _allowed(readings, artefact.limits.get("worst"))
    place = next((place for place, tap in enumerate(readings) if not tap.holds), None)
    mark = None if place is None else Mark(place, f"first beyond its limit: {taps[place]}", taps[place])

    def draw(frame: Frame, size: str) -> str:
        told = f"Relative error of {artefact.name} from tap to tap; {drift_sentence(readings)}"
        names = step_names(taps, frame)
        return line_chart(
            frame, told, names, series, y_title=_Y, x_title="block", band=band, mark=mark, class_=size
        )

    return Figure(*both(draw), legend=_legend(series), band=any(band))


_Y = "relative error (log scale)"


def overview_figure(artefacts: Sequence[ArtefactReport]) -> Figure | None:
    """The drift of all artefacts in one picture, beside eager's own at each precision.

    At most as many artefacts as can be told apart; those that failed come first.
    """
    drawn = [entry for entry in artefacts if entry.drift is not None and entry.drift.readings]
    drawn = sorted(drawn, key=lambda entry: entry.outcome != "failed")[:STYLES]
    if len(drawn) < 2:
        return None
    by_tap = {entry.name: {tap.tap: tap for tap in _readings(entry)} for entry in drawn}
    longest = max((_readings(entry) for entry in drawn), key=len)
    taps = [tap.tap for tap in longest]

    def values(entry: ArtefactReport, name: str) -> list[float | None]:
        found = by_tap[entry.name]
        return [getattr(found[tap], name) if tap in found else math.nan for tap in taps]

    firsts = {entry.dtype: entry for entry in reversed(drawn)}
    series = [
        Series(f"eager PyTorch, {name}", values(entry, "eager_error"), REFERENCES[place % len(REFERENCES)])
        for place, (name, entry) in enumerate(firsts.items())
    ]
    series += [Series(entry.name, values(entry, "error"), style) for style, entry in enumerate(drawn)]

    def draw(frame: Frame, size: str) -> str:
        told = f"Relative error from tap to tap of {', '.join(entry.name for entry in drawn)}"
        return line_chart(
            frame, told, step_names(taps, frame), series, y_title=_Y, x_title="block", class_=size
        )

    return Figure(*both(draw), legend=_legend(series))


def _readings(artefact: ArtefactReport) -> list[Tap]:
    return artefact.drift.readings if artefact.drift is not None else []


def _legend(series: Sequence[Series]) -> tuple[tuple[int | str, str], ...]:
    return tuple((entry.style, entry.name) for entry in reversed(series))


def drift_sentence(readings: Sequence[Tap]) -> str:
    """What the picture shows, for those who do not see it; nothing where it shows nothing."""
    if not readings:
        return ""
    first = next((tap for tap in readings if not tap.holds), None)
    last = readings[-1]
    own = words.scientific(last.eager_error)
    end = f"at {last.tap} it is {words.scientific(last.error)}, PyTorch’s own {own}"
    return f"{end}; {f'first beyond its limit at {first.tap}' if first else 'every tap is within its limit'}"


def _tip(tap: Tap) -> str:
    return f"{tap.tap}: {words.scientific(tap.error)}, {words.ratio(tap.ratio)} × PyTorch’s own"


def _allowed(readings: Sequence[Tap], limit: float | None) -> list[float | None]:
    """The largest error that holds at each tap: the limit times the yardstick, which is error over ratio."""
    if limit is None:
        return []
    return [
        limit * tap.error / tap.ratio
        if tap.error and tap.ratio
        else limit * tap.eager_error
        if tap.eager_error
        else None
        for tap in readings
    ]


def step_names(taps: Sequence[str], frame: Frame) -> list[str]:
    """Labels for the taps that fit: the first and the last, and blocks by number at even distances."""
    names = [""] * len(taps)
    if not taps:
        return names
    step = frame.inner_width / max(1, len(taps))
    blocks = [place for place, tap in enumerate(taps) if _BLOCK.fullmatch(tap) and not tap.endswith(".mlp")]
    wide = LETTER * len(str(len(blocks))) + 12
    apart = (blocks[1] - blocks[0]) * step if len(blocks) > 1 else step
    every = max(1, math.ceil(wide / apart))
    for number, place in enumerate(blocks):
        if number % every == 0:
            names[place] = _BLOCK.fullmatch(taps[place])[1]  # type: ignore[index]
    others = [place for place in range(len(taps)) if not _BLOCK.fullmatch(taps[place])]
    if others:
        # Of the names at either end one has room: the outermost.
        for place in {others[0], others[-1]}:
            names[place] = taps[place]
            reach = math.ceil((len(taps[place]) * LETTER / 2 + 14) / step)
            for near in range(max(0, place - reach), min(len(taps), place + reach + 1)):
                names[near] = names[near] if near == place else ""
    return names


def histogram_figures(artefact: ArtefactReport) -> list[tuple[str, Figure]]:
    """How the ratios of each output are spread, with the limits marked."""
    figures = []
    for name, found in artefact.evidence.histograms.items():
        edges = [edge for edge in found.edges if edge is not None]
        if len(edges) == len(found.edges) == len(found.counts) + 1 and any(found.counts):
            figures.append((name, _histogram(artefact, name, edges, found)))
    return figures


def _histogram(artefact: ArtefactReport, name: str, edges: Sequence[float], found: Histogram) -> Figure:
    limits = [
        Limit(math.log10(artefact.limits[key]), f"{told} {artefact.limits[key]:g}")
        for key, told in (("p95", "95 % ≤"), ("worst", "all ≤"))
        if artefact.limits.get(key)
    ]
    last = max(place for place, count in enumerate(found.counts) if count)
    told = (
        f"{sum(found.counts):,} ratios of {name}, the largest below {words.ratio(10 ** edges[last + 1])}; "
        f"limits {', '.join(limit.label for limit in limits) or 'none'}"
    )
    title = "error ÷ PyTorch’s own"

    def draw(width: float, size: str) -> str:
        frame = Frame(width, 190, left=44, right=10, bottom=36)
        return histogram(frame, told, edges, found.counts, x_title=title, limits=limits, class_=size)

    return Figure(draw(350, "half"), "")


def range_figure(artefact: ArtefactReport) -> Figure | None:
    """The largest magnitudes in each block, beside the end of fp16's range."""
    maxima = _maxima(artefact.range_watch)
    blocks = max((len(values) for values in maxima.values()), default=0)
    if blocks < 2:
        return None
    names = [f"blocks.{block}" for block in range(blocks)]
    series = [
        Series(
            told, values, style, [f"block {block}: {_magnitude(value)}" for block, value in enumerate(values)]
        )
        for style, (told, values) in enumerate(maxima.items())
    ]
    band: list[float | None] = [FP16_MAX] * blocks

    def draw(frame: Frame, size: str) -> str:
        told = f"Largest magnitudes by block of {', '.join(maxima)}; fp16 ends at {FP16_MAX:,.0f}"
        steps = step_names(names, frame)
        title = "largest magnitude (log scale)"
        return line_chart(frame, told, steps, series, y_title=title, x_title="block", band=band, class_=size)

    return Figure(*both(draw, 260), legend=_legend(series)[::-1], band=True)


def _maxima(range_watch: Mapping[str, Any] | None) -> dict[str, list[float | None]]:
    """The largest magnitudes by block of each kind of number that a graph in fp16 holds in fp16."""
    found = (range_watch or {}).get("maxima") or {}
    return {
        place.title.partition(" (")[0]: found[name]
        for name, place in PLACES.items()
        if place.in_fp16 and isinstance(found.get(name), list)
    }


def _magnitude(value: float | None) -> str:
    return "not finite" if value is None else f"{value:,.4g}"


REFERENCES = ("ref", "ref1", "ref2")
"""Styles of what the artefacts are compared with, one for each precision."""
