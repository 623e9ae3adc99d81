"""What OpenVINO compiled once, kept under the package's own cache folder: an IR is opened sooner again.

Only what does not hold the weights is kept (``CACHE_MODE`` ``OPTIMIZE_SIZE``): one or two MB for a model,
whose weights stay in its ``.bin``. OpenVINO does so for an IR alone, and opens it by the name and time of its
``.xml``; it does not see that the ``.bin`` was changed, nor that what it kept was damaged (one was opened, and
gave NaN). So here

- an entry belongs to an ``.xml`` and a ``.bin`` by size, inode and times of both, to the settings, the version
  and the processor;
- the SHA-256 of all that is in it stands beside it, and what does not fit it is thrown away;
- it loses the names of most of the layers that went into one, and they are kept with it;
- an entry is made in a folder of its own and renamed when it is whole;
- all entries together are bounded, and those that were not used for longest go first.

A folder that cannot be written means no cache, and no error. ``VIT_DEPLOY_MODEL_CACHE=0`` switches it off.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.environment import cache_folder, cpu_model

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 64 * 2**20
"""Bytes of all entries together."""

SWITCH = "VIT_DEPLOY_MODEL_CACHE"
SUMS = "sums.json"
ORIGINS = "origins.json"


@dataclass
class Kept:
    """What is known of an entry while its IR is compiled.

    Attributes:
        settings: what makes OpenVINO use the entry, or make it anew; none where there is no cache.
        origins: the layers that went into each node of the compiled model, as OpenVINO writes them; empty
            until the entry is made, when they are to be put here.
    """

    settings: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)


class ModelCache:
    """The entry of one IR at some settings; a context manager around its compilation.

    Args:
        path: the ``.xml``.
        settings: what it is compiled with.
        version: OpenVINO's.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], version: str) -> None:
        self.root = cache_folder() / "openvino"
        self.entry = self.root / _key(path, settings, version)
        self._making: Path | None = None
        self._kept = Kept()

    def __enter__(self) -> Kept:
        """No settings where no folder can be had."""
        try:
            if _is_whole(self.entry):
                os.utime(self.entry)
                folder = self.entry
                self._kept.origins = json.loads((folder / ORIGINS).read_text(encoding="utf-8"))
            else:
                _remove(self.entry)
                self.root.mkdir(parents=True, exist_ok=True)
                folder = self._making = Path(tempfile.mkdtemp(prefix=".making-", dir=self.root))
        except (OSError, ValueError):
            return self._kept
        self._kept.settings = {"CACHE_DIR": str(folder), "CACHE_MODE": "OPTIMIZE_SIZE"}
        return self._kept

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        made, self._making = self._making, None
        if made is None:
            return
        with contextlib.suppress(OSError):
            if kind is None and any(made.iterdir()):
                (made / ORIGINS).write_text(json.dumps(self._kept.origins), encoding="utf-8")
                (made / SUMS).write_text(json.dumps(_sums(made)), encoding="utf-8")
                made.rename(self.entry)  # fails where another process was quicker
        _remove(made)
        _bound(self.root)


def is_on() -> bool:
    """Whether the user has not switched it off."""
    return os.environ.get(SWITCH, "1").strip().lower() not in {"0", "no", "off", "false"}


def _key(path: Path, settings: Mapping[str, Any], version: str) -> str:
    from vit_deploy.graph.openvino_ir import weights_beside

    resolved = path.resolve()
    states = [file.stat() for file in (resolved, weights_beside(resolved))]
    told = [
        str(resolved),
        [[state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns] for state in states],
        sorted((name, str(value)) for name, value in settings.items()),
        version,
        cpu_model(),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _sums(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.iterdir()) if file.name != SUMS)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _is_whole(entry: Path) -> bool:
    try:
        return bool(json.loads((entry / SUMS).read_text(encoding="utf-8")) == _sums(entry))
    except (OSError, ValueError):
        return False


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _bound(root: Path) -> None:
    """Remove what was not used for longest until the rest is small enough."""
    with contextlib.suppress(OSError):
        entries = sorted(root.iterdir(), key=lambda entry: entry.stat().st_mtime, reverse=True)
        held = 0
        for entry in entries:
            held += sum(file.stat().st_size for file in entry.iterdir())
            if held > LIMIT:
                _remove(entry)
