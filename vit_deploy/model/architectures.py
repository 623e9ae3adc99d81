"""The table of named architectures.

Names are those that timm (https://github.com/huggingface/pytorch-image-models) made the field's
standard. The table, ``architectures.json``, holds what sets each apart from ``ViTConfig()``; it was
read off timm's own modules by ``scripts/timm_architectures.py``, and timm is not needed to use it.
Beside it stand the architectures that no ViTConfig can say, with what is missing. Names of torchvision
and OpenCLIP have a table of their own, by ``scripts/other_architectures.py``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from vit_deploy.errors import UsageFailed, unknown_name
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.other_networks import as_module, what_it_has

ARCHITECTURES_FILE = Path(__file__).with_name("architectures.json")
OTHER_ARCHITECTURES_FILE = Path(__file__).with_name("architectures_others.json")

DEFAULT_ARCH = "vit_base_patch16_224"


@functools.cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ARCHITECTURES_FILE.read_text(encoding="utf-8"))
    document["architectures"] |= _others()
    return document


@functools.cache
def _others() -> dict[str, Any]:
    tables = json.loads(OTHER_ARCHITECTURES_FILE.read_text(encoding="utf-8")).values()
    return {name: entry for table in tables for name, entry in table.items()}


def is_timms(name: str) -> bool:
    """Whether a named architecture has its name from timm."""
    return name not in _others()


class _Configs(MutableMapping[str, ViTConfig]):
    """The configs by name; the file is read at the first look, each config made when it is asked for."""

    def __init__(self) -> None:
        self._made: dict[str, ViTConfig] = {}
        self._names: dict[str, dict[str, Any] | None] = {}

    def _known(self) -> dict[str, dict[str, Any] | None]:
        if not self._names:
            self._names = dict(_document()["architectures"])
        return self._names

    def __getitem__(self, name: str) -> ViTConfig:
        if name not in self._made:
            self._made[name] = ViTConfig.from_dict(self._known()[name] or {})
        return self._made[name]

    def __setitem__(self, name: str, config: ViTConfig) -> None:
        self._known()[name] = None
        self._made[name] = config

    def __delitem__(self, name: str) -> None:
        del self._known()[name]
        self._made.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def __contains__(self, name: object) -> bool:
        return name in self._known()


NAMED_CONFIGS: MutableMapping[str, ViTConfig] = _Configs()
"""Every named architecture, in the order of the names."""


def source_of(name: str) -> str:
    """The library whose name an architecture has: ``timm``, ``torchvision`` or ``open_clip``."""
    return _sources().get(name, "timm")


@functools.cache
def _sources() -> dict[str, str]:
    tables = json.loads(OTHER_ARCHITECTURES_FILE.read_text(encoding="utf-8"))
    return {name: source for source, table in tables.items() for name in table}


def what_is_missing(name: str) -> str:
    """What an architecture of such a name has that no ViTConfig can say; empty where the name does not tell."""
    plain = name.partition(".")[0]
    return unsupported().get(plain, "") or what_it_has(plain)


@functools.cache
def unsupported() -> dict[str, str]:
    """The architectures that are known and cannot be said, with what each has."""
    return {name: part for part, names in _document()["unsupported"].items() for name in names}


def named_config(name: str) -> ViTConfig:
    """The config of a named architecture; a pretrained tag (``.augreg_in21k``) is allowed and ignored.

    Raises:
        UsageFailed: for an architecture that is not supported, with what is missing; for an unknown
            name, with the nearest ones.
    """
    plain = name.partition(".")[0]
    if plain in NAMED_CONFIGS:
        return NAMED_CONFIGS[plain]
    missing = what_is_missing(plain)
    if missing:
        raise UsageFailed(
            f"the architecture {plain!r} is not supported: it has {missing}",
            expected="a Vision Transformer of pre-norm blocks, LayerNorm and full attention",
            next_command=f"export it as a PyTorch module: {as_module(plain)}",
        )
    raise unknown_name("architecture", name, NAMED_CONFIGS, "vit-deploy models")
