"""``--prove``: the proof of import on the command line, and what a bundle keeps of it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._output import TerminalProgress, note, print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vit_deploy.bundle import Bundle
    from vit_deploy.errors import UsageFailed
    from vit_deploy.proof import Proof
    from vit_deploy.weights.imported import Model
    from vit_deploy.weights.request import Request

prove_option: Callable[[Any], Any] = click.option(
    "--prove",
    is_flag=True,
    help="Compare the import with the source library's own model, block by block, in float64.",
)


def run_proof(request: Request, model: Model, images: Sequence[Path]) -> Proof:
    """The proof of a model's import, with progress on a terminal; passed or failed."""
    from vit_deploy.proof import prove_import

    with TerminalProgress() as progress:
        return prove_import(request, model, images=images, progress=progress)


def print_proof(proof: Proof) -> None:
    """A line for each stage, with how far ours is from the library's."""
    first = proof.first_difference
    rows = []
    for name, error in proof.errors.items():
        word = "differs" if error > proof.limit else "agrees"
        rows.append((name, f"{error:.1e}", f"{word} first" if word == "differs" and name == first else word))
    rows += [(name, "–", f"not computed by {proof.library}") for name in proof.not_compared]
    title = f"against {proof.library} {proof.library_version} in float64, {proof.images} images"
    print_table(("stage", f"relative error (≤ {proof.limit:g})>", "verdict"), rows, title=title)
    note(f"proof: {proof.sentence}")


def bundle_proof(bundle: Bundle) -> Proof | None:
    """The proof that a bundle keeps."""
    from vit_deploy.proof import Proof

    record = bundle.manifest.model.proof
    return Proof.from_dict(record.model_dump()) if record else None


def describe_proof(proof: Proof) -> str:
    """A kept proof in a line."""
    state = "passed" if proof.passed else f"failed: {proof.sentence}"
    return (
        f"{state}: {len(proof.errors)} stages against {proof.library} {proof.library_version} on "
        f"{proof.images} images in float64, worst {proof.worst:.1e} (≤ {proof.limit:g})"
    )


def no_checkpoint_in(bundle: Bundle) -> UsageFailed:
    """The error for ``--prove`` on a bundle."""
    from vit_deploy.proof.prove import holds_no_checkpoint

    source = bundle.manifest.model.source
    error = holds_no_checkpoint(str(bundle.path), source.kind, source.name)
    if bundle.manifest.model.proof:
        error.next_command += f"; the proof it keeps: vit-deploy inspect {shlex.quote(str(bundle.path))}"
    return error
