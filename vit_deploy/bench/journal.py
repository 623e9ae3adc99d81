"""What a run has measured so far, kept on the disk so that an interrupted run can go on.

The journal lies beside the result: one JSON object for each line, a header first, then one line for each
group of peers that came to its end. A line is flushed to the disk before the run goes on; one that a crash
cut short is dropped. A group that did not come to its end is measured again whole: its workers take turns,
and half of the turns on another day are no turns.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vit_deploy.bench.document import MOST_BYTES
from vit_deploy.bench.listener import Quiet
from vit_deploy.bench.records import json_data
from vit_deploy.errors import HostileInput, OutputFailed, UsageFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.result import Measured

SCHEMA: Final = "vit-deploy/bench-journal/2"

_NO_MATTER = frozenset({"memory_bytes"})
"""What may differ in the environment: another amount of memory does not change a time."""


def journal_path(output: str | Path) -> Path:
    """Where the journal of a result lies: beside it."""
    target = Path(output).resolve()
    return target.with_name(f".{target.name}.journal")


class Journal(Quiet):
    """Keeps each finished group of a run; give it to :func:`vit_deploy.bench.run_bench` as its listener.

    It is a context manager; leaving it keeps the file, and :meth:`remove` is for when the result is written.

    Args:
        path: the file, see :func:`journal_path`.
        cases: what is measured.
        settings: what governs the run, as plain data.
        environment: of :func:`vit_deploy.environment.environment`.
        resume: whether to go on with what is there; without it, what is there is replaced.

    Raises:
        UsageFailed: when another run is writing it; when it is of other cases, files, settings or of
            another environment.
        HostileInput: when it is no journal, or one that is damaged before its last line.
        OutputFailed: when it cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        cases: Sequence[Case],
        settings: Mapping[str, Any],
        environment: Mapping[str, Any],
        *,
        resume: bool = False,
    ) -> None:
        self.path = Path(path)
        self._cases = {case.key: case for case in cases}
        self._header = _header(cases, settings, environment)
        self._done: dict[str, Measured] = {}
        self._file = self._open()
        try:
            lines = self._read() if resume else []
            if lines:
                self._take_up(lines)
            else:
                self._begin()
        except BaseException:
            self.close()
            raise

    def finished(self) -> dict[str, Measured]:
        """What was measured before, by :attr:`~vit_deploy.bench.cases.Case.key`."""
        return dict(self._done)

    def group_done(self, measured: Sequence[Measured]) -> None:
        """Keep a group that came to its end.

        Raises:
            OutputFailed: when there is no room; what was kept before stays whole.
        """
        self._append({"group": [entry.to_dict() for entry in measured]})

    def remove(self) -> None:
        """The result is written: there is nothing to go on with."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let go of the file, and leave it where it is."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> int:
        import fcntl

        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise self._unwritable(error.strerror or str(error)) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self._unwritable("it is no plain file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise UsageFailed(
                f"another run is writing {str(self.path)!r}",
                expected="one run for each --output",
                next_command="wait until it has ended, or name another --output",
            ) from error
        return descriptor

    def _read(self) -> list[bytes]:
        """The whole lines; what a crash has left of a last one is cut off."""
        if os.fstat(self._file).st_size > MOST_BYTES:
            raise self._damaged(f"it has more than {MOST_BYTES} bytes")
        with open(self._file, "rb", closefd=False) as file:
            raw = file.read(MOST_BYTES + 1)
        *lines, rest = raw.split(b"\n")
        kept = len(raw) - len(rest)
        if lines and not rest and _parsed(lines[-1]) is None:
            # The length of a file may reach the disk before its bytes do.
            kept -= len(lines.pop()) + 1
        self._cut(kept)
        return lines

    def _begin(self) -> None:
        self._cut(0)
        self._append(self._header)
        self._sync_folder()

    def _take_up(self, lines: Sequence[bytes]) -> None:
        header = _parsed(lines[0])
        if header is None or header.get("schema") != SCHEMA:
            raise self._damaged(f"its first line is no header of schema {SCHEMA}")
        self._require_same(header)
        for number, line in enumerate(lines[1:], 2):
            entry = _parsed(line)
            if entry is None:
                raise self._damaged(f"line {number} is no JSON object")
            try:
                group = [_measured(one) for one in entry["group"]]
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
                raise self._damaged(f"line {number} holds no group: {type(error).__name__}: {error}") from error
            self._done.update((one.case.key, self._with_own_case(one)) for one in group)

    def _with_own_case(self, measured: Measured) -> Measured:
        """With the case as it is asked for now: a bundle may have moved."""
        case = self._cases.get(measured.case.key)
        return measured if case is None else replace(measured, case=case)

    def _require_same(self, header: Mapping[str, Any]) -> None:
        found = [
            *_different("case", _by_key(header.get("cases")), _by_key(self._header["cases"])),
            *_different("setting", header.get("settings"), self._header["settings"]),
            *_different("environment's", header.get("environment"), self._header["environment"]),
        ]
        if found:
            told = "".join(f"\n    {entry}" for entry in found[:12])
            raise UsageFailed(
                f"the run that was interrupted is another one than this:{told}",
                expected="the same words, the same files and the same machine and versions",
                next_command=f"leave --resume away to measure all anew (it replaces {str(self.path)!r})",
            )

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(json_data(entry), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._cut(end)
            raise OutputFailed(
                f"what was measured cannot be kept in {str(self.path)!r}: {error.strerror or error}",
                expected="room on the disk for the samples",
                next_command="make room, then the same command with --resume; what was kept is not lost",
            ) from error

    def _cut(self, length: int) -> None:
        os.ftruncate(self._file, length)
        os.lseek(self._file, 0, os.SEEK_END)

    def _sync_folder(self) -> None:
        """Flush the journal's name, so that it outlives a power cut."""
        from vit_deploy.bundle.durable import sync_directory

        with contextlib.suppress(OSError):  # not every file system can, and the run need not end for it
            sync_directory(self.path.parent)

    def _damaged(self, why: str) -> HostileInput:
        return HostileInput(
            f"{str(self.path)!r} is no journal that this version can go on with: {why}",
            expected=f"a journal of schema {SCHEMA}, as an interrupted run left it",
            next_command="leave --resume away to measure all anew (it replaces the journal)",
        )

    def _unwritable(self, why: str) -> OutputFailed:
        return OutputFailed(
            f"the journal {str(self.path)!r} cannot be written: {why}",
            expected="an --output in a folder that exists and is writable",
            next_command="choose another --output",
        )


def _header(
    cases: Sequence[Case], settings: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, Any]:
    told: dict[str, Any] = json_data(
        {
            "schema": SCHEMA,
            "cases": [{"key": case.key, "files": dict(case.files)} for case in cases],
            "settings": settings,
            "environment": {name: value for name, value in environment.items() if name not in _NO_MATTER},
        }
    )
    return told


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line, or ``None``; numbers in it are finite."""
    from pydantic_core import from_json

    try:
        found: Any = from_json(line, allow_inf_nan=False)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _measured(data: Mapping[str, Any]) -> Measured:
    """What one case gave, its samples checked: everything that is shown is derived from them.

    Raises:
        KeyError: when a field is missing.
        TypeError: when a field is of another type.
        ValueError: for a sample that no clock has told.
    """
    from vit_deploy.bench.result import Measured

    found = Measured.from_dict(data)
    for name, counts in (("rounds", found.rounds), ("elapsed_ns", [found.elapsed_ns])):
        for entry in counts:
            if not isinstance(entry, list) or not all(type(one) is int and 0 <= one < 2**63 for one in entry):
                raise ValueError(f"{name} are no nanoseconds")
    if not isinstance(found.error, str) or not isinstance(found.exit_code, int):
        raise TypeError("error is no text")
    if not found.error and len(found.rounds) != len(found.elapsed_ns):
        raise ValueError("rounds and elapsed_ns are not of the same rounds")
    return found


def _by_key(cases: Any) -> dict[str, Any]:
    entries: Iterable[Any] = cases if isinstance(cases, list) else []
    return {str(entry.get("key")): entry.get("files") for entry in entries if isinstance(entry, dict)}


def _different(what: str, old: Any, new: Any) -> list[str]:
    """In what two mappings differ, a line each."""
    was, now = (entry if isinstance(entry, dict) else {} for entry in (old, new))
    found = []
    for name in dict.fromkeys([*was, *now]):
        if name not in was:
            found.append(f"{what} {name}: it was not there")
        elif name not in now:
            found.append(f"{what} {name}: it was there, and is not now")
        elif was[name] != now[name]:
            shown = "other files" if what == "case" else f"{_short(was[name])} → {_short(now[name])}"
            found.append(f"{what} {name}: {shown}")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}…"
