"""Our own bundle as a source: its reference weights, described by ``manifest.json``.

Only what makes a model is read here. The whole manifest, with its artefacts, is the bundle's own
affair (:mod:`vit_deploy.bundle`).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.weights.files import read_json
from vit_deploy.weights.hashes import sha256_of
from vit_deploy.weights.imported import Model
from vit_deploy.weights.safetensors_file import read_safetensors
from vit_deploy.weights.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.model.fields import Fields
    from vit_deploy.weights.request import Request

MANIFEST_NAME = "manifest.json"


def detects(request: Request) -> bool:
    """Whether the reference is a bundle."""
    return (request.path / MANIFEST_NAME).is_file()


def load(request: Request) -> Model:
    """The model of a bundle, once the hash of its weights was found right.

    Raises:
        ImportFailed: when the manifest is no JSON, or lacks what makes a model.
        HostileInput: when the weights are missing or were changed, or lie outside the bundle.
    """
    record = read_json(request.path / MANIFEST_NAME).fields("model")
    source = record.fields("source")
    if record.text("kind", "vit") == "module":
        raise _own_code(request, record, source.text("name"))
    try:
        config = ViTConfig.from_dict(record.fields("config").data)
    except (TypeError, ValueError) as error:
        raise HostileInput(
            f"the config in {MANIFEST_NAME} has a field of a wrong type: {error}",
            expected="the manifest as vit-deploy wrote it",
            next_command="vit-deploy export again",
        ) from error
    return Model(
        config=config,
        weights=read_safetensors(_verified_path(request.path, record.fields("weights"))),
        preprocessing=Preprocessing.from_dict(record.fields("preprocessing").data),
        labels=record.texts("labels", ()),
        source=Source(source.text("kind"), source.text("name"), source.text("sha256")),
    )


def _own_code(request: Request, record: Fields, name: str) -> ImportFailed:
    """A bundle of a user's own module has its weights and not its code, which no manifest may import."""
    own = record.fields("config").boolean("own_weights", True)
    file = request.path / record.fields("weights").text("name")
    weights = "" if own else f" --weights {str(file)!r}"
    return ImportFailed(
        f"the bundle at {request.reference!r} was made from {name}, whose code it does not hold",
        expected="the code named by you",
        next_command=f"vit-deploy export -m {name}{weights} -o {request.reference}",
    )


def _verified_path(bundle: Path, weights: Fields) -> Path:
    name = weights.text("name")
    inside = PurePosixPath(name)
    path = bundle / name
    if not name or inside.is_absolute() or ".." in inside.parts or "\\" in name or path.is_symlink():
        raise HostileInput(
            f"the manifest's weights {name!r} do not lie inside the bundle",
            expected="the manifest as vit-deploy wrote it",
            next_command="do not use this bundle",
        )
    if not path.is_file():
        raise HostileInput(
            f"the weights {str(path)!r} are missing",
            expected="the file that the manifest names",
            next_command="vit-deploy export again",
        )
    if sha256_of(path) != weights.text("sha256"):
        raise HostileInput(
            f"{str(path)!r} was changed since it was exported: its SHA-256 is not the manifest's",
            expected=f"SHA-256 {weights.text('sha256')[:16]}…",
            next_command="vit-deploy export again, or restore the file",
        )
    return path
