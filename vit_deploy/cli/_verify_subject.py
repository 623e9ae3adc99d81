"""What ``verify`` judges: artefacts of a bundle, or a file that somebody else exported from a model."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.cli._code import named_code
from vit_deploy.cli._verify_options import pairs
from vit_deploy.cli._weights import tell_notes
from vit_deploy.errors import UsageFailed, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vit_deploy.bundle import Bundle
    from vit_deploy.parity.check import Opener
    from vit_deploy.protocols import Artefact, Runtime
    from vit_deploy.weights.imported import Model


@dataclass(frozen=True)
class Subject:
    """What is judged.

    Attributes:
        name: what the user called it.
        model: what it was made from.
        artefacts: each with its size in bytes.
        bundle: where they lie; ``None`` for a candidate.
        code: of the module that the bundle was made from, where the user named it.
        notes: what was taken for granted of a candidate.
    """

    name: str
    model: Model
    artefacts: tuple[tuple[Artefact, int], ...]
    bundle: Bundle | None = None
    code: str = ""
    notes: tuple[str, ...] = ()


CANDIDATE_FLAGS = ("renamed", "dtype", "arch", "weights", "num_classes", "image_size", "use_ema")
"""What goes with ``--candidate`` only."""


def bundle_subject(path: Path, formats: str, runtime: Runtime | None, words: Mapping[str, Any]) -> Subject:
    """The artefacts of a bundle, once every hash was found right.

    Args:
        path: of the bundle.
        formats: those asked for, by comma, or ``all``.
        runtime: what is to run them, where one was named.
        words: the command's other arguments, by name.

    Raises:
        UsageFailed: when there are none, or for a flag that goes with a candidate.
    """
    from vit_deploy.bundle import Bundle
    from vit_deploy.model.module_config import ModuleConfig
    from vit_deploy.weights.module import code_not_named

    given = [name for name in CANDIDATE_FLAGS if words[name]]
    if given:
        flag = {"renamed": "candidate-output"}.get(given[0], given[0].replace("_", "-"))
        raise UsageFailed(
            f"--{flag} says something of a candidate, and there is none", expected="--candidate FILE"
        )
    opened = Bundle.open(path)
    names = _chosen(opened, formats, runtime, path)
    # Every hash is checked before anything opens any file.
    artefacts = tuple((opened.artefact(name), opened.records[name].nbytes) for name in names)
    code = named_code(opened, words["model"], words["trust_code"])
    if isinstance(opened.config, ModuleConfig) and not code:
        raise code_not_named(opened.config)
    return Subject(str(path), opened.model(code), artefacts, opened, code)


def candidate_subject(
    target: Path, file: Path, folder: Path, words: Mapping[str, Any], open_session: Opener
) -> Subject:
    """A file that somebody else exported from the model ``target``.

    Args:
        target: the model, as ``export -m`` takes it.
        file: the file.
        folder: an empty folder for what has to be written.
        words: the command's other arguments, by name.
        open_session: how sessions are opened.
    """
    from vit_deploy.parity.candidates import Asked, adopt
    from vit_deploy.weights import load_model

    if words["formats"] != "all" or words["against"] or words["model"]:
        flag = "--format" if words["formats"] != "all" else "--against" if words["against"] else "-m"
        raise UsageFailed(
            f"{flag} says something of a bundle, and --candidate is a file", expected=f"no {flag}"
        )
    model = load_model(
        str(target),
        arch=words["arch"],
        weights=words["weights"],
        num_classes=words["num_classes"],
        image_size=words["image_size"],
        use_ema=words["use_ema"],
    )
    tell_notes(model)
    if model.source.kind == "random" and not target.exists():
        raise UsageFailed(
            f"{str(target)!r} is an architecture with random weights, of which nobody has exported anything",
            expected="the checkpoint that the candidate was made from",
            next_command="--weights FILE, or a directory or hf-hub name in its place",
        )
    outputs = pairs("--candidate-output", words["renamed"])
    asked = Asked(outputs, words["dtype"], words["trust_code"], open_session)
    candidate = adopt(file, model, asked, folder)
    size = file.stat().st_size
    return Subject(str(target), model, ((candidate.artefact, size),), notes=candidate.notes)


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
