"""``hf-hub:ORG/NAME[@REVISION]``: fetches the few files of a checkpoint, then it is a directory.

What was fetched before is found in huggingface_hub's cache, so this works offline the second time;
``HF_HUB_OFFLINE=1`` and the user's token are huggingface_hub's own affair and are respected.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.weights.files import CONFIG_NAME, OPEN_CLIP_CONFIG, PROCESSOR_NAME

if TYPE_CHECKING:
    from vit_deploy.weights.request import Request

PREFIX = "hf-hub:"

_SAFE = (
    CONFIG_NAME,
    PROCESSOR_NAME,
    OPEN_CLIP_CONFIG,
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
)
_OPEN_CLIP = ("open_clip_model.safetensors",)
"""Fetched only where there is OpenCLIP's config and no other safetensors file: often there are both."""

_PICKLED = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model-*.bin",
    "open_clip_pytorch_model.bin",
)
"""Fetched only where there is no safetensors file."""


def detects(request: Request) -> bool:
    """Whether the reference is on the hub."""
    return request.reference.startswith(PREFIX)


def fetch(request: Request) -> Request:
    """The same request for the directory into which the hub's files were fetched.

    Raises:
        UsageFailed: when the reference is not ``hf-hub:ORG/NAME`` or ``hf-hub:ORG/NAME@REVISION``.
        ImportFailed: when it cannot be had: offline, unknown, gated, or without weights.
    """
    name = request.reference.removeprefix(PREFIX)
    repository, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository) or name.endswith("@"):
        raise UsageFailed(
            f"{request.reference!r} is no name on the hub",
            expected=f"{PREFIX}ORG/NAME or {PREFIX}ORG/NAME@REVISION",
        )
    directory = _snapshot(repository, revision, _SAFE)
    if (directory / OPEN_CLIP_CONFIG).is_file() and not any(directory.glob("*.safetensors")):
        directory = _snapshot(repository, revision, _OPEN_CLIP)
    if not any(directory.glob("*.safetensors")):
        directory = _snapshot(repository, revision, _PICKLED)
    return replace(request, reference=str(directory), name=name)


def _snapshot(repository: str, revision: str, patterns: tuple[str, ...]) -> Path:
    import huggingface_hub

    try:
        found = huggingface_hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=list(patterns)
        )
    except Exception as error:  # its transport's errors are those of a library that has changed before
        raise _failure(repository, revision, error) from error
    return Path(found)


def _failure(repository: str, revision: str, error: Exception) -> ImportFailed:
    from huggingface_hub import errors

    url = f"https://huggingface.co/{repository}"
    download = f"hf download {repository}{f' --revision {revision}' if revision else ''} --local-dir DIR"
    if isinstance(error, errors.GatedRepoError):
        return ImportFailed(
            f"{repository!r} is gated",
            expected="an account that was let in",
            next_command=f"ask at {url}, then: hf auth login",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ImportFailed(
            f"{repository!r} has no revision {revision!r}", expected=f"one listed at {url}/tree/main"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ImportFailed(
            f"the hub knows no {repository!r}, or does not show it to you",
            expected="ORG/NAME of a public model, or one that your account sees",
            next_command="hf auth login, where it is private",
        )
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return ImportFailed(
            f"{repository!r} is not in the local cache, and the hub cannot be reached",
            expected="a connection with HF_HUB_OFFLINE unset, or the files in the cache",
            next_command=f"where there is a connection: {download}; then: -m DIR",
        )
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return ImportFailed(
        f"{repository!r} could not be fetched: {first}",
        expected="the files of a timm or transformers checkpoint",
        next_command=f"{download}; then: -m DIR",
    )
