"""What low precision gains: ``make precision``, or ``python -m benchmarks.peers.precision``.

    python -m benchmarks.peers.precision --prepare-only                 # environments, exports, calibration
    python -m benchmarks.peers.precision --prepare-only --remake-ours   # our artefacts anew, by today's source
    python -m benchmarks.peers.precision                                # measure, a quarter of an hour
    python -m benchmarks.peers.precision --render-only                  # the tables again, of the samples kept

Eager in fp32 and bf16, our artefacts in fp32, bf16 and int8, and what other tools make of the same weights,
calibrated on the same pictures: for each model and batch size in one interleaved run. Measure on a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.peers.derive import derived
from benchmarks.peers.lowered import CALIBRATION_IMAGES, prepare_lowered, stale, write_calibration
from benchmarks.peers.measure import peer_entries
from benchmarks.peers.models import MODELS, largest_batch
from benchmarks.peers.ours import prepare_ours
from benchmarks.peers.places import GUIDE, RESULTS
from benchmarks.peers.precision_table import MARKS, render_guide, render_precision
from benchmarks.peers.ratios import claims_of
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
from benchmarks.peers.table import insert
from vit_deploy.environment import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.lowered import OurLowered
    from benchmarks.peers.models import PeerModel
    from benchmarks.peers.preparation import Prepared

SCHEMA = "vit-deploy/benchmark-precision/1"
COMPARISON = "precision"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers.precision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", default="vit-b,vit-ti", help="by comma (%(default)s)")
    add_flags(parser, COMPARISON, RESULTS / DEVICE / "precision.json", 3.0)
    parser.add_argument("--guide", action="store_true", help="write the short table into the guide")
    parser.add_argument("--remake-ours", action="store_true", help="make our artefacts anew")
    return parser.parse_args(given)


def main() -> int:
    """Prepare, measure, write, render."""
    told = arguments()
    if not told.render_only:
        models = [model_named(MODELS, name) for name in told.models.split(",")]
        document = run(told, models, [int(size) for size in told.batch_sizes.split(",")])
        if document is None:
            return 0
        write(told.output, document)
    document = json.loads(told.output.read_text(encoding="utf-8"))
    document["groups"] = [derived(group) for group in document["groups"]]
    document["claims"] = [claim for group in document["groups"] for claim in claims_of(group)]
    write(told.output, document)
    text = render_precision(document)
    told.output.with_suffix(".md").write_text(text, encoding="utf-8")
    if told.guide:
        insert(GUIDE, render_guide(document), MARKS)
    print(text.partition("\n## ")[0])
    return 0


def run(told: argparse.Namespace, models: Sequence[PeerModel], sizes: Sequence[int]) -> dict[str, Any] | None:
    """Prepare and measure; the document, or ``None`` where nothing was to be measured."""
    names, skipped = able(told.peers.split(","))
    prepared: list[tuple[OurLowered, list[Prepared]]] = []
    for model in models:
        base = prepare_ours(model, largest_batch(sizes), told.threads)
        write_calibration(base)
        # Theirs first: ours are what is still being worked at.
        peers = prepared_peers(names, base, sizes, told.threads, COMPARISON)
        say(f"{model.title}: our side")
        ours = prepare_lowered(base, largest_batch(sizes), told.threads, remake=told.remake_ours)
        for name, why in ours.failed.items():
            say(f"{model.title}: {name} failed: {why}")
        prepared.append((ours, peers))
    old = stale([ours for ours, _ in prepared])
    if old:
        say(f"{', '.join(old)}: made by earlier source; --remake-ours makes them anew")
    if told.prepare_only:
        return None
    groups = [_group(told, ours, peers, size) for ours, peers in prepared for size in sizes]
    bases = [(ours.base, peers) for ours, peers in prepared]
    return {
        "schema": SCHEMA,
        "environment": environment(),
        "command": command_told("benchmarks.peers.precision"),
        "threads": told.threads,
        "batch_sizes": list(sizes),
        "calibration_images": CALIBRATION_IMAGES,
        "stale": old,
        "peers": peers_told(names, bases),
        "preparation": [_preparation(ours, peers) for ours, peers in prepared],
        "skipped": skipped,
        "groups": groups,
    }


def _group(told: argparse.Namespace, ours: OurLowered, peers: list[Prepared], size: int) -> dict[str, Any]:
    """One model at one batch size."""
    entries = ours.entries(size, told.threads)
    entries += peer_entries(ours.base, peers, size, told.threads, COMPARISON)
    return measured_group(told, ours.base, entries, size, kept_at(f"precision-{ours.base.model.name}-{size}"))


def _preparation(ours: OurLowered, peers: list[Prepared]) -> dict[str, Any]:
    """How long preparing took, and what failed."""
    told = preparation_told(ours.base, peers)
    return {**told, "ours_seconds": ours.seconds, "ours_failed": ours.failed}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PreparationFailed as failure:
        sys.exit(str(failure))
