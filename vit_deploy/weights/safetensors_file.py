"""Safetensors files, read tensor by tensor, and never resident as a whole.

What is read through a mapping of the file stays resident, and would make the whole checkpoint count as
memory of this process. So a tensor is read into memory of its own, at the offset that the header gives;
and whether its numbers are finite is seen through a mapping of that tensor alone, which is gone after.

Format: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON, data).
"""

from __future__ import annotations

import json
import mmap
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.weights.tensors import Weights, WeightTensor, count_nonfinite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""torch's name of each dtype of the format that is read."""

_WINDOW = 1 << 26
"""Bytes that are mapped at a time, and so at most resident, while numbers are looked at."""


def read_safetensors(path: Path, digest: Callable[[], str] | None = None) -> Weights:
    """The weights of a safetensors file, unread; the header is checked against the file's size.

    Args:
        path: of the file.
        digest: gives the weights' :attr:`~vit_deploy.weights.tensors.Weights.digest` where it is known.

    Raises:
        HostileInput: when the file is truncated, is no safetensors file, names a tensor twice, or has
            bytes that belong to no tensor or to two.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            pass  # it checks sizes, dtypes, and that the tensors fill the file without gap or overlap
        file = _SafetensorsFile.of(path)
        header, start = _header(path)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise HostileInput(
            f"{str(path)!r} is no whole safetensors file: {error}",
            expected="a file as safetensors wrote it",
            next_command="copy or download the checkpoint again",
        ) from error
    return Weights((file.tensor(name, header[name], start) for name in sorted(header)), digest=digest)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header without its metadata, and where the data begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length), object_pairs_hook=_once)
    header.pop("__metadata__", None)
    return header, 8 + length


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two entries of one name, readers take the first or the last: which one is a matter of luck.
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"its header names {twice!r} twice")
    return entries


@dataclass(frozen=True)
class _SafetensorsFile:
    """Reads parts of one file, from any thread, and notices when it is no longer the same file."""

    path: Path
    stamp: tuple[int, int, int]

    @classmethod
    def of(cls, path: Path) -> _SafetensorsFile:
        return cls(path, _stamp(path.stat()))

    def tensor(self, name: str, entry: dict[str, Any], start: int) -> WeightTensor:
        begin, end = entry["data_offsets"]
        shape, dtype = tuple(entry["shape"]), DTYPES.get(entry["dtype"], entry["dtype"])
        place = (name, dtype, start + begin, end - begin)
        return WeightTensor(
            name, shape, dtype, partial(self.read, *place, shape), scan=partial(self.nonfinite, *place)
        )

    def read(self, name: str, dtype: str, offset: int, size: int, shape: tuple[int, ...]) -> torch.Tensor:
        """One tensor, in memory of its own."""
        import torch

        if dtype not in DTYPES.values():
            raise ImportFailed(f"weight {name!r} has dtype {dtype}", expected=f"one of {', '.join(DTYPES)}")
        data = torch.empty(size, dtype=torch.uint8)
        if size:
            with self._opened(name) as descriptor:
                _fill(descriptor, _bytes_of(data), offset)
        whole: torch.Tensor = data.view(getattr(torch, dtype)).reshape(shape)
        return whole

    def nonfinite(self, name: str, dtype: str, offset: int, size: int) -> int:
        """How many numbers of a floating tensor are NaN or Inf."""
        import torch

        if not size:
            return 0
        kind, count = getattr(torch, dtype), 0
        with self._opened(name) as descriptor:
            for begin in range(offset, offset + size, _WINDOW):
                length = min(_WINDOW, offset + size - begin)
                # A map begins at a whole page.
                lead = begin % mmap.ALLOCATIONGRANULARITY
                with mmap.mmap(
                    descriptor, lead + length, access=mmap.ACCESS_COPY, offset=begin - lead
                ) as window:
                    values = torch.frombuffer(window, dtype=torch.uint8)[lead:]
                    aligned = values if not lead % kind.itemsize else values.clone()
                    count += count_nonfinite(aligned.view(kind))
                    del values, aligned
        return count

    def _opened(self, name: str) -> _Descriptor:
        return _Descriptor(self, name)


class _Descriptor:
    """``with`` gives the number of the opened file, once it is known to be the one whose header was read."""

    def __init__(self, file: _SafetensorsFile, name: str) -> None:
        self.file, self.name, self.number = file, name, -1

    def __enter__(self) -> int:
        try:
            self.number = os.open(self.file.path, os.O_RDONLY)
            same = _stamp(os.fstat(self.number)) == self.file.stamp
        except OSError as error:
            self.__exit__()
            raise self._gone(error.strerror or str(error)) from error
        if not same:
            self.__exit__()
            raise self._gone("the file has changed")
        return self.number

    def __exit__(self, *_: object) -> None:
        if self.number >= 0:
            os.close(self.number)

    def _gone(self, reason: str) -> HostileInput:
        return HostileInput(
            f"weight {self.name!r} of {str(self.file.path)!r} cannot be read: {reason}",
            expected="the file as it was when its header was read",
            next_command="copy or download the checkpoint again",
        )


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a tensor of bytes, to read into."""
    return tensor.numpy().data


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _fill(descriptor: int, view: memoryview, offset: int) -> None:
    """Read until the view is full; one call gives at most 2 GiB."""
    for piece in _pieces(view):
        read = os.preadv(descriptor, [piece], offset)
        if read != len(piece):
            raise HostileInput(
                "a checkpoint ended while it was read",
                expected="a file that nobody changes",
                next_command="copy or download the checkpoint again",
            )
        offset += read


def _pieces(view: memoryview) -> Iterator[memoryview]:
    for begin in range(0, len(view), 1 << 30):
        yield view[begin : begin + (1 << 30)]
