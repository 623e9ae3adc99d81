"""Reads typed values out of a JSON document that somebody else wrote, and refuses any other type."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from vit_deploy.errors import ImportFailed

_REQUIRED: Any = object()


class Fields:
    """The fields of a JSON object, read one by one with the type each must have.

    A field that is absent, or ``null``, gives the default; without a default it is an error.

    Args:
        data: the object.
        where: what the object is, for messages, such as ``config.json``.
    """

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, Mapping):
            raise ImportFailed(f"{where} holds {_kind(data)}", expected="a JSON object")
        self.data: Mapping[str, Any] = data
        self.where = where

    def __contains__(self, name: str) -> bool:
        return self.data.get(name) is not None

    def _value(self, name: str, default: Any) -> Any:
        value = self.data.get(name)
        if value is None and default is _REQUIRED:
            raise ImportFailed(
                f"{self.where} says nothing of {name!r}",
                expected=f"a {name!r} beside {', '.join(map(repr, sorted(self.data)[:8])) or 'nothing'}",
            )
        return default if value is None else value

    def _refusal(self, name: str, expected: str) -> ImportFailed:
        return ImportFailed(f"{self.where} says {name}={shown(self.data.get(name))}", expected=expected)

    def integer(self, name: str, default: int = _REQUIRED) -> int:
        """A whole number."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._refusal(name, "a whole number")
        return value

    def number(self, name: str, default: float = _REQUIRED) -> float:
        """A finite number."""
        value = self._value(name, default)
        if not _is_number(value):
            raise self._refusal(name, "a finite number")
        return float(value)

    def boolean(self, name: str, default: bool = _REQUIRED) -> bool:
        """``true`` or ``false``."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self._refusal(name, "true or false")
        return value

    def text(self, name: str, default: str = _REQUIRED) -> str:
        """A string that can be written as UTF-8."""
        value = self._value(name, default)
        if not _is_text(value):
            raise self._refusal(name, "a string of whole Unicode characters")
        return value

    def pair(self, name: str, default: tuple[int, int] = _REQUIRED) -> tuple[int, int]:
        """``(height, width)``: two whole numbers, or one for both."""
        value = self._value(name, default)
        both = [value, value] if isinstance(value, int) else value
        if not _is_list(both) or len(both) != 2 or not all(_is_whole(size) for size in both):
            raise self._refusal(name, "one whole number, or two of them: height and width")
        return both[0], both[1]

    def numbers(self, name: str, default: Sequence[float] = _REQUIRED) -> tuple[float, ...]:
        """Finite numbers: a list of them, or one."""
        value = self._value(name, default)
        several = value if _is_list(value) else [value]
        if not all(map(_is_number, several)):
            raise self._refusal(name, "a list of finite numbers")
        return tuple(map(float, several))

    def texts(self, name: str, default: Sequence[str] = _REQUIRED) -> tuple[str, ...]:
        """A list of strings that can be written as UTF-8."""
        value = self._value(name, default)
        if not _is_list(value) or not all(map(_is_text, value)):
            raise self._refusal(name, "a list of strings of whole Unicode characters")
        return tuple(value)

    def fields(self, name: str, default: Mapping[str, Any] = _REQUIRED) -> Fields:
        """The object inside this one."""
        return Fields(self._value(name, default), f"{name!r} in {self.where}")


def shown(value: Any) -> str:
    """A value as it stands in a message: cut short where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def _is_text(value: Any) -> TypeGuard[str]:
    if not isinstance(value, str):
        return False
    try:
        # JSON can escape half of a surrogate pair, which no file or terminal can then be given.
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "a truth value"}
    return names.get(type(value), "null" if value is None else f"a {type(value).__name__}")
