"""Memory that is done with: Python's garbage collection put off for a while, and the heap given back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def collection_off(*, collect_first: bool = False) -> Iterator[None]:
    """Garbage is not collected before the context ends.

    Args:
        collect_first: collect it now, so that the context begins with little of it.
    """
    was_on = gc.isenabled()
    if collect_first:
        gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def give_back_memory() -> None:
    """Have the C library return what was freed to the system, where it is glibc.

    glibc keeps freed blocks of up to 32 MB, once a block of that size was freed, in a heap that shrinks at its
    end alone: of a ViT-B in float32 that is dropped, all stays resident (``man mallopt``, M_MMAP_THRESHOLD).
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
