"""Our own bundles: a model, its weights and where it came from, beside an artefact that was not verified."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.specimens import timm, transformers
from tests.specimens.specimen import Specimen, Stranger

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = "native"


def save(folder: Path, seed: int, *, origin: Specimen) -> dict[str, str]:
    """A bundle of what another specimen is imported as; its artefact plays no part here."""
    from vit_deploy.deploy.export import export_model
    from vit_deploy.weights import load_model

    model = load_model(**origin.save(folder / "origin"))
    (outcome,) = export_model(model, folder / "bundle", ["onnx"], verify=False)
    if outcome.error is not None:
        raise outcome.error
    return {"reference": str(folder / "bundle")}


def _save_origin(folder: Path, seed: int, *, origin: Specimen) -> dict[str, str]:
    return origin.save(folder)


def _save_tampered(folder: Path, seed: int) -> dict[str, str]:
    arguments = save(folder, seed, origin=_origin(timm.SPECIMENS, "deit_tiny_patch16_224"))
    (weights,) = (folder / "bundle").rglob("*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    return arguments


def _origin(among: tuple[Specimen, ...], name: str) -> Specimen:
    return next(entry for entry in among if entry.name == name)


def _specimen(origin: Specimen) -> Specimen:
    name = f"bundle of {origin.source} {origin.name}"
    return Specimen(
        origin.family, SOURCE, name, partial(save, origin=origin), plain=partial(_save_origin, origin=origin)
    )


SPECIMENS: tuple[Specimen, ...] = (
    _specimen(_origin(timm.SPECIMENS, "deit_tiny_patch16_224")),
    _specimen(_origin(timm.SPECIMENS, "vit_base_patch14_reg4_dinov2")),
    _specimen(_origin(timm.SPECIMENS, "eva02_tiny_patch14_224")),
    _specimen(_origin(transformers.SPECIMENS, "CLIPVisionModelWithProjection")),
)

STRANGERS: tuple[Stranger, ...] = (
    Stranger("Tampered bundle", SOURCE, "tampered weights", _save_tampered, says="SHA-256"),
)
