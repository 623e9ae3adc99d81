"""A/A: one case measured against itself, to see whether a ratio of this run can be trusted.

A twin of a case is a second worker on the same artefact. It takes its turns in the same rounds as all
others of the first group, so it is judged at the same time, by the same number of rounds and in the same
machine's noise as the ratios that it stands for; a short stage of its own at the start would have a wider
interval than they, and see less. It is the fastest case that gets the twin: the shorter a step, the less
does its rest of a turn cost, and the more would a neighbour's threads or an unfair turn show.

What it can find: memory that lies worse for as long as a worker lives, more often than
:mod:`vit_deploy.bench.launches` allows for; a worker that spins in others' turns; an order of turns that is
not fair.

One look is taken in a run, and at :data:`CONFIDENCE` (99 %) rather than the 95 % of a row's interval: of
sound runs 1 in 100 is called unsound by chance, and not 1 in 20, which would teach users to ignore it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.rows import latency_ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.measured import Measured

CONFIDENCE = 0.99


def choose(candidates: Iterable[Measured]) -> Measured | None:
    """The case to measure against itself: of those that are warm, the one with the shortest step."""
    warm = [entry for entry in candidates if not entry.error and entry.case.role == "case"]
    return min(warm, key=lambda entry: entry.warm_up.get("step_ns", 0), default=None)


def twin_of(case: Case) -> Case:
    """The same case again."""
    return replace(case, role="twin")


def judge(twin: Measured, everyone: Sequence[Measured]) -> dict[str, Any]:
    """Whether a twin is equal to the case that it is of.

    Returns:
        ``sound``, ``ratio``, ``ratio_interval``, ``key`` of the case, and the ``reason`` in words. Where it
        cannot be told it is not sound.
    """
    key = replace(twin.case, role="case").key
    case = next((entry for entry in everyone if entry.case.key == key), None)
    broken = next((entry for entry in (case, twin) if entry is not None and entry.error), None)
    found = latency_ratio(twin, case, confidence=CONFIDENCE) if case is not None and broken is None else None
    told: dict[str, Any] = {"key": key, "ratio": None, "ratio_interval": None}
    if broken is not None:
        return {**told, "sound": False, "reason": f"the A/A pair was not measured: {broken.error}"}
    if found is None or found.interval is None:
        return {**told, "sound": False, "reason": "the A/A pair was measured in too few rounds to tell"}
    low, high = (f"{end:.4f}" for end in found.interval)
    within = f"the same artefact against itself is at {found.value:.4f} (99 % interval {low} to {high})"
    sound = not found.excludes(1.0)
    reason = within if sound else f"{within}, which is not 1: what else differs in this run is no evidence"
    return {**told, "sound": sound, "ratio": found.value, "ratio_interval": found.interval, "reason": reason}


def worst(verdicts: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The verdict on a run that was taken up again: its parts are sound only together."""
    return next((verdict for verdict in verdicts if not verdict["sound"]), verdicts[-1] if verdicts else None)
