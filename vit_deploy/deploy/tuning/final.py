"""The last runs of a search, longer ones, among those that are left; what does not hold the budget is out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.bench import Settings
from vit_deploy.deploy.tuning.race import FINALISTS, FIRST_DURATION_S, LONGEST_FINAL_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.deploy.tuning.budget import Limit
    from vit_deploy.deploy.tuning.race import Race, Trial


def final(race: Race) -> list[Trial]:
    """The last runs, longer ones, until some of the finalists hold the budget; those that do."""
    pool = _pool(race)
    while pool:
        group, pool = pool[:FINALISTS], pool[FINALISTS:]
        race.progress.phase(f"final: {len(group)} candidates")
        each = race.left_s / len(group)
        launches = _launches(each, race.overhead_s)
        duration = min(LONGEST_FINAL_S, max(2 * FIRST_DURATION_S, (each - launches * race.overhead_s) / 2))
        for entry in group:
            entry.status, entry.why = "in the race", ""
        holding = [
            entry
            for entry in race.heat_of(group, duration, soundness=True, launches=launches)
            if _holds(entry, race.budget)
        ]
        if holding:
            for entry in pool:
                if entry.status == "in the race":
                    entry.leave(
                        "no time", "it was behind the finalists, and there was no time to be sure of it"
                    )
            return holding
        if race.left_s <= 0:
            break
    return []


def _launches(each_s: float, overhead_s: float) -> int:
    """As many launches as a benchmark has, where starting them takes no more than half of a finalist's time."""
    usual = Settings().launches
    return max(1, min(usual, int(each_s / 2 / overhead_s))) if overhead_s > 0 else usual


def _pool(race: Race) -> list[Trial]:
    """Who may come into the final, the best first: the survivors, then those that were only slower.

    Those come in where fewer than two are left, and where no survivor holds the budget.
    """
    others = [entry for entry in race.trials if entry.status in ("worse", "no time") and entry.measured]
    survivors = [entry for entry in race.standing() if entry.measured]
    others.sort(key=race.rank)
    few = max(0, 2 - len(survivors))
    return [*survivors, *others] if race.budget else [*survivors, *others[:few]]


def _holds(trial: Trial, budget: Sequence[Limit]) -> bool:
    """Whether a finalist holds the budget; one that does not leaves the race with the reason."""
    row = trial.row
    if row is None or trial.status != "in the race":
        return False
    found = [(limit, limit.holds(row)) for limit in budget]
    broken = [f"{limit.metric} is {limit.told(row)}" for limit, word in found if word != "holds"]
    if broken:
        trial.leave("over budget", "; ".join(broken))
    return not broken
