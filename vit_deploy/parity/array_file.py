"""Arrays through a file in memory that two processes have open.

They are written and read with ordinary calls rather than mapped: where memory runs out the call fails,
and what the other process does to the file cannot bring a signal (SIGBUS) down on this one.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Layout = list[dict[str, Any]]
    """Name, dtype, shape and offset of each array, as plain JSON data."""


class ArrayFile:
    """One side of the file.

    Args:
        descriptor: of a file that another process made; ``None`` makes one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _new_file() if descriptor is None else descriptor

    def write(self, arrays: Mapping[str, Any]) -> Layout:
        """Put arrays of any shapes and dtypes of numbers in place of those that stand there.

        Returns:
            Where they stand, for :meth:`read` at the other side.

        Raises:
            RunFailed: for what is no array of numbers, or does not fit into memory.
        """
        import numpy as np

        layout: Layout = []
        offset = 0
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.dtype.hasobject or array.dtype.kind in "SUMm":
                raise RunFailed(f"{name!r} is {_kind_of(array)}", expected="an array of numbers")
            layout.append(
                {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "offset": offset}
            )
            self._write_bytes(np.ascontiguousarray(array), offset, name)
            offset += array.nbytes
        return layout

    def _write_bytes(self, array: NDArray[Any], offset: int, name: str) -> None:
        left = _bytes_of(array)
        try:
            while len(left):
                written = os.pwrite(self.descriptor, left, offset)
                left, offset = left[written:], offset + written
        except OSError as error:
            raise RunFailed(
                f"{array.nbytes:,} bytes of {name!r} do not fit between two processes: {error.strerror}",
                expected="memory for the inputs and outputs of one batch",
                next_command="export with a smaller largest batch, or free memory",
            ) from error

    def read(self, layout: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
        """Arrays of this process's own, as :meth:`write` wrote them at the other side.

        Raises:
            RunFailed: when the file holds less than ``layout`` says.
        """
        import numpy as np

        arrays = {}
        for entry in layout:
            array = np.empty(tuple(entry["shape"]), _dtype(entry["dtype"]))
            self._read_bytes(array, int(entry["offset"]), entry["name"])
            arrays[entry["name"]] = array
        return arrays

    def _read_bytes(self, array: NDArray[Any], offset: int, name: str) -> None:
        left = _bytes_of(array)
        while len(left):
            count = os.preadv(self.descriptor, [left], offset)
            if not count:
                raise RunFailed(
                    f"{name!r} came through to {array.nbytes - len(left):,} of {array.nbytes:,} bytes"
                )
            left, offset = left[count:], offset + count

    def close(self) -> None:
        """Let go of the file, which ends with the last process that has it open; once is enough."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1


def _new_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("vit-deploy")
    with tempfile.TemporaryFile() as file:  # a system without files in memory
        return os.dup(file.fileno())


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """The bytes of an array in C order, of any dtype, shape ``()`` and size 0 too."""
    import numpy as np

    return array.reshape(-1).view(np.uint8).data


def _dtype(name: str) -> Any:
    """A dtype by its name; numpy itself does not know those of :mod:`ml_dtypes`."""
    import numpy as np

    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


def _kind_of(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return f"an array of {dtype}" if dtype is not None else f"a {type(value).__name__}"
