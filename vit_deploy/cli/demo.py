"""``vit-deploy demo``: the whole road on the built-in digits model, offline."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._output import (
    TerminalProgress,
    human_bytes,
    json_option,
    next_step,
    print_json,
    print_notes,
    print_table,
)

if TYPE_CHECKING:
    from vit_deploy.deploy.demo import DemoRow


@click.command("demo", short_help="Export, verify and run the built-in digits model, offline.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("digits-bundle"),
    show_default=True,
    help="The bundle; made where none is.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="Time for the samples of each artefact's latency.",
)
@json_option
def command(output: Path, seconds: float, as_json: bool) -> None:
    """Export, verify, measure and run the built-in digits model, offline.

    A ViT trained on scikit-learn's digits is exported to ONNX, TorchScript and TensorRT. Each artefact
    is compared with eager PyTorch, timed, and shown the sample images, where this machine can run it.
    """
    from vit_deploy.deploy.demo import run_demo

    with TerminalProgress() as progress:
        rows = run_demo(output, seconds=seconds, progress=progress)
    if as_json:
        print_json("demo", {"bundle": str(output), "artefacts": [_json(row) for row in rows]})
    else:
        headings = ("artefact", "parity", "worst ratio>", "size>", "p50 ms>", "right>")
        print_table(headings, [_cells(row) for row in rows], title=f"digits, bundle {output}")
        print_notes((row.name, row.note) for row in rows)
    next_step(f"vit-deploy inspect {shlex.quote(str(output))}")


def _cells(row: DemoRow) -> tuple[str, ...]:
    verdict = row.verdict
    word = verdict.word if verdict else ("not made" if row.nbytes is None else "the reference")
    return (
        row.name,
        word,
        f"{verdict.worst_ratio:.2f}" if verdict and verdict.worst_ratio is not None else "–",
        human_bytes(row.nbytes) if row.nbytes is not None else "–",
        f"{row.p50_ms:.2f}" if row.p50_ms is not None else "–",
        f"{row.right[0]}/{row.right[1]}" if row.right else "–",
    )


def _json(row: DemoRow) -> dict[str, Any]:
    verdict = row.verdict
    return {
        "name": row.name,
        "made": row.nbytes is not None,
        "bytes": row.nbytes,
        "passed": verdict.passed if verdict else None,
        "worst_ratio": verdict.worst_ratio if verdict else None,
        "p95_ratio": verdict.p95_ratio if verdict else None,
        "p50_ms": row.p50_ms,
        "right": row.right[0] if row.right else None,
        "samples": row.right[1] if row.right else None,
        "note": row.note,
    }
