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
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.peers.derive import derived
from benchmarks.peers.measure import plan
from benchmarks.peers.models import MODELS, largest_batch
from benchmarks.peers.ours import prepare_ours
from benchmarks.peers.places import README, RESULTS
from benchmarks.peers.recipe import PreparationFailed
from benchmarks.peers.running import (
    DEVICE,
    able,
    add_flags,
    command_told,
    kept_at,
    measured_group,
    model_named,
    peers_told,
    preparation_told,
    prepared_peers,
    say,
    write,
)
from benchmarks.peers.table import insert, render_long, render_short, require_place
from vit_deploy.environment import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.models import PeerModel
    from benchmarks.peers.ours import OurModel
    from benchmarks.peers.preparation import Prepared

SCHEMA = "vit-deploy/benchmark-peers/1"
COMPARISON = "formats"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", default=",".join(MODELS), help="by comma (%(default)s)")
    add_flags(parser, COMPARISON, RESULTS / DEVICE / "peers.json", 4.0)
    parser.add_argument("--readme", action="store_true", help="write the short table into README.md")
    return parser.parse_args(given)


def main() -> int:
    """Prepare, measure, write, render."""
    told = arguments()
    if told.readme and not told.prepare_only:
        require_place(README)  # before half an hour is spent
    if not told.render_only:
        models = [model_named(MODELS, name) for name in told.models.split(",")]
        sizes = [int(size) for size in told.batch_sizes.split(",")]
        document = run(told, models, sizes)
        if document is None:
            return 0
        write(told.output, document)
    document = json.loads(told.output.read_text(encoding="utf-8"))
    document["groups"] = [derived(group) for group in document["groups"]]
    write(told.output, document)
    told.output.with_suffix(".md").write_text(render_long(document), encoding="utf-8")
    print(render_short(document))
    if told.readme:
        insert(README, render_short(document))
    return 0


def run(told: argparse.Namespace, models: Sequence[PeerModel], sizes: Sequence[int]) -> dict[str, Any] | None:
    """Prepare and measure; the document, or ``None`` where nothing was to be measured."""
    names, skipped = able(told.peers.split(","))
    prepared: list[tuple[OurModel, list[Prepared]]] = []
    for model in models:
        say(f"{model.title}: our side")
        ours = prepare_ours(model, largest_batch(sizes), told.threads)
        prepared.append((ours, prepared_peers(names, ours, sizes, told.threads, COMPARISON)))
    if told.prepare_only:
        return None
    groups = [
        measured_group(
            told, ours, plan(ours, peers, size, told.threads), size, kept_at(f"{ours.model.name}-{size}")
        )
        for ours, peers in prepared
        for size in sizes
    ]
    return {
        "schema": SCHEMA,
        "environment": environment(),
        "command": command_told("benchmarks.peers"),
        "threads": told.threads,
        "batch_sizes": list(sizes),
        "peers": peers_told(names, prepared),
        "preparation": [preparation_told(ours, peers) for ours, peers in prepared],
        "skipped": skipped,
        "groups": groups,
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PreparationFailed as failure:
        sys.exit(str(failure))
