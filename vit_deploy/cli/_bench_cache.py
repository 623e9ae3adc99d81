"""The bundle that `vit-deploy bench` makes for itself when it is given none: kept in the cache."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from typing import TYPE_CHECKING

from vit_deploy.cli._output import TerminalProgress, note, warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vit_deploy.bench.plan import Chosen, Skipped
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.errors import VitDeployError
    from vit_deploy.spec import BatchRange
    from vit_deploy.weights.imported import Model

FALLBACK_FORMAT = "onnx"
"""What is exported when only eager is measured: a bundle exists only around an artefact."""


def cached_bundle(
    reference: str | None, chosen: Sequence[Chosen], batch_sizes: Sequence[int], input_shape: str = ""
) -> tuple[Bundle, list[Skipped]]:
    """A bundle in the cache with what the chosen backends need; what is missing is exported first.

    Args:
        reference: the model; ``vit_base_patch16_224`` with random weights when ``None``.
        chosen: the backends to be measured.
        batch_sizes: what the artefacts must take.
        input_shape: what a py: module takes.

    Returns:
        The bundle, and the backends whose format cannot be exported here.

    Raises:
        BackendMissing: when the format of a named backend cannot be exported here.
        VitDeployError: what kept the artefact of a named backend out of the bundle.
    """
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.deploy.export import export_model
    from vit_deploy.model.architectures import DEFAULT_ARCH
    from vit_deploy.spec import BatchRange
    from vit_deploy.weights import load_model

    formats, skipped = _exportable(chosen)
    model = load_model(reference or DEFAULT_ARCH, input_shape=input_shape)
    if model.source.kind == "random":
        warn(f"{model.source.name} has random weights: its times hold, its predictions mean nothing")
    own = model.config.io_spec().batch
    batch = own if own.is_fixed else BatchRange(1, 1, max(8, *batch_sizes))
    path = cache_path(model)
    # What a user's code does today no hash of its weights can tell: such artefacts are made anew.
    held = set() if model.is_live else _whole_formats(path, batch)
    wanted = list(dict.fromkeys(formats.values())) or [FALLBACK_FORMAT]
    missing = [name for name in wanted if name not in held]
    if missing:
        note(f"no bundle was given: exporting {model.source.name} to {', '.join(missing)} in {str(path)!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with TerminalProgress() as progress:
            outcomes = export_model(model, path, missing, batch=batch, progress=progress)
        errors = {outcome.format: outcome.error for outcome in outcomes if outcome.error is not None}
        if errors and set(errors) == set(wanted):
            # There is no bundle without an artefact, so not even eager can be measured.
            raise next(iter(errors.values()))
        skipped += _without_failed(formats, errors, chosen)
    return Bundle.open(path), skipped


def _without_failed(
    formats: Mapping[str, str], errors: Mapping[str, VitDeployError], chosen: Sequence[Chosen]
) -> list[Skipped]:
    """The backends whose artefact was not accepted; the error of one that the user named is raised."""
    from vit_deploy.bench.plan import Skipped

    for entry in chosen:
        error = errors.get(formats.get(entry.runtime.name, ""))
        if error is not None and entry.named:
            raise error
    return [
        Skipped(backend, errors[name].found, errors[name].next_command)
        for backend, name in formats.items()
        if name in errors
    ]


def cache_path(model: Model) -> Path:
    """Where the bundle of a model is kept: the name says which model, the hash says which weights."""
    from vit_deploy.environment import cache_folder

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.source.name).strip("-.") or "model"
    config = json.dumps(model.config.to_dict(), sort_keys=True) if model.is_live else ""
    sha256 = hashlib.sha256(config.encode()).hexdigest()[:8] if config else ""
    return cache_folder() / "bench" / "-".join(filter(None, (name, model.source.sha256[:12], sha256)))


def _exportable(chosen: Sequence[Chosen]) -> tuple[dict[str, str], list[Skipped]]:
    """For each backend the first of its formats that can be exported here."""
    from vit_deploy import registry
    from vit_deploy.bench.plan import Skipped
    from vit_deploy.errors import BackendMissing

    formats: dict[str, str] = {}
    skipped = []
    for entry in chosen:
        found = {name: registry.exporter(name).available() for name in entry.formats}
        able = [name for name, state in found.items() if state.ok]
        if able:
            formats[entry.runtime.name] = able[0]
        if able or not found:
            continue
        name, state = next(iter(found.items()))
        reason = f"format {name!r} cannot be exported here: {state.reason}"
        if entry.named:
            raise BackendMissing(reason, expected="an exporter that works here", next_command=state.mend)
        skipped.append(Skipped(entry.runtime.name, reason, state.mend))
    return formats, skipped


def _whole_formats(path: Path, batch: BatchRange) -> set[str]:
    """The formats that the bundle at ``path`` holds unchanged, for all of ``batch``.

    A bundle in the cache that is broken is removed: it can be made again.
    """
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.errors import HostileInput, ImportFailed

    try:
        bundle = Bundle.open(path)
        bundle.model()
        for name in bundle.records:
            bundle.artefact(name)
    except ImportFailed:
        return set()
    except HostileInput as error:
        warn(f"the bundle in the cache is broken and is made again: {error.found}")
        shutil.rmtree(path)
        return set()
    return {
        record.format
        for record in bundle.records.values()
        if record.batch.minimum <= batch.minimum and batch.maximum <= record.batch.maximum
    }
