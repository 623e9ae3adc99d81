"""``--ranges``: how large the numbers inside a model grow, on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._output import TerminalProgress, note, print_table, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vit_deploy.parity.ranges import RangeWatch
    from vit_deploy.weights.imported import Model

ranges_option: Callable[[Any], Any] = click.option(
    "--ranges",
    is_flag=True,
    help="Run the model on natural pictures, and show block by block how large its numbers grow: whether "
    "they fit into fp16.",
)


def run_ranges(model: Model, images: Sequence[Path]) -> RangeWatch | None:
    """The ranges of a ViT on generated pictures and the user's own, with progress on a terminal.

    Raises:
        UsageFailed: when the model is none of ours: nothing is known of its inside.
    """
    from vit_deploy.parity.inputs import make_samples
    from vit_deploy.parity.references import References

    samples = make_samples(model.preprocessing, model.vit_config, images=images)
    with TerminalProgress() as progress:
        return References(model, samples).ranges(progress)


def print_ranges(watch: RangeWatch) -> None:
    """A row for each block; what fp16 cannot hold is told below."""
    from vit_deploy.parity.ranges import FP16_MAX, PLACES

    rows = [
        (f"blocks.{block}", *(f"{watch.maxima[name][block]:.4g}" for name in PLACES))
        for block in range(watch.depth)
    ]
    headings = ("block", *(f"{name}>" for name in PLACES))
    title = f"largest magnitudes on {watch.samples} natural inputs; fp16 ends at {FP16_MAX:,.0f}"
    print_table(headings, rows, title=title)
    for text in watch.warnings():
        warn(text)
    for text in watch.notes():
        note(text)
    if not watch.warnings():
        note("ranges: every block fits into fp16, with room to spare")
