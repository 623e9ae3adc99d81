"""``vit-deploy inspect``: a model's layers and the proof of its import, or what a bundle holds."""

from __future__ import annotations

import functools
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._bundle_view import show_bundle
from vit_deploy.cli._code import input_shape_option
from vit_deploy.cli._model_view import describe, layers
from vit_deploy.cli._output import human_bytes, json_option, next_step, print_json, print_table
from vit_deploy.cli._pictures import chosen_pictures
from vit_deploy.cli._proof import no_checkpoint_in, print_proof, prove_option, run_proof
from vit_deploy.cli._ranges import print_ranges, ranges_option, run_ranges
from vit_deploy.cli._sizes import image_size_option
from vit_deploy.cli._weights import tell_notes, use_ema_option
from vit_deploy.errors import UsageFailed
from vit_deploy.parity.images import MAX_IMAGES
from vit_deploy.spec import size_text

if TYPE_CHECKING:
    from vit_deploy.bundle import Bundle
    from vit_deploy.model.summary import LayerRow
    from vit_deploy.parity.ranges import RangeWatch
    from vit_deploy.proof import Proof
    from vit_deploy.weights.imported import Model

LATER_BLOCK = re.compile(r"blocks\.[1-9]\d*\.")
"""What is inside a block after the first: the same again, so people are not shown it."""


@click.command("inspect", short_help="Show a model's layers, or what a bundle holds.")
@click.argument("target", metavar="MODEL|BUNDLE")
@click.option("--arch", default="", metavar="NAME", help="The architecture of a checkpoint file.")
@input_shape_option
@image_size_option
@click.option(
    "--batch-size", default=1, show_default=True, type=click.IntRange(1, 2**16), help="Images in one inference."
)
@click.option(
    "--depth", default=3, show_default=True, type=click.IntRange(min=0), help="How deep the layers are shown."
)
@click.option("--allow-nonfinite", is_flag=True, help="Take weights that hold NaN or Inf.")
@use_ema_option
@prove_option
@ranges_option
@click.option(
    "--images", type=click.Path(path_type=Path), help="A folder of pictures for --prove and --ranges, too."
)
@click.option(
    "--max-images",
    type=click.IntRange(min=1),
    default=MAX_IMAGES,
    show_default=True,
    help="How many of those pictures are used, evenly spread.",
)
@json_option
def command(
    target: str,
    arch: str,
    input_shape: str,
    image_size: tuple[int, int] | None,
    batch_size: int,
    depth: int,
    allow_nonfinite: bool,
    use_ema: bool,
    prove: bool,
    ranges: bool,
    images: Path | None,
    max_images: int,
    as_json: bool,
) -> None:
    """Show the layers of MODEL (shapes, parameters, GMACs), or what BUNDLE holds.

    MODEL is what `export -m` takes: a named architecture, a directory in Hugging Face or timm layout, a
    checkpoint file with --arch, hf-hub:ORG/NAME, or py:PACKAGE.MODULE:FACTORY, whose code is run. GMACs are
    those of the matrix products.
    """
    from vit_deploy.bundle import Bundle
    from vit_deploy.bundle.manifest import MANIFEST_NAME

    if (Path(target) / MANIFEST_NAME).is_file():
        if ranges:
            raise _ranges_of_bundle(target)
        _inspect_bundle(Bundle.open(target), target, image_size, prove, as_json)
        return
    if images and not (prove or ranges):
        raise UsageFailed(
            "--images is given without --prove or --ranges", expected="something to do with the pictures"
        )
    from vit_deploy.proof import require_passed
    from vit_deploy.weights import load_model
    from vit_deploy.weights.request import Request

    loading = functools.partial(
        load_model,
        target,
        arch=arch,
        allow_nonfinite=allow_nonfinite,
        use_ema=use_ema,
        input_shape=input_shape,
    )
    model = loading(image_size=image_size)
    tell_notes(model)
    pictures = chosen_pictures(images, max_images)
    # The import is proved at the checkpoint's own size: resampling comes after it.
    proved = loading() if prove and image_size else model
    proof = run_proof(Request(target, arch, use_ema=use_ema), proved, pictures) if prove else None
    watch = run_ranges(model, pictures) if ranges else None
    _show_model(model, proof, watch, batch_size, depth, as_json)
    if proof is not None:
        require_passed(proof)
    kept = (" --use-ema" if use_ema else "") + (" --prove" if prove else "")
    given = _given(arch, input_shape, image_size)
    next_step(f"vit-deploy export -m {shlex.quote(target)}{given} --format onnx{kept}")


def _given(arch: str, input_shape: str, image_size: tuple[int, int] | None) -> str:
    """The flags that said which model, as `export` takes them too."""
    given = f" --arch {shlex.quote(arch)}" if arch else ""
    given += f" --input-shape {shlex.quote(input_shape)}" if input_shape else ""
    return given + (f" --image-size {size_text(image_size)}" if image_size else "")


def _inspect_bundle(
    bundle: Bundle, target: str, image_size: tuple[int, int] | None, prove: bool, as_json: bool
) -> None:
    if prove:
        raise no_checkpoint_in(bundle)
    if image_size:
        raise UsageFailed(
            f"{target!r} is a bundle, whose image size is what it was exported at",
            expected="--image-size with a model",
            next_command=f"vit-deploy export -m {shlex.quote(target)} --image-size {size_text(image_size)}",
        )
    show_bundle(bundle, as_json)


def _ranges_of_bundle(target: str) -> UsageFailed:
    return UsageFailed(
        f"{target!r} is a bundle, and --ranges is asked of a model",
        expected="the checkpoint that it was made from; verify tells a bundle's, under range_watch",
        next_command=f"vit-deploy verify {shlex.quote(target)} --json",
    )


def _show_model(
    model: Model, proof: Proof | None, watch: RangeWatch | None, batch_size: int, depth: int, as_json: bool
) -> None:
    from vit_deploy.model.summary import totals

    rows = layers(model, batch_size)
    total = totals(rows)
    shown = [row for row in rows if row.level <= depth]
    if as_json:
        print_json(
            "inspect",
            {
                "kind": "model",
                **_model_json(model),
                "batch_size": batch_size,
                "parameters": total.parameters,
                "gmacs": total.gmacs,
                "layers": [_layer_json(row) for row in shown],
                "proof": proof.to_dict() if proof else None,
                "ranges": watch.to_dict() if watch else None,
            },
        )
    else:
        for line in describe(model):
            click.echo(line)
        click.echo()
        alike = model.config.kind == "vit"  # the blocks of another module may differ
        brief = [row for row in shown if not (alike and LATER_BLOCK.match(row.name))]
        print_table(["layer", "type", "output", "parameters>", "GMACs>"], [_layer_cells(row) for row in brief])
        click.echo()
        click.echo(
            f"{total.parameters:,} parameters ({human_bytes(4 * total.parameters)} in fp32), "
            f"{total.gmacs:.2f} GMACs at batch {batch_size}"
        )
        if proof is not None:
            click.echo()
            print_proof(proof)
        if watch is not None:
            click.echo()
            print_ranges(watch)


def _layer_cells(row: LayerRow) -> tuple[str, ...]:
    indent = "  " * row.level
    name = row.name.rpartition(".")[2] if row.name else "model"
    if name.isdigit():  # a block is known by its list and its number
        name = ".".join(row.name.split(".")[-2:])
    return (
        f"{indent}{name}",
        row.type,
        "x".join(map(str, row.output_shape)) or "–",
        f"{row.parameters:,}",
        f"{row.macs / 1e9:.4f}" if row.macs else "–",
    )


def _layer_json(row: LayerRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "type": row.type,
        "level": row.level,
        "input_shape": list(row.input_shape),
        "output_shape": list(row.output_shape),
        "parameters": row.parameters,
        "gmacs": row.macs / 1e9,
    }


def _model_json(model: Model) -> dict[str, Any]:
    return {
        "source": asdict(model.source),
        "config": model.config.to_dict(),
        "preprocessing": model.preprocessing.to_dict() if model.preprocessing else None,
        "labels": list(model.labels),
    }
