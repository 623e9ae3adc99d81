"""Ours beside others' tools: ``make peers``, or ``python -m benchmarks.peers``.

    python -m benchmarks.peers --prepare-only            # environments, weights, exports, compiles; minutes
    python -m benchmarks.peers --resume                  # go on where an earlier run was stopped
    python -m benchmarks.peers --models vit-b --batch-sizes 1 --output /tmp/peers.json
    python -m benchmarks.peers --render-only             # intervals and tables again, from the samples kept

Measure on a quiet machine. A tool is run as its own documentation has it, except that all have the same
number of threads, and threads that wait do not spin: a tool whose default is to spin may be faster alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import recipe
from benchmarks.peers.derive import derived
from benchmarks.peers.measure import measure, most_at_once, plan, resumable
from benchmarks.peers.models import MODELS, largest_batch
from benchmarks.peers.ours import prepare_ours
from benchmarks.peers.places import README, REPOSITORY, RESULTS, WORK
from benchmarks.peers.preparation import prepare_peer
from benchmarks.peers.recipe import PreparationFailed
from benchmarks.peers.table import insert, render_long, render_short, require_place
from vit_deploy.bench.coordinator import Settings
from vit_deploy.environment import environment, usable_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.measure import Entry
    from benchmarks.peers.models import PeerModel
    from benchmarks.peers.ours import OurModel
    from benchmarks.peers.preparation import Prepared

SCHEMA = "vit-deploy/benchmark-peers/1"
DEVICE = "amd-epyc-2-cores"
SLOW_ROUNDS = 6
"""Turns of a case whose inference takes seconds: with one sample each, the fewest that have an interval."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", default=",".join(MODELS), help="by comma (%(default)s)")
    parser.add_argument("--batch-sizes", default="1,8", help="by comma (%(default)s)")
    parser.add_argument("--peers", default=",".join(recipe.names()), help="by comma (%(default)s)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of every tool (%(default)s)")
    parser.add_argument("--duration", type=float, default=4.0, help="seconds of samples of a row (%(default)s)")
    parser.add_argument("--launches", type=int, default=2, help="processes of a row, in turn (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of turns (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / DEVICE / "peers.json", help="(%(default)s)")
    parser.add_argument("--prepare-only", action="store_true", help="measure nothing")
    parser.add_argument("--resume", action="store_true", help="keep what an earlier run measured by this plan")
    parser.add_argument("--readme", action="store_true", help="write the short table into README.md")
    parser.add_argument("--render-only", action="store_true", help="write the tables of --output again")
    return parser.parse_args(given)


def main() -> int:
    """Prepare, measure, write, render."""
    told = arguments()
    if told.readme and not told.prepare_only:
        require_place(README)  # before half an hour is spent
    if not told.render_only:
        models = [_named(MODELS, name) for name in told.models.split(",")]
        sizes = [int(size) for size in told.batch_sizes.split(",")]
        document = run(told, models, sizes)
        if document is None:
            return 0
        _write(told.output, document)
    document = json.loads(told.output.read_text(encoding="utf-8"))
    document["groups"] = [derived(group) for group in document["groups"]]
    _write(told.output, document)
    told.output.with_suffix(".md").write_text(render_long(document), encoding="utf-8")
    print(render_short(document))
    if told.readme:
        insert(README, render_short(document))
    return 0


def _named(table: dict[str, PeerModel], name: str) -> PeerModel:
    if name not in table:
        raise SystemExit(f"no model {name!r}: there are {', '.join(table)}")
    return table[name]


def run(told: argparse.Namespace, models: Sequence[PeerModel], sizes: Sequence[int]) -> dict[str, Any] | None:
    """Prepare and measure; the document, or ``None`` where nothing was to be measured."""
    names, skipped = _able(told.peers.split(","))
    prepared: list[tuple[OurModel, list[Prepared]]] = []
    for model in models:
        _say(f"{model.title}: our side")
        ours = prepare_ours(model, largest_batch(sizes), told.threads)
        peers = []
        for name in names:
            began = time.monotonic()
            peers.append(prepare_peer(name, ours, sizes, told.threads))
            _say(f"{model.title}: {name} {peers[-1].failed or 'ready'} ({time.monotonic() - began:.0f} s)")
        prepared.append((ours, peers))
    if told.prepare_only:
        return None
    groups = [_group(told, ours, peers, size) for ours, peers in prepared for size in sizes]
    return {
        "schema": SCHEMA,
        "environment": environment(),
        "command": _command(),
        "threads": told.threads,
        "batch_sizes": list(sizes),
        "peers": _peers(names, prepared),
        "preparation": [_preparation(ours, peers) for ours, peers in prepared],
        "skipped": skipped,
        "groups": groups,
    }


def _able(names: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
    """The peers that can run on this machine, and why the others cannot."""
    unknown = set(names) - set(recipe.names())
    if unknown:
        raise SystemExit(f"no peer {', '.join(sorted(unknown))}: there are {', '.join(recipe.names())}")
    reasons = {name: recipe.load(name).PEER.unavailable() for name in names}
    unable = {recipe.load(name).PEER.title: reason for name, reason in reasons.items() if reason}
    skipped = [{"peer": peer, "reason": reason} for peer, reason in {**unable, **recipe.ELSEWHERE}.items()]
    return [name for name, reason in reasons.items() if not reason], skipped


def _group(told: argparse.Namespace, ours: OurModel, peers: list[Prepared], size: int) -> dict[str, Any]:
    """One model at one batch size, measured now or by an earlier run."""
    entries = plan(ours, peers, size, told.threads)
    settings = _settings(told, ours.model, size)
    planned = {"settings": vars(settings), "cases": [_planned(entry) for entry in entries]}
    kept = WORK / "measured" / f"{ours.model.name}-{size}.json"
    group = resumable(kept, planned) if told.resume else None
    if group is None:
        _say(f"{ours.model.title}, batch {size}: {len(entries)} rows")
        group = {
            "model": ours.model.name,
            "title": ours.model.title,
            "note": ours.model.note,
            "batch_size": size,
            **measure(entries, settings, _most(ours)),
        }
        _write(kept, {"plan": planned, "group": group})
    return group


def _most(ours: OurModel) -> int:
    weights = (ours.checkpoint / "model.safetensors").stat().st_size
    return most_at_once(weights, environment()["memory_bytes"])


def _settings(told: argparse.Namespace, model: PeerModel, size: int) -> Settings:
    """A slow group has few turns, and no row against itself."""
    return Settings(
        duration_s=told.duration,
        rounds=SLOW_ROUNDS if size >= model.slow_from else None,
        launches=told.launches,
        seed=told.seed,
        soundness=size < model.slow_from,
    )


def _planned(entry: Entry) -> Any:
    return entry.case.to_dict() if entry.case else [entry.tool, entry.failed]


def _peers(names: Sequence[str], prepared: list[tuple[OurModel, list[Prepared]]]) -> dict[str, Any]:
    """What each peer is, by name: its recipe and its environment, which is the same for every model."""
    found = {}
    for name, held in zip(names, prepared[0][1], strict=True):
        peer, made = recipe.load(name).PEER, held.environment
        packages = made.packages if made else {}
        found[name] = {
            "title": peer.title,
            "command": peer.command,
            "shown": {package: packages.get(package, "") for package in peer.shows},
            "packages": packages,
            "install_seconds": made.seconds if made else None,
            "failed": "" if made else held.failed,
        }
    return found


def _preparation(ours: OurModel, peers: Sequence[Prepared]) -> dict[str, Any]:
    """How long preparing a model took, and what failed."""
    told = {
        held.job.peer: {"seconds": held.seconds, "failed": held.failed, "trials": held.trials} for held in peers
    }
    return {"model": ours.model.name, "sha256": ours.sha256, "ours_seconds": ours.seconds, "peers": told}


def _command() -> str:
    return " ".join(["python -m benchmarks.peers", *sys.argv[1:]]).replace(str(REPOSITORY) + os.sep, "")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _write(path: Path, document: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.part")
    staged.write_text(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    staged.replace(path)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PreparationFailed as failure:
        sys.exit(str(failure))
