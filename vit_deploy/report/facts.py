"""What was read back, and what moves, as lines of words: made to be shown as a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.report.words import ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vit_deploy.report.document import ArtefactReport

_STEADINESS = (
    ("run_to_run", "from run to run"),
    ("batch_position", "from slot to slot of a batch"),
    ("batch_size", "from batch size to batch size"),
)


def steadiness_rows(artefact: ArtefactReport) -> list[tuple[str, str]]:
    """How far outputs move where they should not: what moves them, and how far in yardsticks."""
    if artefact.steadiness is None:
        return []
    return [(told, _moved(getattr(artefact.steadiness, name))) for name, told in _STEADINESS]


def _moved(value: float | None) -> str:
    if value is None:
        return "not measured"
    return "equal to the last bit" if value == 0 else f"{ratio(value)} ×"


def steadiness_lines(artefact: ArtefactReport) -> list[str]:
    """The same, a line each."""
    return [f"{told}: {moved}" for told, moved in steadiness_rows(artefact)]


def fact_rows(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as names and values: ``placement, CPUExecutionProvider`` and ``287``."""
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        told = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, dict) and value:
            rows += fact_rows(value, f"{told}, ")
        elif value not in (None, "", [], {}):
            rows.append((told, _fact(value)))
    return rows


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_fact(entry) for entry in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_fact(entry)}" for name, entry in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def built_rows(artefact: ArtefactReport) -> list[tuple[str, str]]:
    """What was read back from what was built: names and values."""
    rows = []
    for name, value in (artefact.built or {}).items():
        if value not in (None, "", [], {}):
            rows += _BUILT.get(name, _as_fact)(name, value)
    return rows


def _by_class(_: str, value: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    return [(f"{kind} layers", _counted(kind, counts)[0][1]) for kind, counts in value.items()]


def _counted(name: str, value: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), ", ".join(f"{count:,} × {key}" for key, count in value.items()))]


def _fused(_: str, value: Mapping[str, int]) -> list[tuple[str, str]]:
    return [("fused attention", f"{value.get('fused', 0)} of {value.get('of', 0)}")]


def _tf32(_: str, value: object) -> list[tuple[str, str]]:
    return [("TF32", "on" if value else "off")]


def _as_fact(name: str, value: object) -> list[tuple[str, str]]:
    return fact_rows({name: value})


_BUILT: Mapping[str, Callable[[str, Any], list[tuple[str, str]]]] = {
    "dtype": _by_class,
    "placement": _counted,
    "shape_nodes": _counted,
    "fused_attention": _fused,
    "tf32": _tf32,
}
"""How what the parity check reads back is told; anything else is told as it is."""


def built_lines(artefact: ArtefactReport) -> list[str]:
    """What was read back from what was built, a line each."""
    return [f"{name}: {value}" for name, value in built_rows(artefact)]


def range_warnings(artefact: ArtefactReport) -> Sequence[str]:
    """What the watch over the blocks' ranges warns of."""
    found = (artefact.range_watch or {}).get("warnings")
    return [str(entry) for entry in found] if isinstance(found, list) else []


def range_notes(artefact: ArtefactReport) -> Sequence[str]:
    """What the watch tells that is no danger to this artefact."""
    found = (artefact.range_watch or {}).get("notes")
    return [str(entry) for entry in found] if isinstance(found, list) else []


def range_lines(artefact: ArtefactReport) -> list[str]:
    """The warnings, or that there are none; nothing where ranges were not watched."""
    if not artefact.range_watch:
        return []
    return [*range_warnings(artefact)] or ["no block comes near the end of fp16’s range"]
