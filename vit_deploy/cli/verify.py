"""``vit-deploy verify``: the artefacts of a bundle against eager PyTorch, on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._code import code_options, named_code
from vit_deploy.cli._output import (
    TerminalProgress,
    json_option,
    next_step,
    print_json,
    print_notes,
    print_table,
)
from vit_deploy.cli._pictures import chosen_pictures
from vit_deploy.errors import BackendMissing, ParityFailed, UsageFailed, unknown_name
from vit_deploy.parity.images import MAX_IMAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bundle import Bundle
    from vit_deploy.facts import Verdict
    from vit_deploy.protocols import Runtime


@click.command(
    "verify",
    short_help="Check the artefacts of a bundle against eager PyTorch.",
    epilog="Examples: vit-deploy verify bundle · vit-deploy verify bundle --images photos --format onnx",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--images", type=click.Path(path_type=Path), metavar="DIR", help="A folder of pictures to verify with, too."
)
@click.option(
    "--max-images",
    type=click.IntRange(min=1),
    default=MAX_IMAGES,
    show_default=True,
    help="How many pictures of --images are used, evenly spread.",
)
@click.option("--format", "formats", default="all", show_default=True, help="Formats, by comma, or `all`.")
@click.option(
    "--backend",
    default="",
    metavar="NAME",
    help="What runs them: ort, torchscript, trt.  [default: the first this machine can run]",
)
@click.option("--device", default="", metavar="NAME", help="cpu, cuda or cuda:1.  [default: the best there is]")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads of an inference.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the generated pictures."
)
@code_options
@json_option
def command(
    bundle: Path,
    images: Path | None,
    max_images: int,
    formats: str,
    backend: str,
    device: str,
    threads: int | None,
    seed: int,
    model: str,
    trust_code: bool,
    as_json: bool,
) -> None:
    """Check each artefact of BUNDLE against eager PyTorch, on this machine.

    The bundle is not changed. Exit code 3 says that an artefact is not equal to eager PyTorch, 4 that
    none of those asked for can be run here. A bundle that was made from a py: module needs its code: name
    it with -m, or take the manifest's word for it with --trust-code.
    """
    from vit_deploy import registry
    from vit_deploy.bundle import Bundle
    from vit_deploy.facts import Device
    from vit_deploy.model.module_config import PREFIX, ModuleConfig
    from vit_deploy.parity import ParityCheck
    from vit_deploy.weights.module import code_not_named

    runtime = registry.runtime(backend) if backend else None
    chosen_device = Device.parse(device) if device else None
    opened = Bundle.open(bundle)
    names = _chosen(opened, formats, runtime, bundle)
    # Every hash is checked before anything opens any file.
    artefacts = [opened.artefact(name) for name in names]
    code = named_code(opened, model, trust_code)
    if isinstance(opened.config, ModuleConfig) and not code:
        raise code_not_named(opened.config)
    reference = opened.model(code)
    check = ParityCheck(reference, images=chosen_pictures(images, max_images), seed=seed, threads=threads)
    with TerminalProgress() as progress:
        verdicts = {
            artefact.name: check.judge(artefact, runtime=runtime, device=chosen_device, progress=progress)
            for artefact in artefacts
        }
    _report(opened, verdicts, bundle, as_json)
    _finish(verdicts, bundle, f" -m {PREFIX}{code}" if code else "")


def _chosen(bundle: Bundle, formats: str, runtime: Runtime | None, path: Path) -> list[str]:
    """The names of the artefacts asked for.

    Raises:
        UsageFailed: when there are none.
    """

    records = bundle.records
    export = f"vit-deploy export -m {shlex.quote(str(path))} -o {shlex.quote(str(path))} --format"
    if not records:
        raise UsageFailed(
            f"the bundle at {str(path)!r} holds no artefacts",
            expected="one or more",
            next_command=f"{export} onnx",
        )
    held = sorted({record.format for record in records.values()})
    asked = held if formats == "all" else _formats(formats)
    for name in asked:
        if name not in held:
            raise UsageFailed(
                f"the bundle at {str(path)!r} holds no {name} artefact",
                expected=f"--format {' or '.join(held)}",
                next_command=f"{export} {name}",
            )
    if runtime is not None and formats == "all":
        # What another backend opens was not asked for.
        asked = [name for name in asked if name in runtime.formats]
    if runtime is not None and not runtime.formats & set(asked):
        raise UsageFailed(
            f"{runtime.name} opens {', '.join(sorted(runtime.formats))}, and none of these was asked for",
            expected=f"a backend for {' or '.join(held)}",
            next_command=f"vit-deploy verify {shlex.quote(str(path))}",
        )
    return [name for name, record in records.items() if record.format in asked]


def _formats(text: str) -> list[str]:
    from vit_deploy import registry

    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageFailed("--format names no format", expected="--format onnx, or all")
    for word in words:
        if registry.canonical(word) not in registry.formats():
            raise unknown_name("format", word, [*registry.formats(), "all"], "vit-deploy formats")
    return [registry.canonical(word) for word in words]


def _report(bundle: Bundle, verdicts: dict[str, Verdict], path: Path, as_json: bool) -> None:
    if as_json:
        entries = [_entry(bundle, name, verdict) for name, verdict in verdicts.items()]
        print_json("verify", {"bundle": str(path), "artefacts": entries})
        return
    headings = ("artefact", "backend", "parity", "worst ratio>", "p95 ratio>", "top-1>", "samples>")
    print_table(headings, [_row(name, verdict) for name, verdict in verdicts.items()], title=f"bundle {path}")
    print_notes((name, verdict.reason) for name, verdict in verdicts.items())


def _entry(bundle: Bundle, name: str, verdict: Verdict) -> dict[str, Any]:
    """One artefact as the machine-readable document has it."""
    record = bundle.records[name]
    return {
        "name": name,
        "format": record.format,
        "dtype": record.precision,
        "bytes": record.nbytes,
        "passed": verdict.passed,
        "worst_ratio": verdict.worst_ratio,
        "p95_ratio": verdict.p95_ratio,
        "backend": verdict.backend or None,
        "reason": verdict.reason,
        "samples": verdict.samples,
        "details": dict(verdict.details),
    }


def _row(name: str, verdict: Verdict) -> Sequence[str]:
    limits = verdict.details.get("limits", {})
    return (
        name,
        verdict.backend or "–",
        verdict.word,
        _ratio(verdict.worst_ratio, limits.get("worst")),
        _ratio(verdict.p95_ratio, limits.get("p95")),
        _top1(verdict),
        str(verdict.samples or "–"),
    )


def _ratio(ratio: float | None, limit: float | None) -> str:
    if ratio is None:
        return "–"
    shown = f"{ratio:.2f}" if ratio < 1000 else f"{ratio:,.0f}"
    return shown if limit is None else f"{shown} (≤ {limit:g})"


def _top1(verdict: Verdict) -> str:
    """Agreeing samples of those whose first class is clear, over all batch sizes."""
    top1 = verdict.details.get("top1")
    if not top1 or not (top1["of"] or top1["near_ties"]):
        return "–"
    ties = f" + {top1['near_ties']} ties" if top1["near_ties"] else ""
    return f"{top1['agreed']}/{top1['of']}{ties}"


def _finish(verdicts: dict[str, Verdict], path: Path, code: str) -> None:
    """The next command, or the error that the exit code stands for.

    Raises:
        ParityFailed: when an artefact failed.
        BackendMissing: when none could be judged.
    """
    failed = [name for name, verdict in verdicts.items() if verdict.passed is False]
    if failed:
        raise ParityFailed(
            f"{len(failed)} of {len(verdicts)} artefacts not equal to eager PyTorch: {', '.join(failed)}",
            expected="a relative error within the limits of the parity criterion",
            next_command=f"vit-deploy export again, and do not use {' or '.join(failed)} until it passes",
        )
    passed = [verdict.backend for verdict in verdicts.values() if verdict.passed]
    if not passed:
        name, verdict = next(iter(verdicts.items()))
        told, _, mend = verdict.reason.rpartition("; ")
        raise BackendMissing(
            f"nothing could be verified here: {name}: {told or verdict.reason}",
            expected="a machine and a backend that can run it",
            next_command=mend if told else "vit-deploy doctor",
        )
    backends = ",".join(["eager", *dict.fromkeys(_short(name) for name in passed if name != "eager")])
    next_step(f"vit-deploy bench {shlex.quote(str(path))} --backend {backends}{code}")


def _short(backend: str) -> str:
    """The name users type for a backend."""
    return {"onnxruntime": "ort", "tensorrt": "trt"}.get(backend, backend)
