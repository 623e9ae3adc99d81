"""Opens the zip of a ``.pt2`` package with nothing left on disk, not even by a process that is killed.

PyTorch's own loader unpacks a package below ``/tmp``, weights and all, and removes that when the process ends
well. Here the shared object is put into memory that has no name (``memfd_create``), which the system takes back
with the process, and is loaded from there. So a ``/tmp`` that forbids execution is no hindrance either.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import re
import shutil
import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REBUILD = "vit-deploy export --format pt2"
_CODE = re.compile(r"[^/]+/data/aotinductor/model/[^/]+\.wrapper\.so")
_SOURCE = re.compile(r"[^/]+/data/aotinductor/model/[^/]+\.cpp")
_LARGEST_SOURCE = 64 * 2**20
_WEIGHTS = b".lrodata"
_PUNCH_HOLE = 0x01 | 0x02
"""FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE (linux/falloc.h)."""

_OPENED = itertools.count(1)
_CALL = re.compile(r"\baoti_torch_(?:cpu|cuda)_+(\w+)\(")


@dataclass(frozen=True)
class Package:
    """What a package holds beside its code.

    Attributes:
        path: of the file.
        code: the record that is the shared object.
        calls: how often its code calls each of PyTorch's kernels, as the source beside it has it.
    """

    path: Path
    code: str
    calls: Counter[str]


def read_package(path: Path) -> Package:
    """Look into a package; nothing of it is run.

    Raises:
        RunFailed: for what is no such package.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            codes = [entry for entry in archive.infolist() if _CODE.fullmatch(entry.filename)]
            if len(codes) != 1:
                raise _no_package(path, f"it holds {len(codes)} compiled models")
            if codes[0].compress_type != zipfile.ZIP_STORED:
                raise _no_package(path, "its code is compressed, which PyTorch never writes")
            sources = [entry for entry in archive.infolist() if _SOURCE.fullmatch(entry.filename)]
            if sum(entry.file_size for entry in sources) > _LARGEST_SOURCE:
                raise _no_package(path, "its sources are of no size that a compiler takes")
            texts = [archive.read(entry).decode(errors="replace") for entry in sources]
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise _no_package(path, str(error)) from error
    calls = Counter(name for text in texts for name in _CALL.findall(text))
    return Package(path, codes[0].filename, calls)


@contextlib.contextmanager
def code_in_memory(package: Package) -> Iterator[str]:
    """A path to the shared object in memory without a name, whole, for as long as the context lasts.

    It is loaded by then, and what is mapped stays, but for the weights: loading copies them to where they are
    computed with, and the memory of the first copy is given back.

    Raises:
        RunFailed: when the record is cut short or damaged.
    """
    descriptor = _copied(package)
    try:
        yield _unlike_any_other(descriptor)
        _give_back_weights(descriptor)
    finally:
        os.close(descriptor)


def _unlike_any_other(descriptor: int) -> str:
    """A path to a descriptor that this process has not used before.

    The C library takes a path that it has loaded for the same object, and descriptors are used again. So
    a running number stands in each path, spelled in ``/`` and ``./``, which lead nowhere.
    """
    number = "".join("./" if bit == "1" else "/" for bit in f"{next(_OPENED):b}")
    return f"/proc/self/fd/{number}{descriptor}"


def _copied(package: Package) -> int:
    descriptor = os.memfd_create("model.wrapper.so", os.MFD_CLOEXEC)
    try:
        with (
            zipfile.ZipFile(package.path) as archive,
            archive.open(package.code) as reader,
            open(descriptor, "wb", closefd=False) as writer,
        ):
            shutil.copyfileobj(reader, writer, 1 << 22)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        os.close(descriptor)
        raise _no_package(package.path, str(error)) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _give_back_weights(descriptor: int) -> None:
    """Free the pages of the section that holds the weights; where that cannot be, they stay.

    AOTInductor's generated code copies them when a model is made (``load_constants`` in
    torch/csrc/inductor/aoti_runtime/model_base.h) and reads them no more.
    """
    start, size = _weights_section(descriptor)
    first, last = -(-start // mmap.PAGESIZE), (start + size) // mmap.PAGESIZE
    if last <= first:
        return
    with contextlib.suppress(AttributeError, OSError):
        free = ctypes.CDLL(None, use_errno=True).fallocate
        free.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        free(descriptor, _PUNCH_HOLE, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


def _weights_section(descriptor: int) -> tuple[int, int]:
    """Offset and size of ``.lrodata`` in a 64-bit ELF file, which PyTorch puts the weights into (elf(5))."""
    header = os.pread(descriptor, 64, 0)
    table, entry_size, count, names = struct.unpack_from("<40xQ10xHHH", header)
    raw = os.pread(descriptor, entry_size * count, table)
    sections = [struct.unpack_from("<II8x8xQQ", raw, place * entry_size) for place in range(count)]
    words = os.pread(descriptor, sections[names][3], sections[names][2])
    for name, _, start, size in sections:
        if words[name:].partition(b"\0")[0] == _WEIGHTS:
            return start, size
    return 0, 0


def _no_package(path: Path, reason: str) -> RunFailed:
    return RunFailed(
        f"{path.name} is no compiled package: {reason}",
        expected=f"a package that `{REBUILD}` wrote",
        next_command=REBUILD,
    )
