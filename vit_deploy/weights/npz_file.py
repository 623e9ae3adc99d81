"""``.npz`` archives, as ``numpy.savez`` writes them, read array by array; nothing in them is unpickled.

Each member is a ``.npy`` file, whose header says dtype and shape
(https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). The headers are read at once
and held against the sizes that the archive's directory declares; the numbers are read when asked for.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch

_MAX_GROWTH = 16
"""How many times its size an archive may unpack to: weights hardly shrink, a bomb does by a thousand."""

_HARMLESS = 64 << 20
"""Bytes that any archive may unpack to."""

_BFLOAT16 = "|V2"
"""How numpy, which has no such dtype, saves JAX's bfloat16."""


def read_npz(path: Path) -> Weights:
    """The arrays of an ``.npz`` archive, unread.

    Raises:
        HostileInput: when it is truncated, holds pickled objects, would unpack to far more than its own
            size, or its headers do not fit their members.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _require_sane(members, path)
            return Weights(_member(archive, member, path) for member in members)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        OSError,
        EOFError,
        ValueError,
        NotImplementedError,
    ) as error:
        raise _damaged(path, str(error) or type(error).__name__) from error


def _require_sane(members: list[zipfile.ZipInfo], path: Path) -> None:
    names = [member.filename for member in members]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    if twice:
        raise _damaged(path, f"it holds {min(twice)!r} twice")
    total, size = sum(member.file_size for member in members), path.stat().st_size
    if total > max(_HARMLESS, _MAX_GROWTH * size):
        raise HostileInput(
            f"{str(path)!r} has {size:,} bytes and would unpack to {total:,}",
            expected=f"at most {_MAX_GROWTH} times its size",
            next_command="do not use this checkpoint",
        )
    if any(member.flag_bits & 1 for member in members):
        raise _damaged(path, "it is encrypted")


def _damaged(path: Path, reason: str) -> HostileInput:
    return HostileInput(
        f"{str(path)!r} is no whole .npz archive: {reason}",
        expected="a file as numpy.savez wrote it",
        next_command="copy or download the checkpoint again",
    )


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> WeightTensor:
    from numpy.lib import format as npy

    name = member.filename.removesuffix(".npy")
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        header = file.tell()
    if dtype.hasobject:
        raise HostileInput(
            f"array {name!r} of {str(path)!r} holds pickled objects, which are not opened",
            expected="arrays of numbers",
            next_command="do not use this checkpoint, or have its owner save plain arrays",
        )
    offset = _data_offset(archive, member) if member.compress_type == zipfile.ZIP_STORED else None
    array = _Array(path, member, shape, dtype, fortran=fortran, header=header, offset=offset)
    if header + array.size_of(shape) != member.file_size:
        raise _damaged(path, f"array {name!r} is not of the size that its header says")
    known = "bfloat16" if dtype.str == _BFLOAT16 else dtype.name
    return WeightTensor(name, shape, known, array.read, row=array.row)


def _data_offset(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Where a member begins in the archive, behind its local header of 30 bytes, a name and extras."""
    file = archive.fp
    if file is None:
        raise ValueError("the archive was closed")
    file.seek(member.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))
    return member.header_offset + 30 + int(name) + int(extra)


@dataclass(frozen=True)
class _Array:
    """One member of an archive, found again when it is read.

    Attributes:
        header: bytes before the numbers, inside the member.
        offset: where the member begins in the archive if it is stored as it is; ``None`` if packed.
    """

    path: Path
    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    header: int
    offset: int | None

    def size_of(self, shape: tuple[int, ...]) -> int:
        """Bytes of an array of this dtype."""
        return self.dtype.itemsize * math.prod(shape)

    def read(self) -> torch.Tensor:
        """All of it; the checksum that the archive holds is verified on the way."""
        data = self._bytes(0, self.member.file_size)
        if zlib.crc32(data) != self.member.CRC:
            raise _damaged(self.path, f"the checksum of {self.member.filename!r} is wrong")
        return self._tensor(data[self.header :], self.shape)

    def row(self, index: int) -> torch.Tensor:
        """What stands at ``index`` of the first axis; the rest is not read unless it is packed."""
        if self.fortran:
            return self.read()[index].contiguous()
        size = self.size_of(self.shape[1:])
        return self._tensor(self._bytes(self.header + index * size, size), self.shape[1:])

    def _bytes(self, skip: int, size: int) -> memoryview:
        data = memoryview(bytearray(size))
        try:
            if self.offset is None:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as packed:
                    packed.seek(skip)
                    unpacked = packed.read(size)
                    read = data[: len(unpacked)].nbytes
                    data[:read] = unpacked
            else:
                with self.path.open("rb", buffering=0) as file:
                    file.seek(self.offset + skip)
                    read = file.readinto(data) or 0
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
            raise _damaged(self.path, str(error)) from error
        if read != size:
            raise _damaged(self.path, f"{self.member.filename!r} ends early")
        return data

    def _tensor(self, data: memoryview, shape: tuple[int, ...]) -> torch.Tensor:
        import numpy as np

        array = np.frombuffer(data, self.dtype).reshape(shape, order="F" if self.fortran else "C")
        return _as_tensor(array, self.member.filename)


def _as_tensor(array: np.ndarray[Any, Any], name: str) -> torch.Tensor:
    import numpy as np
    import torch

    if array.dtype.str == _BFLOAT16:
        return torch.from_numpy(np.ascontiguousarray(array).view(np.int16)).view(torch.bfloat16)
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    try:
        return torch.from_numpy(native.reshape(array.shape))
    except TypeError as error:  # text, dates, records
        raise ImportFailed(f"array {name!r} has dtype {array.dtype}", expected="numbers") from error
