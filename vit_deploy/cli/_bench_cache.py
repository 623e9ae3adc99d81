"""The bundle that `vit-deploy bench` makes for itself when it is given none: kept in the cache."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.cli._output import TerminalProgress, note, warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vit_deploy.bench.plan import Chosen, Skipped
    from vit_deploy.bundle.manifest import ArtefactRecord
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.errors import VitDeployError
    from vit_deploy.spec import BatchRange, Contract, SizeRange
    from vit_deploy.weights.imported import Model

FALLBACK_FORMAT = "onnx"
"""What is exported when only eager is measured: a bundle exists only around an artefact."""


@dataclass(frozen=True)
class Wanted:
    """What the artefacts in the cache must be able to do.

    Attributes:
        batch_sizes: images in one inference.
        image_sizes: ``(height, width)`` each; the model's own where there are none.
        contracts: what they take.
        formats: only these; all that the backends open when empty.
        input_shape: what a py: module takes.
    """

    batch_sizes: Sequence[int] = (1,)
    image_sizes: Sequence[tuple[int, int]] = ()
    contracts: Sequence[Contract] = ("pixel_values",)
    formats: Sequence[str] = ()
    input_shape: str = ""

    @property
    def dynamic(self) -> bool:
        """Whether one artefact has to take several image sizes."""
        return len(self.image_sizes) > 1


def cached_bundle(
    reference: str | None, chosen: Sequence[Chosen], wanted: Wanted
) -> tuple[Bundle, list[Skipped]]:
    """A bundle in the cache with what the chosen backends need; what is missing is exported first.

    Args:
        reference: the model; ``vit_base_patch16_224`` with random weights when ``None``.
        chosen: the backends to be measured.
        wanted: what the artefacts must take.

    Returns:
        The bundle, and the backends whose format cannot be exported here.

    Raises:
        BackendMissing: when the format of a named backend cannot be exported here.
        VitDeployError: what kept the artefact of a named backend out of the bundle.
    """
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.model.architectures import DEFAULT_ARCH
    from vit_deploy.weights import load_model

    formats, skipped = _exportable(chosen, wanted.formats)
    size = wanted.image_sizes[0] if len(wanted.image_sizes) == 1 else None
    model = load_model(reference or DEFAULT_ARCH, input_shape=wanted.input_shape, image_size=size)
    if model.source.kind == "random":
        warn(f"{model.source.name} has random weights: its times hold, its predictions mean nothing")
    path = cache_path(model, dynamic=wanted.dynamic)
    names = list(dict.fromkeys(formats.values())) or [FALLBACK_FORMAT]
    for contract in wanted.contracts:
        errors = _export_missing(model, path, names, contract, wanted)
        if errors and set(errors) == set(names):
            # There is no bundle without an artefact, so not even eager can be measured.
            raise next(iter(errors.values()))
        skipped += _without_failed(formats, errors, chosen)
    return Bundle.open(path), skipped


def _export_missing(
    model: Model, path: Path, names: Sequence[str], contract: Contract, wanted: Wanted
) -> dict[str, VitDeployError]:
    """Export the formats that the bundle lacks; what went wrong, by format."""
    from vit_deploy.deploy.export import export_model

    batch, pictures, images = _ranges(model, contract, wanted)
    # What a user's code does today no hash of its weights can tell: such artefacts are made anew.
    held = set() if model.is_live else _whole_formats(path, contract, batch, images)
    missing = [name for name in names if name not in held]
    if not missing:
        return {}
    note(f"no bundle was given: exporting {model.source.name} to {', '.join(missing)} in {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with TerminalProgress() as progress:
        outcomes = export_model(
            model,
            path,
            missing,
            batch=batch,
            contract=contract,
            picture_sizes=pictures,
            image_sizes=images,
            progress=progress,
        )
    return {outcome.format: outcome.error for outcome in outcomes if outcome.error is not None}


def _ranges(
    model: Model, contract: Contract, wanted: Wanted
) -> tuple[BatchRange, SizeRange | None, SizeRange | None]:
    """The batch sizes, the sizes of pictures and those of the network that an artefact is made for."""
    from vit_deploy.cli._shapes import named_ranges
    from vit_deploy.model.sizes import size_range
    from vit_deploy.spec import BatchRange

    own = model.config.io_spec().batch
    batch = own if own.is_fixed else BatchRange(1, 1, max(8, *wanted.batch_sizes))
    _, pictures, _ = named_ranges(model, contract, ("", "", ""), dynamic=False)
    if not wanted.dynamic or contract == "image":
        return batch, pictures, None
    config = model.vit_config
    every = [config.image_size, *wanted.image_sizes]
    least, most = (
        (choose(size[0] for size in every), choose(size[1] for size in every)) for choose in (min, max)
    )
    return batch, None, size_range(config, least, config.image_size, most)


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


def cache_path(model: Model, *, dynamic: bool = False) -> Path:
    """Where the bundle of a model is kept: the name says which model, the hash says which weights."""
    from vit_deploy.environment import cache_folder
    from vit_deploy.model.module_config import ModuleConfig
    from vit_deploy.spec import size_text

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.source.name).strip("-.") or "model"
    config = json.dumps(model.config.to_dict(), sort_keys=True) if model.is_live else ""
    sha256 = hashlib.sha256(config.encode()).hexdigest()[:8] if config else ""
    module = isinstance(model.config, ModuleConfig)
    size = "" if module else "any-size" if dynamic else size_text(model.vit_config.image_size)
    return cache_folder() / "bench" / "-".join(filter(None, (name, size, model.source.sha256[:12], sha256)))


def _exportable(chosen: Sequence[Chosen], only: Sequence[str]) -> tuple[dict[str, str], list[Skipped]]:
    """For each backend the first of its formats that can be exported here."""
    from vit_deploy import registry
    from vit_deploy.bench.plan import Skipped
    from vit_deploy.errors import BackendMissing

    formats: dict[str, str] = {}
    skipped = []
    for entry in chosen:
        found = {
            name: registry.exporter(name).available() for name in entry.formats if not only or name in only
        }
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


def _whole_formats(path: Path, contract: Contract, batch: BatchRange, sizes: SizeRange | None) -> set[str]:
    """The formats that the bundle at ``path`` holds unchanged, for all of ``batch`` and ``sizes``.

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
        if record.contract == contract
        and record.batch.minimum <= batch.minimum
        and batch.maximum <= record.batch.maximum
        and _holds(record, sizes)
    }


def _holds(record: ArtefactRecord, sizes: SizeRange | None) -> bool:
    """Whether an artefact takes every image size that is asked for."""
    made_for = record.io_spec().sizes
    if sizes is None:
        return True
    return made_for is not None and made_for.holds(sizes.minimum) and made_for.holds(sizes.maximum)
