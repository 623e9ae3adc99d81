"""Anything that was measured, as plain JSON data: numbers that are not finite become ``null``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, is_dataclass
from typing import Any


def plain(value: Any) -> Any:
    """``value`` with nothing in it that JSON has no word for.

    Args:
        value: nested mappings, sequences, dataclasses, arrays, numpy scalars, numbers and texts.

    Returns:
        The same as ``dict`` with keys of text, ``list``, ``str``, ``int``, ``float``, ``bool`` and
        ``None``. NaN and infinities are ``None``; a text that is no Unicode has ``?`` for what is not;
        what is none of these is its text.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {_text(str(key)): plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence | AbstractSet) and not isinstance(value, bytes):
        return [plain(entry) for entry in value]
    # numpy's scalars and arrays, without importing numpy for those who have none in the document.
    convert = getattr(value, "tolist", None)
    return plain(convert()) if callable(convert) else _text(str(value))


def _text(text: str) -> str:
    """A file's name may hold bytes that are no UTF-8, which Python keeps as lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")
