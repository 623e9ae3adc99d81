"""The flags of ``export``, in the order of its help: its own, then those of the exporters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy import registry
from vit_deploy.cli._code import input_shape_option
from vit_deploy.cli._output import note
from vit_deploy.cli._proof import prove_option
from vit_deploy.cli._sizes import dynamic_option, image_size_option
from vit_deploy.cli._weights import use_ema_option
from vit_deploy.errors import UsageFailed
from vit_deploy.model.architectures import DEFAULT_ARCH
from vit_deploy.parity.images import MAX_IMAGES
from vit_deploy.protocols import option_fields
from vit_deploy.spec import AUTO, CONTRACTS, PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "-m",
        "--model",
        default="",
        help="A named architecture (random weights), a directory in Hugging Face or timm layout, a bundle, "
        "a checkpoint file with --arch, hf-hub:ORG/NAME, or py:PACKAGE.MODULE:FACTORY for a module of your "
        f"own, whose code is run (the current directory is importable).  [default: {DEFAULT_ARCH}]",
    ),
    click.option("--arch", default="", help="The architecture of a checkpoint file; see `vit-deploy models`."),
    click.option(
        "--weights",
        default="",
        type=click.Path(),
        help="A checkpoint file for the architecture, or the py: module, that --model names.",
    ),
    input_shape_option,
    click.option("--num-classes", type=click.IntRange(min=0), help="Classes of the checkpoint's head."),
    click.option("--format", "formats", default="onnx", show_default=True, help="Formats, by comma, or `all`."),
    click.option(
        "--dtype",
        type=click.Choice((*PRECISIONS, AUTO)),
        default="fp32",
        show_default=True,
        help="Declared precision of the artefacts; auto: the fastest that holds, rung by rung.",
    ),
    click.option(
        "--input",
        "contract",
        type=click.Choice(CONTRACTS),
        default="pixel_values",
        show_default=True,
        help="What the artefacts take: normalised pixels; uint8 pictures of the model's size, normalised in "
        "the artefact; or pictures of any size, resized and cropped in it too.",
    ),
    click.option("-o", "--output", type=click.Path(path_type=Path), help="The bundle; made where none is."),
    click.option("--outputs", default="", help="Outputs, by comma: logits, embedding, tokens, image_embeds."),
    image_size_option,
    dynamic_option,
    click.option("--minShapes", "min_shapes", default="", help="Smallest input, as in trtexec: 1x3x224x224."),
    click.option("--optShapes", "opt_shapes", default="", help="Input to be fastest at."),
    click.option("--maxShapes", "max_shapes", default="", help="Largest input.  [default: 8x3x224x224]"),
    click.option("--images", type=click.Path(path_type=Path), help="A folder of pictures to verify with."),
    click.option(
        "--max-images",
        type=click.IntRange(min=1),
        default=MAX_IMAGES,
        show_default=True,
        help="How many of those pictures are used, evenly spread.",
    ),
    click.option("--verify/--no-verify", default=True, help="Prove each artefact equal to eager PyTorch."),
    prove_option,
    click.option(
        "--require",
        default="",
        metavar="KEY=VALUE",
        help="What must have been built, by comma: fused-attention=all,dtype=fp16,tf32=off.",
    ),
    click.option("--allow-nonfinite", is_flag=True, help="Take weights that hold NaN or Inf."),
    use_ema_option,
    click.option(
        "--seed",
        type=int,
        default=0,
        show_default=True,
        help="Seed of random weights, and of torch while a py: factory runs.",
    ),
)


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Offer every flag that is not an exporter's own."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def exporter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Offer every field of every exporter's ``Options`` as a flag; unset flags stay ``None``."""
    seen: dict[str, tuple[Any, list[str]]] = {}
    for name in registry.formats():
        for field in option_fields(registry.exporter(name).Options).values():
            seen.setdefault(field.name, (field, []))[1].append(name)
    for field, takers in reversed(seen.values()):
        command = _flag(field, takers)(command)
    return command


def _flag(field: Any, takers: Sequence[str]) -> Callable[..., Any]:
    flag = field.metadata["flag"] or f"--{field.name.replace('_', '-')}"
    text = f"[{', '.join(takers)}] {field.metadata['help']}"
    settings: dict[str, Any] = {"default": None, "help": text}
    choices = field.metadata["choices"]
    if isinstance(field.default, bool):
        return click.option(f"{flag}/--no-{flag.removeprefix('--')}", field.name, **settings)
    if choices:
        settings["type"] = click.Choice(choices)
    elif isinstance(field.default, (int, float)):
        settings["type"] = type(field.default)
    return click.option(flag, field.name, **settings)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a list by comma."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def chosen_formats(text: str) -> list[str]:
    """The formats named in a list, or all that this machine can make; the rest is told on stderr."""
    if text != "all":
        names = [registry.canonical(name) for name in words_of(text)]
        if not names:
            raise UsageFailed(
                "--format names no format", expected="--format onnx", next_command="vit-deploy formats"
            )
        for name in names:
            registry.exporter(name)
        return names
    names = []
    for name in registry.formats():
        found = registry.exporter(name).available()
        if found.ok:
            names.append(name)
        else:
            note(f"left out: {name}: {found.reason}; {found.mend}")
    return names
