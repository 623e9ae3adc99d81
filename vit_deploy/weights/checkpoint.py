"""A bare checkpoint file: the architecture is named by the user, the dialect by the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.errors import UsageFailed
from vit_deploy.model.architectures import DEFAULT_ARCH, named_config
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.weights import jax_npz, open_clip, strangers, timm, torchvision, transformers
from vit_deploy.weights.bare import Bare
from vit_deploy.weights.files import ends_like_a_checkpoint, read_checkpoint_file
from vit_deploy.weights.hashes import sha256_later
from vit_deploy.weights.imported import Model
from vit_deploy.weights.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.weights.request import Request
    from vit_deploy.weights.tensors import Weights


def _timm(weights: Weights, base: ViTConfig, arch: str, num_classes: int | None) -> Bare:  # noqa: ARG001
    return Bare(*timm.config_of(weights, base, num_classes))


DIALECTS: dict[str, tuple[Callable[[Weights], bool], Callable[[Weights, ViTConfig, str, int | None], Bare]]] = {
    "jax_npz": (jax_npz.speaks, jax_npz.read),
    "torchvision": (torchvision.speaks, torchvision.read),
    "open_clip": (open_clip.speaks, open_clip.read),
    "transformers": (transformers.speaks, transformers.read),
    "timm": (bool, _timm),
}
"""Whether a source's names are those of some weights, and how it reads them; the first that knows them
does, and timm knows them all."""


def detects(request: Request) -> bool:
    """Whether a file of weights is named, by itself or beside an architecture."""
    if request.weights is not None or request.path.is_file():
        return True
    return ends_like_a_checkpoint(request.path) and not request.path.exists()


def load(request: Request) -> Model:
    """The model of a file of any source's names.

    Raises:
        UsageFailed: when the architecture is not named, twice named, or unknown.
        ImportFailed: when the weights are not those of the architecture.
        HostileInput: when the file is truncated or holds code.
    """
    path, arch = _file_and_arch(request)
    base = named_config(arch)
    raw = read_checkpoint_file(path, use_ema=request.use_ema)
    strangers.refuse(raw)
    kind, read = next((kind, read) for kind, (speaks, read) in DIALECTS.items() if speaks(raw))
    bare = read(raw, base, arch, request.num_classes)
    return Model(
        config=bare.config,
        weights=bare.weights,
        preprocessing=bare.preprocessing or Preprocessing.default(bare.config),
        labels=(),
        source=Source(kind, arch, sha256_later(path)),
        notes=(*raw.notes, *bare.notes),
    )


def _file_and_arch(request: Request) -> tuple[Path, str]:
    if request.weights is None:
        if not request.arch:
            raise UsageFailed(
                f"{request.reference!r} is a bare checkpoint file, and does not say of what architecture",
                expected="its architecture",
                next_command=f"-m {request.reference!r} --arch {DEFAULT_ARCH}",
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
