"""Rewrites the archive that ``torch.jit.save`` makes, so that equal models give equal bytes.

What torch writes holds the names of source files on this machine (in ``*.debug_pkl``, which loading
does not need), a class name that counts the traces this process has made, and an id derived from
both. The rewritten archive holds none of them. Its records are stored uncompressed, since the bytes
of a deflated one depend on the zlib that deflated it, and tensors start at multiples of 64 bytes,
as torch itself aligns them.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_ALIGNMENT = 64
_LOCAL_HEADER = 30
_PADDING_TAG = b"FB"  # the extra field that torch pads with
_MANGLED = re.compile(rb"___torch_mangle_(\d+)")
_TEXTS = (".py", "data.pkl")
"""Records that may name a mangled class: source, and the root object, which names it by line."""


def rewrite_archive(source: Path, target: Path, root: str = "model") -> None:
    """Copy a TorchScript archive record by record, without what belongs to this machine and process.

    Args:
        source: what ``torch.jit.save`` wrote.
        target: the archive to write.
        root: the folder that all its records lie in.
    """
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as rewritten:
        names = [name for name in archive.namelist() if _is_kept(name)]
        numbers = _mangled_numbers(archive, names)
        for name in names:
            inner = name.partition("/")[2].encode()
            entry = zipfile.ZipInfo(f"{root}/{_renumber(inner, numbers).decode()}")
            entry.file_size = archive.getinfo(name).file_size
            if name.endswith(_TEXTS):
                rewritten.writestr(entry, _renumber(archive.read(name), numbers))
                continue
            entry.extra = _padding(rewritten, entry)
            with archive.open(name) as reader, rewritten.open(entry, "w") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)


def _is_kept(name: str) -> bool:
    return not name.endswith((".debug_pkl", "/.data/serialization_id"))


def _mangled_numbers(archive: zipfile.ZipFile, names: list[str]) -> dict[bytes, bytes]:
    """New numbers for mangled names, counted from 0 in the order in which they first appear."""
    found: dict[bytes, bytes] = {}
    for name in names:
        if not name.endswith(_TEXTS):
            continue
        for number in _MANGLED.findall(name.encode() + archive.read(name)):
            found.setdefault(number, str(len(found)).encode())
    return found


def _renumber(text: bytes, numbers: dict[bytes, bytes]) -> bytes:
    return _MANGLED.sub(lambda match: b"___torch_mangle_" + numbers[match.group(1)], text)


def _padding(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An extra field that moves the record's data to the next aligned offset."""
    # Records past 2 GiB get a further extra field of 20 bytes for their size, written before ours.
    wide = 20 if entry.file_size * 1.05 > zipfile.ZIP64_LIMIT else 0
    start = archive.fp.tell() if archive.fp else 0
    data = start + _LOCAL_HEADER + len(entry.filename.encode()) + wide + 4
    length = -data % _ALIGNMENT
    return _PADDING_TAG + length.to_bytes(2, "little") + b"Z" * length
