"""The named architectures with what people call them and the weights that exist, to be searched.

No torch is needed, so that listing comes at once.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vit_deploy.model.architectures import NAMED_CONFIGS, source_of, unsupported

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig

PRETRAINED_FILE = Path(__file__).with_name("pretrained.json")


@dataclass(frozen=True)
class Entry:
    """One named architecture.

    Attributes:
        name: as its library calls it.
        source: the library whose name it is.
        config: what it is.
        pretrained: where weights of it lie on the hub, by tag.
    """

    name: str
    source: str
    config: ViTConfig
    pretrained: dict[str, str]

    def matching_tags(self, word: str) -> list[str]:
        """The tags that contain ``word``; all of them where the name itself does."""
        if word.lower() in self.name.lower():
            return list(self.pretrained)
        return [tag for tag, hub in self.pretrained.items() if word.lower() in f"{tag} {hub}".lower()]


def search(word: str) -> list[Entry]:
    """The architectures whose name, or the name of whose weights, contains ``word``; all for an empty one."""
    found = []
    for name in NAMED_CONFIGS:
        pretrained = _pretrained().get(name, {})
        text = " ".join((name, *pretrained, *pretrained.values())).lower()
        if word.lower() in text:
            found.append(Entry(name, source_of(name), NAMED_CONFIGS[name], pretrained))
    return found


def refused(word: str) -> dict[str, str]:
    """Architectures whose name contains ``word`` that are known and not supported: what each has."""
    return {name: part for name, part in unsupported().items() if word.lower() in name.lower()}


@functools.cache
def _pretrained() -> dict[str, dict[str, str]]:
    table: dict[str, dict[str, str]] = json.loads(PRETRAINED_FILE.read_text(encoding="utf-8"))
    return table
