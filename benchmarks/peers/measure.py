"""The measuring: for each model and batch size, ours and all peers take turns in one interleaved run."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.peers import recipe
from benchmarks.peers.preparation import backend_of, case_of
from vit_deploy.bench import process
from vit_deploy.bench.coordinator import run_bench

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.peers.ours import OurModel
    from benchmarks.peers.preparation import Prepared
    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.coordinator import Settings
    from vit_deploy.bench.process import CaseWorker
    from vit_deploy.protocols import Progress

TITLES = {
    "eager": "eager PyTorch (ours)",
    "onnxruntime": "**vit-deploy** ONNX, ONNX Runtime",
    "openvino": "**vit-deploy** ONNX, OpenVINO f32",
    "torchscript": "**vit-deploy** TorchScript",
}
"""What the table calls our rows; the weights of none of them are rounded."""


USABLE_MEMORY = 0.85
WORKER_BYTES = 300_000_000
"""A worker without its weights."""


@dataclass(frozen=True)
class Entry:
    """A row to be: its words, and its case where there is one to measure.

    Attributes:
        tool: what tells it from the others of its model: our backend, or a peer's variant.
        title: as the table shows it.
        arithmetic: what it computes in; empty where that was never found out.
        case: what is measured; ``None`` where preparing failed.
        prepared: the peer; ``None`` for ours.
        failed: why there is no case.
        apart: its distance from eager's output.
    """

    tool: str
    title: str
    arithmetic: str
    case: Case | None
    prepared: Prepared | None
    failed: str
    apart: Mapping[str, float]


def plan(ours: OurModel, peers: Sequence[Prepared], batch_size: int, threads: int) -> list[Entry]:
    """The rows of a model at a batch size: ours, then each variant of each peer."""
    entries = [
        Entry(case.backend, TITLES[case.backend], "fp32", case, None, "", ours.differences[case.backend])
        for case in ours.cases([batch_size], threads)
    ]
    return [*entries, *peer_entries(ours, peers, batch_size, threads, "formats")]


def peer_entries(
    ours: OurModel, peers: Sequence[Prepared], batch_size: int, threads: int, comparison: str
) -> list[Entry]:
    """The rows of the peers in a comparison; one that failed is a row without a case."""
    entries: list[Entry] = []
    for prepared in peers:
        for variant in recipe.load(prepared.job.peer).PEER.rows(comparison):
            trial = prepared.trial(variant.name, batch_size)
            failed = prepared.failed or trial.get("failed", "")
            found = "" if failed else trial["arithmetic"]
            case = None if failed else case_of(prepared, variant.name, found, ours, batch_size, threads)
            apart = {} if failed else {key: trial[key] for key in ("max_abs_diff", "relative_error")}
            entries.append(Entry(variant.name, variant.title, found, case, prepared, failed, apart))
    return entries


def together(entries: Sequence[Entry], most: int) -> list[list[Entry]]:
    """The runs that a machine's memory asks for: one, unless there are more rows than fit side by side.

    Ours come first and stay together; each further run has the baseline again, so that a ratio is always of
    neighbours.

    Args:
        entries: the rows, the baseline first.
        most: how many workers may live at once, the baseline's twin not counted.
    """
    alive = [entry for entry in entries if entry.case is not None]
    if len(alive) <= most:
        return [alive]
    ours = sum(entry.prepared is None for entry in alive)
    first = max(most, ours)
    size = max(1, most - 1)
    rest = alive[first:]
    return [alive[:first], *([alive[0], *rest[at : at + size]] for at in range(0, len(rest), size))]


def most_at_once(weights_bytes: int, memory_bytes: int) -> int:
    """How many workers of a model fit into memory: a tool holds its weights twice, more or less."""
    return max(2, int(USABLE_MEMORY * memory_bytes / (2 * weights_bytes + WORKER_BYTES)) - 1)


def measure(
    entries: Sequence[Entry], settings: Settings, most: int = 64, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure the entries beside each other, ``most`` at once.

    Returns:
        ``rows`` in the order of the entries, failed ones among them, and of each run ``tools``, ``settings``,
        ``soundness``, ``machine`` and ``order``.
    """
    rows: dict[str, dict[str, Any]] = {}
    runs: list[dict[str, Any]] = []
    for members in together(entries, most):
        if not members:
            break
        # One of the rows is held against itself, in the first run.
        told = _measure(members, replace(settings, soundness=settings.soundness and not runs), progress)
        for row in told.pop("rows"):
            rows.setdefault(row["key"], row)
        runs.append({"tools": [entry.tool for entry in members], **told})
    return {"runs": runs, "rows": [_row(entry, rows) for entry in entries]}


def _measure(entries: Sequence[Entry], settings: Settings, progress: Progress | None) -> dict[str, Any]:
    """One run."""
    peers = {backend_of(entry.prepared.job.peer): entry.prepared for entry in entries if entry.prepared}

    def start_worker(case: Case) -> CaseWorker:
        prepared = peers.get(case.backend)
        return prepared.worker(case) if prepared else process.start_worker(case)

    cases = [entry.case for entry in entries if entry.case is not None]
    try:
        told = run_bench(cases, settings, start_worker=start_worker, progress=progress).to_dict()
    finally:
        for prepared in peers.values():
            prepared.tidy()
    return {name: told.get(name) for name in ("settings", "soundness", "machine", "order", "rows")}


_NOT_OURS = ("sha256", "files", "format", "artefact", "contract", "worst_ratio", "verified", "gpu", "limit")
"""What a row of a run says that means nothing for a peer."""


def _row(entry: Entry, rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The row of an entry; of one that could not be prepared, only why."""
    words = {"tool": entry.tool, "title": entry.title, "ours": entry.prepared is None}
    if entry.case is None:
        return {**words, "ok": False, "error": entry.failed}
    found = {name: value for name, value in rows[entry.case.key].items() if name not in _NOT_OURS}
    return {**words, "arithmetic": entry.arithmetic, **entry.apart, **found}


def resumable(path: Any, plan_told: Mapping[str, Any]) -> dict[str, Any] | None:
    """The group that an earlier run has measured by the same plan, or ``None``."""
    if not path.is_file():
        return None
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    same = json.loads(json.dumps(held["plan"])) == json.loads(json.dumps(plan_told))
    return held["group"] if same else None
