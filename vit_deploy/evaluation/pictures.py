"""Labelled pictures: one folder for each class, or a table ``file,label`` beside them.

What lies outside the data's folder is refused unless it is asked for: a link, or a path of a table, that leads
out would have files read, and named in a report, that the user never pointed at.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vit_deploy.errors import HostileInput, ImportFailed, UsageFailed
from vit_deploy.parity.images import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Tables by the end of their name."""

COLUMNS = ("file", "label")
SHOWN = 5
"""How many of many names a message holds."""


@dataclass(frozen=True)
class Labelled:
    """One picture.

    Attributes:
        path: where it lies.
        name: its path from the data's folder, with ``/``.
        label: what it shows, as the data names it.
    """

    path: Path
    name: str
    label: str


@dataclass(frozen=True)
class Found:
    """What was found at a path.

    Attributes:
        root: the data's folder.
        kind: whether folders or a table say what the pictures show.
        table: the table's name, where there is one.
        pictures: in order of class and name, or as the table has them.
        empty: folders that hold no pictures.
        passed_over: files whose names are no pictures'.
    """

    root: Path
    kind: Literal["folders", "table"]
    pictures: tuple[Labelled, ...]
    table: str = ""
    empty: tuple[str, ...] = ()
    passed_over: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """What the pictures show, each once, in order of name."""
        return tuple(sorted({picture.label for picture in self.pictures}))


def find_labelled(data: str | Path, *, outside: bool = False) -> Found:
    """The labelled pictures of a folder, or of a table.

    Args:
        data: a folder with a folder for each class; one that holds a table with the columns ``file`` and
            ``label``; or such a table itself.
        outside: whether links and paths may lead out of the data's folder.

    Raises:
        ImportFailed: when there is nothing, or it may not be read.
        HostileInput: when no picture is labelled, the table is broken, or something leads out.
        UsageFailed: for a file that is no table.
    """
    path = Path(data)
    try:
        if path.is_file():
            return _from_table(path, outside=outside)
        if not path.is_dir():
            raise ImportFailed(
                f"there is no folder or table at {str(data)!r}",
                expected="a folder with a folder of pictures for each class, or a table of files and labels",
                next_command="--data with the folder that holds them",
            )
        table = _table_in(path)
        return _from_folders(path, outside=outside) if table is None else _from_table(table, outside=outside)
    except OSError as error:
        raise ImportFailed(
            f"the data at {str(data)!r} cannot be read: {error.strerror or error}",
            expected="a folder that you may read",
        ) from error


def several(names: Sequence[str]) -> str:
    """A few of the names, quoted, and how many more there are."""
    told = ", ".join(repr(name) for name in names[:SHOWN])
    return told if len(names) <= SHOWN else f"{told} and {len(names) - SHOWN} more"


# --- folders -------------------------------------------------------------------------------------------------


def _from_folders(root: Path, *, outside: bool) -> Found:
    walk = _Walk(root, outside=outside)
    pictures: list[Labelled] = []
    empty: list[str] = []
    for entry in _entries(root):
        if entry.is_dir():
            held = [Labelled(path, _name(root, path), entry.name) for path in walk.pictures(Path(entry))]
            pictures += held
            if not held:
                empty.append(entry.name)
    if not pictures:
        raise _unlabelled(root, empty)
    return Found(root, "folders", tuple(pictures), empty=tuple(empty), passed_over=walk.passed_over)


class _Walk:
    """The pictures below folders; links that lead out, or in a circle, are refused."""

    def __init__(self, root: Path, *, outside: bool) -> None:
        self._outside = outside
        self._real = root.resolve()
        self._entered: set[Path] = set()
        self.passed_over = 0

    def pictures(self, folder: Path) -> Iterator[Path]:
        """Every picture below ``folder``, in order of name."""
        self._enter(folder)
        for entry in _entries(folder):
            path = Path(entry)
            if entry.is_dir():
                yield from self.pictures(path)
            elif path.suffix.lower() in SUFFIXES:
                if entry.is_symlink():
                    require_inside(path, self._real, outside=self._outside)
                yield path
            else:
                self.passed_over += 1

    def _enter(self, folder: Path) -> None:
        real = require_inside(folder, self._real, outside=self._outside)
        if real in self._entered:
            raise HostileInput(
                f"the folder {str(folder)!r} leads to {str(real)!r}, which was read already",
                expected="each picture once",
                next_command="take the link away",
            )
        self._entered.add(real)


def require_inside(path: Path, real_root: Path, *, outside: bool) -> Path:
    """Where a path really leads; refused when that is not below ``real_root``.

    Raises:
        HostileInput: when it leads out, and ``outside`` does not say that it may.
    """
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:  # a circle of links
        raise HostileInput(f"{str(path)!r} leads nowhere: {error}", expected="a plain file") from error
    if not outside and not real.is_relative_to(real_root):
        raise HostileInput(
            f"{str(path)!r} leads out of the data's folder, to {str(real)!r}",
            expected=f"what lies in {str(real_root)!r}",
            next_command="--allow-outside, if that is meant",
        )
    return real


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, in order of name, without what is hidden."""
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda item: item.name)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _unlabelled(root: Path, empty: Sequence[str]) -> HostileInput:
    loose = sum(entry.is_file() and Path(entry).suffix.lower() in SUFFIXES for entry in _entries(root))
    if loose:
        found = f"the {loose} pictures in {str(root)!r} lie in no folder that says what they show"
    elif empty:
        found = f"the folders in {str(root)!r} hold no pictures: {several(empty)}"
    else:
        found = f"the folder {str(root)!r} holds no pictures"
    return HostileInput(
        found,
        expected=f"a folder for each class, with files that end in {', '.join(sorted(SUFFIXES))}; or a "
        f"table beside them, .csv or .tsv, with the columns {' and '.join(COLUMNS)}",
        next_command="--data with that folder, or that table",
    )


# --- tables --------------------------------------------------------------------------------------------------


def _table_in(root: Path) -> Path | None:
    """The one table of files and labels that a folder holds beside its pictures, if any.

    Raises:
        UsageFailed: when there are several.
    """
    files = [Path(entry) for entry in _entries(root) if entry.is_file()]
    tables = [file for file in files if file.suffix.lower() in DELIMITERS and _is_labels(file)]
    if len(tables) > 1:
        raise UsageFailed(
            f"{str(root)!r} holds several tables of files and labels: {several([t.name for t in tables])}",
            expected="one",
            next_command=f"--data {str(tables[0])!r}",
        )
    return tables[0] if tables else None


def _is_labels(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            head = text.readline(4096)
    except UnicodeDecodeError:
        return False
    words = {word.strip().strip('"') for word in head.split(DELIMITERS[file.suffix.lower()])}
    return set(COLUMNS) <= words


def _from_table(file: Path, *, outside: bool) -> Found:
    delimiter = DELIMITERS.get(file.suffix.lower())
    if delimiter is None:
        raise UsageFailed(
            f"{str(file)!r} is no table of files and labels",
            expected=f"a file that ends in {' or '.join(DELIMITERS)}, or a folder",
        )
    root = file.parent
    real = root.resolve()
    pictures: list[Labelled] = []
    seen: dict[str, int] = {}
    for line, name, label in _rows(file, delimiter):
        if not name or not label or "\0" in name:
            raise _broken(file, f"line {line} names {name!r} and the label {label!r}", "a file and a label")
        if name in seen:
            raise _broken(
                file, f"line {line} names {name!r} again, as line {seen[name]} does", "each file once"
            )
        seen[name] = line
        require_inside(root / name, real, outside=outside)
        pictures.append(Labelled(root / name, name, label))
    if not pictures:
        raise _broken(file, "it names no files", "a line for each picture")
    return Found(root, "table", tuple(pictures), table=file.name)


def _rows(file: Path, delimiter: str) -> Iterator[tuple[int, str, str]]:
    """Line number, file and label of each row.

    Raises:
        HostileInput: for a table that cannot be read as one.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = csv.DictReader(text, delimiter=delimiter, strict=True)
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                have = several([str(name) for name in rows.fieldnames or ()]) or "nothing"
                raise _broken(file, f"its first line names {have}", f"the columns {' and '.join(COLUMNS)}")
            for row in rows:
                yield rows.line_num, (row["file"] or "").strip(), (row["label"] or "").strip()
    except (csv.Error, UnicodeDecodeError) as error:
        raise _broken(file, f"it cannot be read: {error}", "UTF-8 text, a row for each picture") from error


def _broken(file: Path, found: str, expected: str) -> HostileInput:
    return HostileInput(f"the table {str(file)!r} is not one of files and labels: {found}", expected=expected)
