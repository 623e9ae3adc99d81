"""Reference outputs kept on the disk, for every artefact and every run that needs the same ones.

An entry is named by all that it depends on: the weights, the config, the preprocessing, the very input
arrays, the code, and what it is (:class:`Shelf`). A change of any of these is another name, so nothing is
ever out of date; what is no longer asked for goes when room is needed, the longest unused first.

A cache must never decide whether something works. An entry that is cut off or was changed is not there;
a folder that cannot be written, or a full disk, only means that nothing is kept, which
:attr:`ReferenceCache.note` tells. Entries come into being whole, by a rename, so that processes need not wait
for one another: two that compute the same write the same.

An entry is a safetensors file (no pickle) of the values and a SHA-256 over name, dtype, shape and values. It is
a checksum and no signature: who can write the folder can write references, as they could the library itself.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy import __version__
from vit_deploy.environment import cache_folder, cpu_model
from vit_deploy.errors import UsageFailed, VitDeployError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vit_deploy.parity.inputs import Sample
    from vit_deploy.weights.imported import Model

    Values = NDArray[np.float64]

LIMIT_VARIABLE = "VIT_DEPLOY_REFERENCE_CACHE_BYTES"
"""Says how large the cache may be; 0 switches it off."""

DEFAULT_LIMIT = 2_000_000_000
"""Logits of 48 samples take 384 kB, tokens of a ViT-B 58 MB: room for thousands of runs, or dozens."""

SUFFIX = ".safetensors"
_PREFIX = ".writing-"
_ABANDONED_S = 3600.0
"""After so long, a file that somebody began to write is what a killed process left behind."""

_CODE = (
    "model",
    "parity/references.py",
    "parity/ranges.py",
    "parity/criterion.py",
    "weights/imported.py",
    "weights/resize.py",
)
"""What makes references of weights and inputs. A resampled model's weights are named by what they are made
from, so what resamples them is part of it."""


class ReferenceCache:
    """Arrays of float64 by name, in a folder.

    Args:
        folder: is made when something is first kept.
        limit: bytes that all entries may take together; 0 for a cache that keeps nothing.

    Attributes:
        note: why nothing can be kept, for a person to read; empty while all is well.
    """

    def __init__(self, folder: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        self.note = ""

    @classmethod
    def default(cls) -> ReferenceCache:
        """The user's own, in the cache folder, of the size that :data:`LIMIT_VARIABLE` says.

        Raises:
            UsageFailed: when that variable is no number of bytes.
        """
        text = os.environ.get(LIMIT_VARIABLE, "").strip()
        if text and not (text.isascii() and text.isdigit()):
            raise UsageFailed(
                f"{LIMIT_VARIABLE} is {text!r}",
                expected="a number of bytes, such as 2000000000; 0 for no cache",
                next_command=f"unset {LIMIT_VARIABLE}",
            )
        return cls(cache_folder() / "references", int(text) if text else DEFAULT_LIMIT)

    def get(self, name: str) -> Values | None:
        """The values under a name, or ``None`` where there are none that can be trusted."""
        from vit_deploy.weights.safetensors_file import read_safetensors

        path = self._path(name)
        if not self.limit or not path.is_file():
            return None
        try:
            held = {key: tensor.read().numpy() for key, tensor in read_safetensors(path).items()}
        # Cut off, changed, or gone meanwhile; PyTorch says that a file is gone with a RuntimeError.
        except (VitDeployError, OSError, RuntimeError, ValueError, TypeError):
            return None
        values, checksum = held.get("values"), held.get("sha256")
        if values is None or checksum is None or checksum.tobytes() != _checksum(name, values):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # it was used just now
        return values

    def put(self, name: str, values: Values) -> None:
        """Keep values under a name; where that cannot be done, :attr:`note` says why and no more is tried."""
        import numpy as np

        if not self.limit or self.note or values.nbytes > self.limit:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(self._path(name), name, np.asarray(values, dtype=np.float64, order="C"))
            self._make_room()
        except OSError as error:
            self.note = (
                f"references are not kept, so the next run computes them again: {error.strerror or error} "
                f"({self.folder}); VIT_DEPLOY_CACHE names another folder, {LIMIT_VARIABLE}=0 keeps none"
            )

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _write(self, path: Path, name: str, values: Values) -> None:
        """A file of its own, renamed when it is whole."""
        handle, staged = tempfile.mkstemp(prefix=_PREFIX, dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                for piece in _encoded(name, values):
                    file.write(piece)
            Path(staged).replace(path)
        except BaseException:
            Path(staged).unlink(missing_ok=True)
            raise

    def _make_room(self) -> None:
        """Remove the longest unused entries beyond the limit, and what killed processes left behind."""
        entries = []
        with os.scandir(self.folder) as found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):  # another process makes room, too
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(SUFFIX):
                        entries.append((status.st_mtime_ns, status.st_size, entry.path))
                    elif entry.name.startswith(_PREFIX) and time.time() - status.st_mtime > _ABANDONED_S:
                        Path(entry.path).unlink(missing_ok=True)
        excess = sum(size for _, size, _ in entries) - self.limit
        for _, size, path in sorted(entries):
            if excess <= 0:
                break
            Path(path).unlink(missing_ok=True)
            excess -= size


class Shelf:
    """The entries of one model on one set of samples, by what they are.

    Args:
        cache: where they are kept; nothing is where it is ``None``.
        model: eager at a precision.
        exact: eager in float64; ``model`` itself unless its positions were resampled otherwise.
        samples: what they are run on.
    """

    def __init__(
        self, cache: ReferenceCache | None, model: Model, exact: Model, samples: Sequence[Sample]
    ) -> None:
        # The code of a user's own module is no part of the key, so nothing is kept of it.
        known = cache is not None and cache.limit > 0 and model.config.kind == "vit" and code_version()
        self._cache = cache if known else None
        self._models = (model, exact)
        self._samples = samples

    def get(self, **what: Any) -> Values | None:
        """The entry of this description, or ``None``."""
        return self._cache.get(self._name(what)) if self._cache is not None else None

    def put(self, values: Values, **what: Any) -> None:
        """Keep the entry of this description."""
        if self._cache is not None:
            self._cache.put(self._name(what), values)

    def _name(self, what: dict[str, Any]) -> str:
        return _digest_of({"of": self._subject, **what})

    @functools.cached_property
    def _subject(self) -> str:
        """What all entries here depend on. The weights' hash is known already where they lie in a bundle."""
        model, exact = self._models
        recipe = model.preprocessing
        return _digest_of(
            {
                "weights": [model.weights.digest, exact.weights.digest],
                "config": model.config.to_dict(),
                "preprocessing": recipe.to_dict() if recipe else None,
                "inputs": [_input_digest(sample) for sample in self._samples],
                "code": code_version(),
            }
        )


def arithmetic() -> dict[str, Any]:
    """What the rounding of eager PyTorch depends on beside its code: part of the name of its errors."""
    import torch

    return {
        "cpu": cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "matmul": torch.get_float32_matmul_precision(),
        "onednn": torch.backends.mkldnn.enabled,
    }


@functools.cache
def code_version() -> str:
    """Of all that computes references, by versions and source text; empty where that cannot be read."""
    import torch

    package = Path(__file__).parents[1]
    digest = hashlib.sha256(f"{__version__} {torch.__version__}".encode())
    try:
        for place in _CODE:
            for file in sorted((package / place).glob("*.py")) or [package / place]:
                digest.update(f"\n{file.relative_to(package)}\n".encode() + file.read_bytes())
    except OSError:  # an installation without sources
        return ""
    return digest.hexdigest()


def _digest_of(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _input_digest(sample: Sample) -> str:
    digest = hashlib.sha256()
    for name, array in (("", sample.pixel_values), *sorted(sample.others.items())):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def _checksum(name: str, values: NDArray[Any]) -> bytes:
    import numpy as np

    digest = hashlib.sha256(f"{name} {values.dtype} {values.shape} ".encode())
    digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.digest()


def _encoded(name: str, values: Values) -> Iterator[bytes | memoryview]:
    """A safetensors file in pieces, the values uncopied (https://huggingface.co/docs/safetensors)."""
    import numpy as np

    checksum = _checksum(name, values)
    begin = len(checksum)
    header = {
        "sha256": {"dtype": "U8", "shape": [begin], "data_offsets": [0, begin]},
        "values": {
            "dtype": "F64",
            "shape": list(values.shape),
            "data_offsets": [begin, begin + values.nbytes],
        },
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text + checksum
    yield values.reshape(-1).view(np.uint8).data
