"""The tables: a short one for the README, between two comments, and a whole one beside the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.peers.recipe import PreparationFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

START, END = "<!-- peers: start; written by `make peers` -->", "<!-- peers: end -->"
DASH = "–"


def number(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def interval(row: dict[str, Any], figure: str, limits: str) -> str:
    """A figure with its 95 % interval, or a dash."""
    if not row.get("ok") or row.get(figure) is None:
        return DASH
    bounds = row.get(limits)
    return number(row[figure]) + (f" ({number(bounds[0])}–{number(bounds[1])})" if bounds else "")


def leaders(rows: Sequence[dict[str, Any]]) -> set[str]:
    """The tools that none is proven faster than, among those that compute in fp32."""
    rivals = [row for row in rows if row.get("ok") and row["arithmetic"].startswith("fp32")]
    rivals = [row for row in rivals if row.get("p50_interval_ms")]
    if not rivals:
        return set()
    bound = min(row["p50_interval_ms"][1] for row in rivals)
    return {row["tool"] for row in rivals if row["p50_interval_ms"][0] <= bound}


def render_short(document: dict[str, Any]) -> str:
    """One table for each batch size: a line for each tool, a column for each model."""
    parts = [_short(document, size) for size in document["batch_sizes"]]
    return "\n\n".join([_heading(document), *parts, *notes(document)])


def _heading(document: dict[str, Any]) -> str:
    told = document["environment"]
    threads = document["threads"]
    return (
        f"Median milliseconds of one inference with its 95 % interval, on {told['cpu']}, {threads} "
        f"thread{'s' if threads > 1 else ''}; the tools of a column took turns in one run{_split(document)}. "
        "**Bold**: no fp32 row is proven faster."
    )


def _split(document: dict[str, Any]) -> str:
    """Which columns took more than one run."""
    split = dict.fromkeys(group["title"] for group in document["groups"] if len(group["runs"]) > 1)
    return f" (of {', '.join(split)} in more, for lack of memory, each with eager)" if split else ""


def _short(document: dict[str, Any], batch_size: int) -> str:
    groups = [group for group in document["groups"] if group["batch_size"] == batch_size]
    columns = [{row["tool"]: row for row in group["rows"]} for group in groups]
    titles = [group["title"] for group in groups]
    first = [leaders(group["rows"]) for group in groups]
    tools = dict.fromkeys(tool for column in columns for tool in column)
    lines = [
        f"| batch {batch_size} | computes in | {' | '.join(titles)} |",
        f"| --- | --- |{' ---: |' * len(titles)}",
    ]
    for tool in tools:
        rows = [column.get(tool, {}) for column in columns]
        title = next(row["title"] for row in rows if row)
        kinds = dict.fromkeys(row["arithmetic"] for row in rows if row.get("arithmetic"))
        cells = [_cell(row, bold=tool in ahead) for row, ahead in zip(rows, first, strict=True)]
        lines.append(f"| {title} | {', '.join(kinds) or DASH} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any], *, bold: bool) -> str:
    if row and not row.get("ok"):
        return "failed"
    text = interval(row, "p50_ms", "p50_interval_ms")
    return f"**{text}**" if bold else text


def notes(document: dict[str, Any]) -> list[str]:
    """What there is to say of the models, of what is not measured, and of versions."""
    noted = dict.fromkeys(f"{group['title']}: {group['note']}" for group in document["groups"] if group["note"])
    left_out = [f"Not measured here: {entry['peer']} ({entry['reason']})" for entry in document["skipped"]]
    versions = "; ".join(
        f"{peer['title']}: {', '.join(f'{name} {version}' for name, version in peer['shown'].items())}"
        for peer in document["peers"].values()
    )
    return [". ".join([*noted, *left_out]) + ".", f"Versions. {versions}."]


def render_long(document: dict[str, Any]) -> str:
    """Every row with its ratio, tail, memory and distance from eager."""
    heading = ["# Ours and others' tools, side by side", "", _heading(document), ""]
    return "\n".join([*heading, *render_groups(document), *notes(document), ""])


def render_groups(document: dict[str, Any]) -> list[str]:
    """The lines of every group's table, and of the recipes."""
    lines: list[str] = []
    for group in document["groups"]:
        sound = group["runs"][0]["soundness"] if group["runs"] else None
        lines += [f"## {group['title']}, batch {group['batch_size']}", ""]
        lines += [_soundness(sound), ""] if sound else []
        lines += [
            "| tool | computes in | p50 ms | ratio to eager | p90 ms | img/s | cold s | peak MB | max diff | |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
            *(_long(row) for row in group["rows"]),
            "",
        ]
    return [*lines, "## Recipes", "", *(_recipe(peer) for peer in document["peers"].values()), ""]


def _long(row: dict[str, Any]) -> str:
    if not row["ok"]:
        reason = " ".join(str(row["error"]).split()).replace("|", "/")[:300]
        return f"| {row['title']} | {row.get('arithmetic') or DASH} | failed: {reason} | | | | | | | |"
    cold = row.get("cold_start_ms")
    cells = [
        row["title"],
        row["arithmetic"],
        interval(row, "p50_ms", "p50_interval_ms"),
        interval(row, "ratio", "ratio_interval"),
        interval(row, "p90_ms", ""),
        interval(row, "images_per_s", ""),
        number(sum(cold.values()) / 1e3) if cold else DASH,
        str(round(row["peak_rss_bytes"] / 1e6)) if row.get("peak_rss_bytes") else DASH,
        f"{row['max_abs_diff']:.1e}" if "max_abs_diff" in row else DASH,
    ]
    return f"| {' | '.join([*cells, '; '.join(row.get('notes', ()))])} |"


def _soundness(sound: dict[str, Any]) -> str:
    ratio, bounds = sound.get("ratio"), sound.get("ratio_interval")
    measured = f"{ratio:.3f} ({bounds[0]:.3f}–{bounds[1]:.3f})" if ratio and bounds else DASH
    tool = sound["key"].partition("/")[0]
    return f"`{tool}` against itself: {measured}, {'sound' if sound.get('sound') else 'NOT SOUND'}."


def _recipe(peer: dict[str, Any]) -> str:
    return f"- {peer['title']}: `{peer['command']}`"


def require_place(readme: Path, marks: tuple[str, str] = (START, END)) -> str:
    """The text of a file that has the two comments.

    Raises:
        PreparationFailed: when they are not there, or more than once.
    """
    whole, (start, end) = readme.read_text(encoding="utf-8"), marks
    if whole.count(start) != 1 or whole.count(end) != 1 or whole.index(start) > whole.index(end):
        raise PreparationFailed(f"{readme.name} lacks the lines {start!r} and {end!r}, once each and in order")
    return whole


def insert(readme: Path, text: str, marks: tuple[str, str] = (START, END)) -> None:
    """Put a table between the two comments of a file.

    Raises:
        PreparationFailed: when they are not there, or more than once.
    """
    whole, (start, end) = require_place(readme, marks), marks
    before, _, rest = whole.partition(start)
    after = rest.partition(end)[2]
    readme.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")


def inserted(readme: Path) -> str | None:
    """What stands between the two comments; ``None`` where they are not."""
    whole = readme.read_text(encoding="utf-8")
    if START not in whole or END not in whole:
        return None
    return whole.partition(START)[2].partition(END)[0].strip("\n")
