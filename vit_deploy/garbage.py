"""Python's garbage collection, put off for a while."""

from __future__ import annotations

import contextlib
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
