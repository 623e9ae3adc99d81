"""The table of what low precision gains: the claims with their goals, then every row of every group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.peers.ratios import claims_of
from benchmarks.peers.table import DASH, notes, number, render_groups

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKS = "<!-- precision: start; written by `make precision` -->", "<!-- precision: end -->"
"""Between these stands the table of the guide."""


def render_precision(document: dict[str, Any]) -> str:
    """``precision.md``, from ``precision.json``."""
    told = document["environment"]
    lines = [
        "# What low precision gains",
        "",
        f"On {told['cpu']}, {document['threads']} threads; the rows of a group took turns in one run. A "
        "ratio is how many times faster ours is, with its 95 % interval; times are medians in milliseconds.",
        "",
        *_stale(document),
        "| | model | batch | ratio | must | aim | | ours | theirs |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | --- | --- |",
    ]
    for group in document["groups"]:
        titles = {row["tool"]: row for row in group["rows"]}
        lines += [_claim(entry, group, titles) for entry in claims_of(group)]
    return "\n".join([*lines, "", *render_groups(document), *notes(document), ""])


def render_guide(document: Mapping[str, Any]) -> str:
    """For the guide: what each of ours takes, and how many times faster than eager in fp32 that is."""
    told, groups = document["environment"], document["groups"]
    heads = [f"{group['title']}, batch {group['batch_size']}" for group in groups]
    lines = [
        f"Median milliseconds on {told['cpu']}, {document['threads']} threads, and how many times faster than "
        "eager in fp32, with its 95 % interval (`make precision`; every row, other tools' too, is in "
        "`benchmarks/results/`):",
        "",
        f"| | {' | '.join(heads)} |",
        f"| --- |{' ---: |' * len(heads)}",
    ]
    ours = list(dict.fromkeys(row["tool"] for group in groups for row in group["rows"] if row["ours"]))
    for tool in ours:
        rows = [next((row for row in group["rows"] if row["tool"] == tool), None) for group in groups]
        title = next(row["title"] for row in rows if row is not None).replace("**vit-deploy** ", "")
        lines.append(f"| {title} | {' | '.join(map(_gain, rows))} |")
    return "\n".join(lines)


def _gain(row: Mapping[str, Any] | None) -> str:
    if row is None or not row.get("ok"):
        return DASH
    bounds = row["ratio_interval"]
    if not bounds or bounds[0] == bounds[1]:
        return number(row["p50_ms"])
    low, high = (f"{1 / end:.2f}" for end in reversed(bounds))
    return f"{number(row['p50_ms'])} · **{1 / row['ratio']:.2f} ×** ({low}–{high})"


def _stale(document: Mapping[str, Any]) -> list[str]:
    stale = document.get("stale", ())
    return [f"**Our artefacts of {', '.join(stale)} were made by earlier source.**", ""] if stale else []


def _claim(entry: Mapping[str, Any], group: Mapping[str, Any], rows: Mapping[str, Any]) -> str:
    goals = [DASH if entry[name] is None else f"{entry[name]:.2f}" for name in ("must", "aim")]
    head = [entry["title"], group["title"], str(entry["batch_size"])]
    if entry["ratio"] is None:
        return f"| {' | '.join([*head, DASH, *goals, entry['why_not'], '', ''])} |"
    bounds = entry["ratio_interval"]
    ratio = f"{entry['ratio']:.3f}" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")
    sides = [
        f"{rows[entry[side]]['title']}: {number(rows[entry[side]]['p50_ms'])}" for side in ("ours", "theirs")
    ]
    return f"| {' | '.join([*head, ratio, *goals, entry['verdict'], *sides])} |"
