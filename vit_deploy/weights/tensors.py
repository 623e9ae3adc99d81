"""Weights that stay on the disk until they are asked for.

A :class:`WeightTensor` knows its name, shape and dtype and reads itself on demand, so that a model
is described, renamed, fused and exported with one tensor in memory at a time.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from vit_deploy.errors import HostileInput, ImportFailed, OutputFailed

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    import torch

T = TypeVar("T")

_SAFETENSORS_DTYPES = {
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
_RESIDENT_BYTES = 64 << 20
"""How much of a file is read before it is opened anew."""

_FLOATING = {"float64", "float32", "float16", "bfloat16"}


@dataclass(frozen=True)
class WeightTensor:
    """One tensor of a checkpoint, unread.

    Attributes:
        name: its key.
        shape: its shape.
        dtype: its torch dtype name, such as ``float32``.
        reader: gives the tensor, contiguous, on the CPU; called at each :meth:`read`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    reader: Callable[[], torch.Tensor]

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def read(self) -> torch.Tensor:
        """The tensor itself, read now.

        Raises:
            HostileInput: when what is read has another shape than was announced.
        """
        tensor = self.reader()
        if tuple(tensor.shape) != self.shape:
            raise HostileInput(
                f"weight {self.name!r} was read with shape {tuple(tensor.shape)}",
                expected=f"shape {self.shape}, as its header says",
                next_command="copy or download the checkpoint again",
            )
        return tensor

    def renamed(self, name: str) -> WeightTensor:
        """The same tensor under another name."""
        return WeightTensor(name, self.shape, self.dtype, self.reader)

    def as_float32(self) -> WeightTensor:
        """The same tensor as float32 (exact from float16 and bfloat16, rounded from float64)."""
        if self.dtype == "float32":
            return self
        if self.dtype not in _FLOATING:
            raise ImportFailed(
                f"weight {self.name!r} has dtype {self.dtype}",
                expected=f"one of {', '.join(sorted(_FLOATING))}",
                next_command="have its owner save it unquantised",
            )
        return WeightTensor(self.name, self.shape, "float32", lambda: self.read().float())


def concatenate(name: str, parts: Iterable[WeightTensor]) -> WeightTensor:
    """The parts joined along their first dimension, read when asked (q, k and v to ``qkv``)."""
    pieces = tuple(parts)
    shape = (sum(piece.shape[0] for piece in pieces), *pieces[0].shape[1:])

    def read() -> torch.Tensor:
        import torch

        return torch.cat([piece.read() for piece in pieces])

    return WeightTensor(name, shape, pieces[0].dtype, read)


class Weights(Mapping[str, WeightTensor]):
    """An ordered, lazy state dict."""

    def __init__(self, tensors: Iterable[WeightTensor]) -> None:
        self._tensors = {tensor.name: tensor for tensor in tensors}

    def __getitem__(self, name: str) -> WeightTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as float32."""
        return 4 * sum(tensor.numel for tensor in self.values())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Every tensor, read."""
        return {name: tensor.read() for name, tensor in self.items()}

    def as_float32(self) -> Weights:
        """Every tensor as float32, still unread.

        Raises:
            ImportFailed: for a tensor of integers, or of a dtype that is not known.
        """
        return Weights(tensor.as_float32() for tensor in self.values())


class _SafetensorsFile:
    """Reads single tensors of a file, from any thread.

    What was read through a mapping stays resident, and would make the whole checkpoint count as
    memory of this process; opening the file anew for each tensor takes ten times as long as reading
    it. So the file is opened anew after every :data:`_RESIDENT_BYTES`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: Any = None
        self._read_bytes = 0

    def read(self, name: str) -> torch.Tensor:
        """A copy of one tensor.

        Raises:
            HostileInput: when the file is not what it was when its header was read.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with self._lock:
                if self._file is None or self._read_bytes > _RESIDENT_BYTES:
                    self._file, self._read_bytes = safe_open(self._path, framework="pt"), 0
                tensor: torch.Tensor = self._file.get_tensor(name).clone()
                self._read_bytes += tensor.nbytes
        except (SafetensorError, OSError) as error:
            raise HostileInput(
                f"weight {name!r} of {str(self._path)!r} cannot be read: {error}",
                expected="the file as it was when its header was read",
                next_command="copy or download the checkpoint again",
            ) from error
        return tensor


def read_safetensors(path: Path) -> Weights:
    """The weights of a safetensors file, unread; the header is checked against the file's size.

    Raises:
        HostileInput: when the file is truncated, or is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as header:
            slices = {name: header.get_slice(name) for name in sorted(header.keys())}
            described = {
                name: (tuple(entry.get_shape()), str(entry.get_dtype())) for name, entry in slices.items()
            }
    except (SafetensorError, OSError, ValueError) as error:
        raise HostileInput(
            f"{str(path)!r} is no whole safetensors file: {error}",
            expected="a file as safetensors wrote it",
            next_command="copy or download the checkpoint again",
        ) from error
    file = _SafetensorsFile(path)
    return Weights(
        WeightTensor(name, shape, _SAFETENSORS_DTYPES.get(dtype, dtype), functools.partial(file.read, name))
        for name, (shape, dtype) in described.items()
    )


def write_safetensors(weights: Weights, target: BinaryIO) -> str:
    """Write float32 weights in the safetensors format, one tensor in memory at a time.

    Same weights, same bytes. ``safetensors.torch.save_file`` would hold all of them at once.
    Format: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON, data).

    Returns:
        The SHA-256 of what was written, in hexadecimal.
    """
    header: dict[str, Any] = {}
    offset = 0
    for name in sorted(weights):
        size = 4 * weights[name].numel
        header[name] = {
            "dtype": "F32",
            "shape": list(weights[name].shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    digest = hashlib.sha256()

    def hashed(data: memoryview) -> memoryview:
        digest.update(data)
        return data

    def read(name: str) -> memoryview:
        return hashed(weights[name].as_float32().read().contiguous().numpy().reshape(-1).data.cast("B"))

    target.write(hashed(memoryview(len(encoded).to_bytes(8, "little") + encoded)))
    for data in ahead(functools.partial(read, name) for name in sorted(weights)):
        target.write(data)
    return digest.hexdigest()


def ahead(reads: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The result of each read, the next one being read while the present one is used.

    Reading, hashing and writing are each done outside the interpreter's lock, so that two of them
    overlap. At most two results are in memory.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=1) as reader:
        pending = None
        for read in reads:
            following = reader.submit(read)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def sync_file(file: BinaryIO) -> None:
    """Flush a file to the disk.

    Raises:
        OutputFailed: when the disk is full or the file cannot be written.
    """
    try:
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise OutputFailed(f"writing failed: {error}", expected="room on the disk") from error
