"""A bare checkpoint file: the architecture is named by the user, the dialect by the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.errors import UsageFailed
from vit_deploy.model.architectures import NAMED_CONFIGS, named_config
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.weights import timm, transformers
from vit_deploy.weights.files import read_checkpoint_file
from vit_deploy.weights.hashes import sha256_later
from vit_deploy.weights.imported import Model, Source

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.request import Request

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def detects(request: Request) -> bool:
    """Whether a file of weights is named, by itself or beside an architecture."""
    if request.weights is not None or request.path.is_file():
        return True
    return request.path.suffix in SUFFIXES and not request.path.exists()


def load(request: Request) -> Model:
    """The model of a file with timm's or transformers' names; preprocessing is timm's default.

    Raises:
        UsageFailed: when the architecture is not named, twice named, or unknown.
        ImportFailed: when the weights are not those of the architecture.
        HostileInput: when the file is truncated or holds code.
    """
    path, arch = _file_and_arch(request)
    base = named_config(arch)
    weights = read_checkpoint_file(path)
    if transformers.speaks(weights):
        kind = "transformers"
        config, weights = transformers.config_of(weights, base, request.num_classes)
    else:
        kind = "timm"
        config, weights = timm.config_of(weights, base, request.num_classes)
    return Model(
        config=config,
        weights=weights,
        preprocessing=Preprocessing.default(config),
        labels=(),
        source=Source(kind, arch, sha256_later(path)),
    )


def _file_and_arch(request: Request) -> tuple[Path, str]:
    if request.weights is None:
        if not request.arch:
            raise UsageFailed(
                f"{request.reference!r} is a bare checkpoint file, and does not say of what architecture",
                expected="its architecture",
                next_command=f"-m {request.reference!r} --arch {next(iter(NAMED_CONFIGS))}",
            )
        return request.path, request.arch
    if request.arch and request.reference and request.arch != request.reference:
        raise UsageFailed(
            f"-m names {request.reference!r} and --arch {request.arch!r}", expected="one architecture"
        )
    if request.path.is_dir():
        raise UsageFailed(
            f"-m is the directory {request.reference!r}, which has weights of its own",
            expected="no --weights; that goes with a named architecture",
        )
    return request.weights, request.arch or request.reference
