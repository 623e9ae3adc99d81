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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from vit_deploy.errors import HostileInput, ImportFailed, OutputFailed

if TYPE_CHECKING:
    from typing import BinaryIO

    import torch

T = TypeVar("T")

_FLOATING = {"float64", "float32", "float16", "bfloat16"}

_STORED = {
    "float32": ("F32", 4),
    "int64": ("I64", 8),
    "int32": ("I32", 4),
    "int16": ("I16", 2),
    "int8": ("I8", 1),
    "uint8": ("U8", 1),
    "bool": ("BOOL", 1),
}
"""What a bundle keeps: the format's name of each dtype, and the bytes of a number."""


@dataclass(frozen=True)
class WeightTensor:
    """One tensor of a checkpoint, unread.

    Attributes:
        name: its key.
        shape: its shape.
        dtype: its torch dtype name, such as ``float32``.
        reader: gives the tensor, contiguous, on the CPU; called at each :meth:`read`.
        scan: how many of its numbers are NaN or Inf, where that can be told without keeping them.
        parts: tensors whose numbers, in whatever order, are just this one's (the q, k and v of a
            ``qkv``); they are looked at in its stead where the order is of no account.
        row: gives what stands at an index of the first axis, where that takes less than reading all.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    reader: Callable[[], torch.Tensor]
    scan: Callable[[], int] | None = None
    parts: tuple[WeightTensor, ...] = ()
    row: Callable[[int], torch.Tensor] | None = None

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
        return replace(self, name=name)

    def rearranged(
        self, name: str, shape: tuple[int, ...], change: Callable[[torch.Tensor], torch.Tensor]
    ) -> WeightTensor:
        """The same numbers in another order and shape (a kernel transposed), made when asked.

        Args:
            name: of the new tensor.
            shape: of the new tensor.
            change: from this tensor to that one.
        """
        return WeightTensor(name, shape, self.dtype, lambda: change(self.read()).contiguous(), parts=(self,))

    def at(self, index: int, name: str) -> WeightTensor:
        """What stands at ``index`` of the first axis, as a tensor of its own."""
        row = self.row or (lambda index: self.read()[index])
        return WeightTensor(name, self.shape[1:], self.dtype, functools.partial(row, index))

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
        # Every number of 16 bits is one of float32; a float64 may overflow, so the result is looked at.
        exact = self.dtype != "float64"
        return WeightTensor(
            self.name, self.shape, "float32", lambda: self.read().float(), parts=(self,) if exact else ()
        )

    def stored(self) -> WeightTensor:
        """The same tensor as a bundle keeps it: whole numbers and truth values as they are, the rest as
        float32.

        Raises:
            ImportFailed: for a dtype that is not known.
        """
        return self if self.dtype in _STORED else self.as_float32()

    def nonfinite(self) -> int:
        """How many of its numbers are NaN or Inf."""
        if self.scan is not None:
            return self.scan()
        if self.parts:
            return sum(part.nonfinite() for part in self.parts)
        return count_nonfinite(self.read())


def concatenate(name: str, parts: Iterable[WeightTensor]) -> WeightTensor:
    """The parts joined along their first dimension, read when asked (q, k and v to ``qkv``)."""
    pieces = tuple(parts)
    shape = (sum(piece.shape[0] for piece in pieces), *pieces[0].shape[1:])

    def read() -> torch.Tensor:
        import torch

        return torch.cat([piece.read() for piece in pieces])

    return WeightTensor(name, shape, pieces[0].dtype, read, parts=pieces)


def count_nonfinite(values: torch.Tensor) -> int:
    """How many of ``values`` are NaN or Inf."""
    # NaN and Inf always reach the sum, and summing is a hundred times faster than asking each number.
    # A sum of finite numbers may overflow, so only the count decides.
    return 0 if bool(values.sum().isfinite()) else int((~values.isfinite()).sum())


class Weights(Mapping[str, WeightTensor]):
    """An ordered, lazy state dict.

    Args:
        tensors: two of one name must hold the same numbers (a weight that was saved twice).
        notes: what was noticed when they were read.
        digest: gives :attr:`digest` where it is known already.

    Raises:
        HostileInput: for two tensors of one name that differ.
    """

    def __init__(
        self,
        tensors: Iterable[WeightTensor],
        notes: tuple[str, ...] = (),
        digest: Callable[[], str] | None = None,
    ) -> None:
        self.notes = notes
        self._known_digest = digest
        self._tensors: dict[str, WeightTensor] = {}
        for tensor in tensors:
            known = self._tensors.setdefault(tensor.name, tensor)
            if known is not tensor and not _same(known, tensor):
                raise HostileInput(
                    f"the checkpoint holds weight {tensor.name!r} twice, with different values",
                    expected="one value for each weight",
                    next_command="have its owner save the state dict of the model alone",
                )

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

    @functools.cached_property
    def digest(self) -> str:
        """Names these very numbers: the SHA-256 of the file that a bundle keeps of them, in hexadecimal.

        Reads and hashes all of them, once, where nobody knew it. Numbers of float64, which a bundle
        rounds, are hashed as they are on top.
        """
        if self._known_digest is not None:
            return self._known_digest()
        digest = digest_of(self)
        wide = [tensor for tensor in self.values() if tensor.dtype == "float64"]
        for tensor in wide:
            values = tensor.read().contiguous().numpy().tobytes()
            digest = hashlib.sha256(f"{digest} {tensor.name} ".encode() + values).hexdigest()
        return digest

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Every tensor, read."""
        return {name: tensor.read() for name, tensor in self.items()}

    def as_float32(self) -> Weights:
        """Every tensor as float32, still unread.

        Raises:
            ImportFailed: for a tensor of integers, or of a dtype that is not known.
        """
        return Weights(tensor.as_float32() for tensor in self.values())


def _same(one: WeightTensor, other: WeightTensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and bool((one.read() == other.read()).all())


def write_safetensors(weights: Weights, target: Writer) -> str:
    """Write weights in the safetensors format as a bundle keeps them, one tensor in memory at a time.

    Same weights, same bytes. ``safetensors.torch.save_file`` would hold all of them at once.
    Format: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON, data).

    Returns:
        The SHA-256 of what was written, in hexadecimal.
    """
    header: dict[str, Any] = {}
    offset = 0
    for name in sorted(weights):
        dtype, width = _STORED[weights[name].stored().dtype]
        size = width * weights[name].numel
        header[name] = {
            "dtype": dtype,
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
        values = weights[name].stored().read().contiguous().numpy().reshape(-1)
        return hashed(values.data.cast("B") if values.size else memoryview(b""))

    target.write(hashed(memoryview(len(encoded).to_bytes(8, "little") + encoded)))
    for data in ahead(functools.partial(read, name) for name in sorted(weights)):
        target.write(data)
    return digest.hexdigest()


class Writer(Protocol):
    """What bytes are written to."""

    def write(self, data: Any, /) -> Any:
        """Write all of ``data``."""


class _Nowhere:
    """Takes what is written, and keeps none of it."""

    def write(self, data: Any) -> int:
        """Taken."""
        return len(data)


def digest_of(weights: Weights) -> str:
    """The SHA-256 of the file that :func:`write_safetensors` would write."""
    return write_safetensors(weights, _Nowhere())


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
