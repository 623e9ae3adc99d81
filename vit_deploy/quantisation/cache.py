"""What was seen on calibration pictures, kept on the disk: choosing other ranges costs no second pass.

An entry is named by all that it depends on: the weights, the graph, the pictures, the preprocessing, what the
caller did to the weights, and the code. A change of any is another name, so nothing is ever out of date.

A cache must never decide whether something works: an entry that is cut off or was changed is not there, and a
folder that cannot be written means that nothing is kept. Entries come into being whole, by a rename. They are
numpy archives without pickled objects, whose members carry checksums.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy import __version__
from vit_deploy.environment import cache_folder, package_version
from vit_deploy.quantisation.observe import BINS, Observed, observe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from vit_deploy.protocols import Progress
    from vit_deploy.quantisation.samples import Samples
    from vit_deploy.spec import IOSpec
    from vit_deploy.weights.imported import Model

    Seen = dict[str, Observed]

LIMIT = 128 * 2**20
"""Bytes that all entries may take; one of a ViT-B takes about 1 MB."""

SUFFIX = ".npz"
_PREFIX = ".writing-"

_CODE = (
    "quantisation/samples.py",
    "quantisation/observe.py",
    "parity/inputs.py",
    "parity/feeding.py",
    "model/images.py",
    "model/preprocess.py",
)
"""What makes observations of pictures and a graph."""

_PACKAGES = ("numpy", "onnxruntime", "pillow")

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading an entry raises that is cut off, was changed, or is gone meanwhile."""


class CalibrationCache:
    """Observations by name, in a folder.

    Args:
        folder: is made when something is first kept; ``None`` for the user's own.
        limit: bytes that all entries may take together; the longest unused go first.
    """

    def __init__(self, folder: Path | None = None, limit: int = LIMIT) -> None:
        self.folder = folder or cache_folder() / "calibration"
        self.limit = limit

    def get(self, name: str) -> Seen | None:
        """What is kept under a name, or ``None`` where there is nothing that can be trusted."""
        import numpy as np

        path = self._path(name)
        try:
            # numpy leaves a file open that it opened and cannot make sense of.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as entry:
                seen = _unpacked(name, {key: entry[key] for key in entry.files})
            os.utime(path)  # it was used just now
        except _UNREADABLE:
            return None
        return seen

    def put(self, name: str, seen: Mapping[str, Observed]) -> None:
        """Keep observations under a name; where that cannot be done, nothing is kept."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(self._path(name), _packed(name, seen))
            self._make_room()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _write(self, path: Path, arrays: Mapping[str, Any]) -> None:
        """A file of its own, renamed when it is whole."""
        import numpy as np

        handle, staged = tempfile.mkstemp(prefix=_PREFIX, dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez_compressed(file, **arrays)
            Path(staged).replace(path)
        except BaseException:
            Path(staged).unlink(missing_ok=True)
            raise

    def _make_room(self) -> None:
        entries = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another process makes room, too
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
        excess = sum(size for _, size, _ in entries) - self.limit
        for _, size, path in sorted(entries):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


def observe_once(
    graph: ir.Model,
    model: Model,
    spec: IOSpec,
    samples: Samples,
    tensors: Sequence[str],
    *,
    settings: Mapping[str, Any],
    means: bool = False,
    batch_size: int = 8,
    progress: Progress | None = None,
    cache: CalibrationCache | None = None,
) -> Seen:
    """:func:`~vit_deploy.quantisation.observe.observe`, or what it gave when all was the same before.

    Args:
        graph: an fp32 graph, weights unread.
        model: whose weights they are, and its preprocessing.
        spec: the graph's inputs and outputs.
        samples: the pictures.
        tensors: names of values.
        settings: whatever else decides the numbers in the graph's unread weights, as plain data: how they
            were smoothed, corrected. Weights that differ under the same settings are taken for the same.
        means: keep the mean of each channel, too.
        batch_size: pictures in a batch; it changes nothing but the last bits of means.
        progress: advanced by one for each picture.
        cache: the user's own unless given.

    Raises:
        ExportFailed: as :func:`~vit_deploy.quantisation.observe.observe` does.
    """
    cache = cache or CalibrationCache()
    name = calibration_key(graph, model, samples, tensors, {**settings, "means": means})
    seen = cache.get(name) if name else None
    if seen is None:
        batches = samples.batches(model, spec, batch_size)
        seen = observe(graph, spec, tensors, batches, means=means, progress=progress)
        if name:
            cache.put(name, seen)
    return seen


def calibration_key(
    graph: ir.Model, model: Model, samples: Samples, tensors: Sequence[str], settings: Mapping[str, Any]
) -> str:
    """The name of an entry, in hexadecimal; empty where nothing can be kept, as the code cannot be read."""
    from vit_deploy.graph.stream import skeleton

    code = _code_version()
    if not code:
        return ""
    recipe = model.preprocessing
    described = {
        "code": code,
        "weights": model.weights.digest,
        "graph": hashlib.sha256(skeleton(graph).SerializeToString(deterministic=True)).hexdigest(),
        "preprocessing": recipe.to_dict() if recipe else None,
        "pictures": [samples.digest, samples.count],
        "tensors": list(tensors),
        "settings": dict(settings),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


@functools.cache
def _code_version() -> str:
    package = Path(__file__).parents[1]
    versions = [f"{name} {package_version(name)}" for name in _PACKAGES]
    digest = hashlib.sha256("\n".join([__version__, *versions]).encode())
    try:
        for place in _CODE:
            digest.update(f"\n{place}\n".encode() + (package / place).read_bytes())
    except OSError:  # an installation without sources
        return ""
    return digest.hexdigest()


def _packed(name: str, seen: Mapping[str, Observed]) -> dict[str, Any]:
    """Observations as a few arrays: what differs in length lies end to end."""
    import numpy as np

    entries = list(seen.values())
    told = {"key": name, "names": list(seen), "channels": [len(entry.channel_max) for entry in entries]}
    arrays = {
        "told": np.frombuffer(json.dumps(told).encode(), dtype=np.uint8),
        "bounds": np.array([(entry.low, entry.high, entry.bin_width) for entry in entries]),
        "histograms": np.stack([entry.histogram for entry in entries]),
        "channel_max": np.concatenate([entry.channel_max for entry in entries]),
    }
    means = [entry.mean for entry in entries if entry.mean is not None]
    return {**arrays, "means": np.concatenate(means)} if means else arrays


def _unpacked(name: str, arrays: Mapping[str, Any]) -> Seen:
    """The inverse of :func:`_packed`.

    Raises:
        ValueError: for arrays that do not fit together, or are of another name.
    """
    import numpy as np

    told = json.loads(arrays["told"].tobytes())
    names, channels = told["names"], told["channels"]
    ends = np.cumsum(channels)
    whole = (
        told["key"] == name
        and len(names) == len(channels)
        and arrays["bounds"].shape == (len(names), 3)
        and arrays["histograms"].shape == (len(names), BINS)
        and arrays["channel_max"].shape == (ends[-1],)
        and ("means" not in arrays or arrays["means"].shape == (ends[-1],))
    )
    if not whole:
        raise ValueError("the arrays do not fit together")
    largest = np.split(arrays["channel_max"], ends[:-1])
    means = np.split(arrays["means"], ends[:-1]) if "means" in arrays else [None] * len(names)
    return {
        key: Observed(key, float(low), float(high), counts, float(width), most, mean)
        for key, (low, high, width), counts, most, mean in zip(
            names, arrays["bounds"], arrays["histograms"], largest, means, strict=True
        )
    }
