"""The last word: who of the finalists wins, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.deploy.tuning.score import MEMORY_RESOLUTION, UNITS, Ratio, cost, ratio_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vit_deploy.bench.result import Row
    from vit_deploy.bundle.default import Objective
    from vit_deploy.deploy.tuning.race import Trial

TIE_ORDER: tuple[tuple[str, Callable[[Row], float | str]], ...] = (
    ("less memory", lambda row: row.peak_rss_bytes or float("inf")),
    ("fewer threads", lambda row: row.threads),
    ("fewer streams", lambda row: row.streams),
    ("a smaller batch", lambda row: row.batch_size),
    ("the earlier format", lambda row: row.format),
    ("the earlier name", lambda row: row.key),
)
"""What is preferred among those between which no difference can be measured, the weightiest first. Memory
counts as less only beyond :data:`MEMORY_RESOLUTION`."""


@dataclass(frozen=True)
class Decision:
    """Why the winner won.

    Attributes:
        winner: the trial that won.
        runner_up: the best of the others in the final that hold the budget; ``None`` where there is none.
        ratio: the winner's cost over the runner-up's, paired round by round; below 1 is better.
        measurable: whether that ratio's interval leaves 1 out.
        sentence: all of this in words.
    """

    winner: Trial
    runner_up: Trial | None
    ratio: Ratio | None
    measurable: bool
    sentence: str


def decide(trials: Sequence[Trial], objective: Objective) -> Decision:
    """Choose among trials of one run, all of which hold the budget.

    The one with the least cost wins, unless others cannot be told apart from it: then the tie order says.

    Args:
        trials: at least one, each with a row of the same run.
        objective: what is to be best.
    """
    rows = {entry.case.key: entry.row for entry in trials if entry.row is not None}
    by_key = {entry.case.key: entry for entry in trials}
    ranked = sorted(rows, key=lambda key: cost(rows[key], objective))
    tied = [key for key in ranked if key == ranked[0] or not _is_worse(rows[key], rows[ranked[0]], objective)]
    chosen, preference = _prefer([rows[key] for key in tied])
    winner = by_key[chosen.key]
    others = [by_key[key] for key in ranked if key != chosen.key]
    if not others:
        return Decision(winner, None, None, False, "nothing else holds, so nothing was beaten")
    runner_up = others[0]
    ratio = _between(winner, runner_up, objective)
    against, unit = runner_up.case.key, UNITS[objective]
    if ratio is not None and ratio.decides:
        return Decision(winner, runner_up, ratio, True, f"{ratio.in_words} {unit} of {against}")
    measured = f": {ratio.in_words} {unit}" if ratio else ""
    sentence = f"no measurable difference from {against}{measured}; preferred for {preference}"
    return Decision(winner, runner_up, ratio, False, sentence)


def _between(one: Trial, other: Trial, objective: Objective) -> Ratio | None:
    return ratio_of(one.row, other.row, objective) if one.row and other.row else None


def _is_worse(row: Row, best: Row, objective: Objective) -> bool:
    ratio = ratio_of(row, best, objective)
    return ratio is not None and ratio.low > 1


def _prefer(rows: Sequence[Row]) -> tuple[Row, str]:
    """The first by the tie order, and what it is first for."""
    left, said = list(rows), "its place"
    for name, value in TIE_ORDER:
        least = min(value(row) for row in left)
        near = [row for row in left if _is_least(name, value(row), least)]
        if len(near) < len(left):
            said = name
        left = near
        if len(left) == 1:
            break
    return left[0], said


def _is_least(name: str, value: float | str, least: float | str) -> bool:
    if name == "less memory" and not isinstance(value, str) and not isinstance(least, str):
        return value <= least * (1 + MEMORY_RESOLUTION)
    return value == least
