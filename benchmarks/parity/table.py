"""The published table: Markdown made of a result, into the README between its markers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Result = dict[str, Any]
    Row = dict[str, Any]

BEGIN, END = "<!-- begin: made by make mutations -->", "<!-- end -->"
_SAYS = {"passes": "–", "warns": "warns", "refuses": "**refuses**"}
_HALF = ("fp16", "bf16", "int8")


def write_table(result: Result, readme: Path) -> None:
    """Put the table of ``result`` between the markers of ``readme``."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n\n{render(result)}\n{END}{after}", encoding="utf-8")


def names_in_table(readme: Path) -> list[str]:
    """The names of the faults in the published table, in order."""
    table = readme.read_text(encoding="utf-8").partition("## Every fault")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return [line.split("|")[1].strip() for line in rows if not line.startswith("| ---")]


def render(result: Result) -> str:
    """All sections of the table."""
    parts = [_totals(result), _blamed(result), _missed(result), _faults(result), _honest(result)]
    return "\n".join(part for part in parts if part)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _totals(result: Result) -> str:
    totals = result["totals"]
    fp32 = totals["honest_fp32"]
    lower = totals["honest"] - fp32
    head = ("checker", "faults caught", "of them, with a warning alone", f"honest fp32 refused, of {fp32}")
    rows = [
        [
            f"**{name}**" if name == "vit-deploy" else f"{name} ({result['versions'][name]})",
            f"{entry['caught']} of {totals['faults']} ({entry['caught'] / totals['faults']:.0%})",
            str(entry["warned"]),
            str(entry["refused_fp32"]),
            str(entry["refused_lower"]),
        ]
        for name, entry in totals["checkers"].items()
    ]
    return "## Totals\n\n" + _table((*head, f"honest fp16, bf16 and int8 refused, of {lower}"), rows)


def _blamed(result: Result) -> str:
    blame = result["totals"].get("blame")
    if not blame:
        return ""
    return (
        f"Of the {blame['of']} faults that were caught, the report names the right stage for {blame['stage']}. "
        f"{blame['of_where']} of them come in at a tap: it names the right one for {blame['where']}.\n"
    )


def _missed(result: Result) -> str:
    missed = [row for row in result["faults"] if not row["caught"]]
    if not missed:
        return "No fault was missed.\n"
    rows = [[row["name"], _ratio(row), row.get("missed") or "**not explained**"] for row in missed]
    return "## Missed\n\n" + _table(("fault", "worst ratio", "why"), rows)


def _ratio(row: Row) -> str:
    ratio = row["worst_ratio"]
    if ratio is None or isinstance(ratio, str):
        return ratio or ""
    return f"{ratio:,.3g}" if ratio < 1000 else f"{ratio:,.0f}"


def _faults(result: Result) -> str:
    blamed = result["totals"].get("blame") is not None
    others = list(result["versions"])
    head = ["fault", "kind", "family", "worst ratio", "verdict"]
    head += ["stage", "where"] if blamed else []
    rows = []
    for row in result["faults"]:
        cells = [row["name"], row["kind"], row["family"], _ratio(row), row["verdict"]]
        cells += _culprit(row) if blamed else []
        rows.append([*cells, *(_SAYS[row["others"][name]] for name in others)])
    return "## Every fault\n\n" + _table([*head, *others], rows)


def _culprit(row: Row) -> list[str]:
    """What blame said, and what it should have said where that is something else."""
    if not row["caught"]:
        return ["", ""]
    said = row.get("culprit") or {}
    cells = []
    for key in ("stage", "where"):
        found, expected = said.get(key) or "", row["expected"][key]
        right = found == expected or (key == "where" and not expected)
        cells.append(found if right else f"{found or '?'} (✗ {expected})")
    return cells


def _honest(result: Result) -> str:
    others = list(result["versions"])
    rows = []
    for row in result["honest"]:
        cells = [row["name"], row["precision"], _ratio(row), row["verdict"]]
        rows.append([*cells, *(_SAYS[row["others"][name]] for name in others)])
    head = ["artefact", "precision", "worst ratio", "verdict", *others]
    text = "## Every honest artefact\n\n" + _table(head, rows)
    left_out = result.get("left_out") or []
    if left_out:
        text += (
            "\nLeft out here: " + "; ".join(f"{row['name']} (no {row['needs']})" for row in left_out) + ".\n"
        )
    return text


def totals(result: Result) -> Row:
    """What the rows of a result add up to."""
    faults, honest = result["faults"], result["honest"]
    fp32 = [row for row in honest if row["precision"] not in _HALF]
    lower = [row for row in honest if row["precision"] in _HALF]
    checkers = {
        "vit-deploy": {
            "caught": sum(row["caught"] for row in faults),
            "warned": 0,
            "refused_fp32": sum(row["refused"] for row in fp32),
            "refused_lower": sum(row["refused"] for row in lower),
        }
    }
    for name in result["versions"]:
        said = [row["others"][name] for row in faults]
        checkers[name] = {
            "caught": sum(word != "passes" for word in said),
            "warned": sum(word == "warns" for word in said),
            "refused_fp32": sum(row["others"][name] != "passes" for row in fp32),
            "refused_lower": sum(row["others"][name] != "passes" for row in lower),
        }
    counted = {"faults": len(faults), "honest": len(honest), "honest_fp32": len(fp32), "checkers": checkers}
    blamed = [row for row in faults if "culprit" in row]
    if not blamed:
        return counted
    placed = [row for row in blamed if row["expected"]["where"]]
    right = {
        "of": len(blamed),
        "stage": sum(row["culprit"]["stage"] == row["expected"]["stage"] for row in blamed),
        "of_where": len(placed),
        "where": sum(row["culprit"]["where"] == row["expected"]["where"] for row in placed),
    }
    return {**counted, "blame": right}
