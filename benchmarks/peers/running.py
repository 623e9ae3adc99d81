"""What the comparisons have alike: flags, who can take part, settings, what a result says of its making."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import recipe
from benchmarks.peers.measure import measure, most_at_once, resumable
from benchmarks.peers.places import REPOSITORY, WORK
from benchmarks.peers.preparation import prepare_peer
from vit_deploy.bench.coordinator import Settings
from vit_deploy.environment import environment, usable_cores

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from benchmarks.peers.measure import Entry
    from benchmarks.peers.models import PeerModel
    from benchmarks.peers.ours import OurModel
    from benchmarks.peers.preparation import Prepared

DEVICE = "amd-epyc-2-cores"
SLOW_ROUNDS = 6
"""Turns of a case whose inference takes seconds: with one sample each, the fewest that have an interval."""


def add_flags(parser: argparse.ArgumentParser, comparison: str, output: Path, duration: float) -> None:
    """The flags that every comparison has.

    Args:
        parser: gets them.
        comparison: whose peers are the default.
        output: the default of ``--output``.
        duration: the default of ``--duration``.
    """
    parser.add_argument("--batch-sizes", default="1,8", help="by comma (%(default)s)")
    peers = ",".join(recipe.names(comparison))
    parser.add_argument("--peers", default=peers, help="by comma (%(default)s)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of every tool (%(default)s)")
    parser.add_argument(
        "--duration", type=float, default=duration, help="seconds of samples of a row (%(default)s)"
    )
    parser.add_argument("--launches", type=int, default=2, help="processes of a row, in turn (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of turns (%(default)s)")
    parser.add_argument("--output", type=Path, default=output, help="(%(default)s)")
    parser.add_argument("--prepare-only", action="store_true", help="measure nothing")
    parser.add_argument("--resume", action="store_true", help="keep what an earlier run measured by this plan")
    parser.add_argument("--render-only", action="store_true", help="write the tables of --output again")


def model_named(table: dict[str, PeerModel], name: str) -> PeerModel:
    """The model of that name."""
    if name not in table:
        raise SystemExit(f"no model {name!r}: there are {', '.join(table)}")
    return table[name]


def able(names: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
    """The peers that can run on this machine, and why the others cannot."""
    unknown = set(names) - set(recipe.names())
    if unknown:
        raise SystemExit(f"no peer {', '.join(sorted(unknown))}: there are {', '.join(recipe.names())}")
    reasons = {name: recipe.load(name).PEER.unavailable() for name in names}
    unable = {recipe.load(name).PEER.title: reason for name, reason in reasons.items() if reason}
    skipped = [{"peer": peer, "reason": reason} for peer, reason in {**unable, **recipe.ELSEWHERE}.items()]
    return [name for name, reason in reasons.items() if not reason], skipped


def prepared_peers(
    names: Sequence[str], ours: OurModel, sizes: Sequence[int], threads: int, comparison: str
) -> list[Prepared]:
    """Every peer of a model, prepared for a comparison; one that fails says so."""
    peers = []
    for name in names:
        began = time.monotonic()
        peers.append(prepare_peer(name, ours, sizes, threads, comparison))
        took = time.monotonic() - began
        say(f"{ours.model.title}: {name} {peers[-1].failed or 'ready'} ({took:.0f} s)")
    return peers


def measured_group(
    told: argparse.Namespace, ours: OurModel, entries: Sequence[Entry], size: int, kept: Path
) -> dict[str, Any]:
    """One model at one batch size, measured now or by an earlier run.

    Args:
        told: the flags.
        ours: the model.
        entries: its rows.
        size: the batch size.
        kept: where an earlier run has left it, by a name.
    """
    settings = _settings(told, ours.model, size)
    planned = {"settings": vars(settings), "cases": [_planned(entry) for entry in entries]}
    group = resumable(kept, planned) if told.resume else None
    if group is None:
        say(f"{ours.model.title}, batch {size}: {len(entries)} rows")
        group = {
            "model": ours.model.name,
            "title": ours.model.title,
            "note": ours.model.note,
            "batch_size": size,
            **measure(entries, settings, _most(ours)),
        }
        write(kept, {"plan": planned, "group": group})
    return group


def kept_at(name: str) -> Path:
    """Where a group that was measured is kept."""
    return WORK / "measured" / f"{name}.json"


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


def peers_told(names: Sequence[str], prepared: list[tuple[OurModel, list[Prepared]]]) -> dict[str, Any]:
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


def preparation_told(ours: OurModel, peers: Sequence[Prepared]) -> dict[str, Any]:
    """How long preparing a model took, and what failed."""
    told = {
        held.job.peer: {"seconds": held.seconds, "failed": held.failed, "trials": held.trials} for held in peers
    }
    return {"model": ours.model.name, "sha256": ours.sha256, "ours_seconds": ours.seconds, "peers": told}


def command_told(module: str) -> str:
    """What was run, without this machine's folders."""
    return " ".join([f"python -m {module}", *sys.argv[1:]]).replace(str(REPOSITORY) + os.sep, "")


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def write(path: Path, document: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.part")
    staged.write_text(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    staged.replace(path)
