"""The budget of ``eval --max-drop``: what is shown of it, and the error when it does not hold."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from vit_deploy.cli._output import note
from vit_deploy.errors import GateFailed

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.deploy.entrants import Row
    from vit_deploy.deploy.evaluate import Evaluation
    from vit_deploy.evaluation.paired import Drop, Ruling


def rulings(evaluation: Evaluation, budget: float) -> list[tuple[Row, Drop, Ruling]]:
    """What is shown of the budget, for each artefact that was evaluated."""
    return [
        (row, row.figures.drop, row.figures.drop.ruling(budget))
        for row in evaluation.rows[1:]
        if row.figures is not None
    ]


def judge(evaluation: Evaluation, budget: float | None, *, strict: bool, bundle: Path) -> None:
    """Tell what the data leaves open, and refuse a drop that is larger than the budget.

    Raises:
        GateFailed: when a drop is shown to be larger; with ``strict`` when one is not shown to be no larger.
    """
    if budget is None:
        return
    judged = rulings(evaluation, budget)
    exceeded = [_told(row, drop) for row, drop, ruling in judged if ruling == "exceeded"]
    if exceeded:
        raise GateFailed(
            f"more than {budget:g} points of top-1 are lost: {'; '.join(exceeded)}",
            expected=f"a drop whose one-sided 95 % bound is not above {budget:g} points",
            next_command=f"vit-deploy export -m {shlex.quote(str(bundle))} --keep-fp32, or another --dtype",
        )
    left = [f"{_told(row, drop)}{_needed(drop, budget)}" for row, drop, ruling in judged if ruling == "open"]
    if left and strict:
        raise GateFailed(
            f"it is not shown that at most {budget:g} points of top-1 are lost: {'; '.join(left)}",
            expected=f"a drop whose one-sided 95 % bound is at most {budget:g} points",
            next_command="--data with more pictures, or a larger --max-drop",
        )
    for text in left:
        note(f"neither shown to lose more than {budget:g} points, nor not to: {text}")


def _told(row: Row, drop: Drop) -> str:
    low, high = drop.interval()
    return f"{row.name} in {row.backend} {drop.points:+.2f} ({low:+.2f} to {high:+.2f})"


def _needed(drop: Drop, budget: float) -> str:
    needed = drop.needed(budget)
    return f", which about {needed:,} such pictures would show" if needed else ""
