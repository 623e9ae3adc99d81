"""``vit-deploy export``: from a checkpoint to a bundle of proven artefacts."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy import registry
from vit_deploy.cli._code import input_shape_option, module_batch_range
from vit_deploy.cli._output import (
    TerminalProgress,
    human_bytes,
    json_option,
    next_step,
    note,
    print_json,
    print_notes,
    print_table,
    warn,
)
from vit_deploy.cli._pictures import chosen_pictures
from vit_deploy.cli._proof import prove_option, run_proof
from vit_deploy.cli._shapes import picture_ranges
from vit_deploy.cli._sizes import dynamic_option, dynamic_ranges, image_size_option
from vit_deploy.cli._weights import tell_notes, use_ema_option
from vit_deploy.errors import BackendMissing, UsageFailed
from vit_deploy.model.architectures import DEFAULT_ARCH
from vit_deploy.model.module_config import PREFIX, ModuleConfig
from vit_deploy.parity.images import MAX_IMAGES
from vit_deploy.protocols import option_fields
from vit_deploy.spec import CONTRACTS, PRECISIONS, BatchRange

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vit_deploy.deploy.export import Outcome
    from vit_deploy.model.kinds import Architecture
    from vit_deploy.proof import Proof
    from vit_deploy.spec import Contract, SizeRange
    from vit_deploy.weights.imported import Model


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
    elif isinstance(field.default, int):
        settings["type"] = int
    return click.option(flag, field.name, **settings)


@click.command(
    "export",
    epilog="Examples: vit-deploy export --format onnx · "
    "vit-deploy export -m ./my-vit --format onnx,torchscript,tensorrt -o bundle",
)
@click.option(
    "-m",
    "--model",
    default="",
    help="A named architecture (random weights), a directory in Hugging Face or timm layout, a bundle, "
    "a checkpoint file with --arch, hf-hub:ORG/NAME, or py:PACKAGE.MODULE:FACTORY for a module of your own, "
    f"whose code is run (the current directory is importable).  [default: {DEFAULT_ARCH}]",
)
@click.option("--arch", default="", help="The architecture of a checkpoint file; see `vit-deploy models`.")
@click.option(
    "--weights",
    default="",
    type=click.Path(),
    help="A checkpoint file for the architecture, or the py: module, that --model names.",
)
@input_shape_option
@click.option("--num-classes", type=click.IntRange(min=0), help="Classes of the checkpoint's head.")
@click.option("--format", "formats", default="onnx", show_default=True, help="Formats, by comma, or `all`.")
@click.option(
    "--dtype",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="Declared precision of the artefacts.",
)
@click.option(
    "--input",
    "contract",
    type=click.Choice(CONTRACTS),
    default="pixel_values",
    show_default=True,
    help="What the artefacts take: normalised pixels; uint8 pictures of the model's size, normalised in the "
    "artefact; or pictures of any size, resized and cropped in it too.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The bundle; made where none is.")
@click.option("--outputs", default="", help="Outputs, by comma: logits, embedding, tokens, image_embeds.")
@image_size_option
@dynamic_option
@click.option("--minShapes", "min_shapes", default="", help="Smallest input, as in trtexec: 1x3x224x224.")
@click.option("--optShapes", "opt_shapes", default="", help="Input to be fastest at.")
@click.option("--maxShapes", "max_shapes", default="", help="Largest input.  [default: 8x3x224x224]")
@click.option("--images", type=click.Path(path_type=Path), help="A folder of pictures to verify with.")
@click.option(
    "--max-images",
    type=click.IntRange(min=1),
    default=MAX_IMAGES,
    show_default=True,
    help="How many of those pictures are used, evenly spread.",
)
@click.option("--verify/--no-verify", default=True, help="Prove each artefact equal to eager PyTorch.")
@prove_option
@click.option("--allow-nonfinite", is_flag=True, help="Take weights that hold NaN or Inf.")
@use_ema_option
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of random weights, and of torch while a py: factory runs.",
)
@exporter_options
@json_option
def command(
    model: str,
    arch: str,
    weights: str,
    input_shape: str,
    num_classes: int | None,
    formats: str,
    dtype: str,
    contract: Contract,
    output: Path | None,
    outputs: str,
    image_size: tuple[int, int] | None,
    dynamic: bool,
    min_shapes: str,
    opt_shapes: str,
    max_shapes: str,
    images: Path | None,
    max_images: int,
    verify: bool,
    prove: bool,
    allow_nonfinite: bool,
    use_ema: bool,
    seed: int,
    as_json: bool,
    **options: Any,
) -> int:
    """Export a model to one or more formats, each proven equal to eager PyTorch.

    The artefacts go into a bundle: a directory with one model, its weights and a manifest. An artefact
    that is not equal to eager PyTorch never enters it (exit 3).
    """
    names = chosen_formats(formats)
    from vit_deploy.deploy.export import export_model
    from vit_deploy.weights import load_model
    from vit_deploy.weights.request import Request

    model = model or (DEFAULT_ARCH if not arch and not weights else "")
    loading = functools.partial(
        load_model,
        model,
        arch=arch,
        weights=weights,
        num_classes=num_classes,
        allow_nonfinite=allow_nonfinite,
        seed=seed,
        use_ema=use_ema,
        input_shape=input_shape,
    )
    loaded = loading(image_size=image_size)
    tell_notes(loaded)
    if loaded.source.kind == "random":
        warn(f"{model} is an architecture: its weights are random (seed {seed}); give --weights or a directory")
    pictures = chosen_pictures(images, max_images)
    proof = None
    if prove:
        request = Request(model, arch, Path(weights) if weights else None, num_classes, seed, use_ema=use_ema)
        # The import is proved at the checkpoint's own size: resampling comes after it.
        proof = run_proof(request, loading() if image_size else loaded, pictures)
        note(f"proof: {proof.sentence}")
    target = output or Path(f"{_slug(model or arch or weights)}-bundle")
    batch, pictures_of, sizes = _ranges(loaded, contract, (min_shapes, opt_shapes, max_shapes), dynamic=dynamic)
    with TerminalProgress() as progress:
        outcomes = export_model(
            loaded,
            target,
            names,
            precision=dtype,  # type: ignore[arg-type]
            outputs=_words(outputs),  # type: ignore[arg-type]
            batch=batch,
            contract=contract,
            picture_sizes=pictures_of,
            image_sizes=sizes,
            options={name: value for name, value in options.items() if value is not None},
            images=pictures,
            verify=verify,
            proof=proof,
            progress=progress,
        )
    report(outcomes, target, as_json=as_json, proof=proof)
    return _finish(outcomes, target)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def chosen_formats(text: str) -> list[str]:
    """The formats named in a list, or all that this machine can make; the rest is told on stderr."""
    if text != "all":
        names = [registry.canonical(name) for name in _words(text)]
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


def _ranges(
    model: Model, contract: Contract, shapes: tuple[str, str, str], *, dynamic: bool
) -> tuple[BatchRange | None, SizeRange | None, SizeRange | None]:
    """What trtexec's shapes name: the batch sizes; the sizes of pictures and of images where they are free."""
    if dynamic:
        batch, sizes = dynamic_ranges(model.vit_config, contract, *shapes)
        return batch, None, sizes
    if contract == "pixel_values" or isinstance(model.config, ModuleConfig):
        return batch_range(model.config, *shapes), None, None
    return *picture_ranges(model.config, contract, *shapes), None


def batch_range(config: Architecture, smallest: str, best: str, largest: str) -> BatchRange | None:
    """The batch sizes that trtexec's shapes name; the rest of a shape must be the model's own.

    ``None`` where none is named and the model decides.

    Raises:
        UsageFailed: for a shape that is not ``BxCxHxW`` or is not the model's.
    """
    if isinstance(config, ModuleConfig):
        return module_batch_range(config, smallest, best, largest)
    default = BatchRange()
    low = _batch_of("--minShapes", smallest, config) or default.minimum
    high = _batch_of("--maxShapes", largest, config)
    middle = _batch_of("--optShapes", best, config)
    high = high or max(default.maximum, low, middle or 0)
    return BatchRange(low, middle or max(low, min(default.optimum, high)), high)


def _batch_of(flag: str, text: str, config: Architecture) -> int:
    if not text:
        return 0
    channels, (height, width) = config.in_channels, config.image_size
    found = re.fullmatch(r"(?:pixel_values:)?(\d+)x(\d+)x(\d+)x(\d+)", text)
    if not found or tuple(map(int, found.groups()[1:])) != (channels, height, width):
        raise UsageFailed(
            f"{flag} is {text!r}", expected=f"pixel_values:Bx{channels}x{height}x{width}, with a batch size B"
        )
    return int(found.group(1))


def _slug(model: str) -> str:
    """A folder name made of a model's name."""
    stem = Path(model.removeprefix("hf-hub:").removeprefix(PREFIX)).name or Path(model).resolve().name
    return re.sub(r"[^\w.-]+", "-", stem).removesuffix(".safetensors").removesuffix(".pth") or "model"


def report(outcomes: Sequence[Outcome], target: Path, *, as_json: bool, proof: Proof | None = None) -> None:
    """The outcomes as one JSON document, or as a table."""
    if as_json:
        artefacts = [outcome_json(entry) for entry in outcomes]
        proved = proof.to_dict() if proof else None
        print_json("export", {"bundle": str(target), "proof": proved, "artefacts": artefacts})
        return
    rows = []
    for entry in outcomes:
        verdict = entry.verdict
        ratio = f"{verdict.worst_ratio:.2f}" if verdict and verdict.worst_ratio is not None else "–"
        rows.append(
            (
                entry.name,
                verdict.word if verdict else "not made",
                ratio,
                human_bytes(entry.record.nbytes) if entry.record else "–",
                f"{entry.export_s:.1f}",
                f"{entry.verify_s:.1f}",
            )
        )
    headings = ("artefact", "parity", "worst ratio>", "size>", "export s>", "verify s>")
    print_table(headings, rows, title=f"bundle {target}")
    print_notes((entry.name, _note(entry)) for entry in outcomes)


def _note(outcome: Outcome) -> str:
    if outcome.error:
        return outcome.error.in_a_line
    return outcome.verdict.reason if outcome.verdict else ""


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """One artefact as the machine-readable documents have it."""
    verdict, record = outcome.verdict, outcome.record
    return {
        "name": outcome.name,
        "format": outcome.format,
        "dtype": outcome.precision,
        "input": outcome.contract,
        "bytes": record.nbytes if record else None,
        "accepted": record is not None,
        "passed": verdict.passed if verdict else None,
        "worst_ratio": verdict.worst_ratio if verdict else None,
        "p95_ratio": verdict.p95_ratio if verdict else None,
        "backend": verdict.backend if verdict else None,
        "reason": verdict.reason if verdict else "",
        "samples": verdict.samples if verdict else 0,
        "error": str(outcome.error) if outcome.error else None,
        "files": [file.model_dump() for file in record.files] if record else [],
        "facts": dict(record.facts) if record else {},
        "export_s": round(outcome.export_s, 3),
        "verify_s": round(outcome.verify_s, 3),
    }


def _finish(outcomes: Sequence[Outcome], target: Path) -> int:
    """The next command, or the first error once everything else was told."""
    errors = [entry.error for entry in outcomes if entry.error]
    if errors:
        # What the machine lacks says less than what is wrong with an artefact.
        raise min(errors, key=lambda error: isinstance(error, BackendMissing))
    next_step(f"vit-deploy bench {shlex.quote(str(target))} --backend all")
    return 0
