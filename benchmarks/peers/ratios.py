"""What low precision is held to: how many times faster one row is than another, and how many it must be.

Each ratio is of rows that took turns in one run, their medians paired by round, so that a moment in which the
machine was slow counts for both. Where a side has several rows, its best is the one of the smallest median;
that it was chosen by the same samples flatters it a little, and flatters both sides alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.peers.derive import rounds_of
from vit_deploy.bench.bootstrap import round_medians
from vit_deploy.bench.launches import ratio_of_rounds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OUR_INT8 = ("onnx-int8:onnxruntime", "onnx-int8:openvino", "openvino-int8:openvino")
OUR_BF16 = ("onnx-bf16:openvino", "openvino-bf16:openvino", "pt2-bf16:pt2", "pytorch-bf16:eager")
PEERS_BF16 = ("openvino-ovc", "torch-compile-bf16", "torch-eager-bf16")
EAGER = "pytorch-fp32:eager"


@dataclass(frozen=True)
class Goal:
    """How many times faster: what must be, and what is aimed at."""

    must: float
    aim: float


@dataclass(frozen=True)
class Claim:
    """One line of the table.

    Attributes:
        name: in the document.
        title: as the table shows it, ours first.
        ours: our rows; the best counts.
        theirs: the rows that ours are compared with; the best counts.
        goals: by model; one that is not among them is shown without.
    """

    name: str
    title: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    goals: Mapping[str, Goal] = field(default_factory=dict)


CLAIMS = (
    Claim("int8-eager", "best int8, over eager fp32", OUR_INT8, (EAGER,), {"vit-b": Goal(4.0, 5.0)}),
    Claim(
        "int8-onnxruntime",
        "int8 in ONNX Runtime, over the faster of timm's graphs by the same recipe",
        ("onnx-int8:onnxruntime",),
        ("ort-quantizer", "ort-quantizer-wide"),
        {"vit-b": Goal(1.2, 1.4)},
    ),
    Claim(
        "int8-onnxruntime-rounded",
        "the same, over timm's graph as ONNX Runtime's quantiser leaves it by default",
        ("onnx-int8:onnxruntime",),
        ("ort-quantizer",),
    ),
    Claim(
        "int8-nncf",
        "int8 in OpenVINO, over NNCF's default",
        ("onnx-int8:openvino", "openvino-int8:openvino"),
        ("nncf",),
        {"vit-b": Goal(1.0, 1.1)},
    ),
    Claim(
        "int8-nncf-f32",
        "int8 in OpenVINO, over NNCF's default told f32, as ours is",
        ("onnx-int8:openvino", "openvino-int8:openvino"),
        ("nncf-f32",),
    ),
    Claim("bf16-peers", "best bf16, over the best peer's", OUR_BF16, PEERS_BF16, {"vit-b": Goal(1.0, 1.1)}),
    Claim(
        "fp32-timm",
        "ONNX fp32 in ONNX Runtime, over timm's",
        ("onnx-fp32:onnxruntime",),
        ("timm-onnx",),
        {"vit-ti": Goal(1.08, 1.15), "vit-b": Goal(1.02, 1.05)},
    ),
)


def claims_of(group: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every claim of a measured group, with its ratio, or why there is none."""
    rows = {row["tool"]: row for row in group["rows"]}
    return [_claimed(claim, group, rows) for claim in CLAIMS]


def _claimed(claim: Claim, group: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, Any]:
    goal = claim.goals.get(group["model"])
    told: dict[str, Any] = {
        "claim": claim.name,
        "title": claim.title,
        "model": group["model"],
        "batch_size": group["batch_size"],
        "must": goal.must if goal else None,
        "aim": goal.aim if goal else None,
    }
    ours, theirs = best(rows, claim.ours), best(rows, claim.theirs)
    if ours is None or theirs is None:
        names = claim.ours if ours is None else claim.theirs
        return {**told, "ratio": None, "why_not": f"none of {', '.join(names)} was measured"}
    told |= {"ours": ours["tool"], "theirs": theirs["tool"]}
    if not _side_by_side(group["runs"], ours["tool"], theirs["tool"]):
        return {**told, "ratio": None, "why_not": "they were measured in different runs"}
    medians = round_medians(rounds_of(theirs)), round_medians(rounds_of(ours))
    found = ratio_of_rounds(*medians, ours.get("launch_lengths", ()))
    if found is None:
        return {**told, "ratio": None, "why_not": "they have no rounds in common"}
    bounds = list(found.interval) if found.interval else None
    told |= {"ratio": found.value, "ratio_interval": bounds}
    return {**told, "verdict": verdict(found.value, bounds, goal)}


def best(rows: Mapping[str, Any], tools: Sequence[str]) -> dict[str, Any] | None:
    """The fastest of some rows; ``None`` where none was measured."""
    measured = [rows[tool] for tool in tools if tool in rows and rows[tool].get("ok")]
    return min(measured, key=lambda row: float(row["p50_ms"]), default=None)


def _side_by_side(runs: Sequence[Mapping[str, Any]], *tools: str) -> bool:
    """Whether rows were measured in the same run; a row of several runs is that of the first."""
    homes = [next((at for at, run in enumerate(runs) if tool in run["tools"]), -1) for tool in tools]
    return len(set(homes)) == 1


def verdict(ratio: float, bounds: Sequence[float] | None, goal: Goal | None) -> str:
    """What a ratio says of its goal; a goal that lies inside the interval is neither reached nor missed."""
    if goal is None:
        return ""
    low, high = bounds or (ratio, ratio)
    if high < goal.must:
        return "missed"
    if low >= goal.aim:
        return "aim"
    if low >= goal.must:
        return "held"
    return "held, not proven" if ratio >= goal.must else "missed, not proven"
