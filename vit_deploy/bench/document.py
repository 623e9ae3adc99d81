"""The document of a run: what ``vit-deploy bench`` writes, and all that tables and comparisons are made from.

Its names are those of :class:`vit_deploy.bench.result.Row` and of ``BenchResult.to_dict()``; a test keeps
them so. Its JSON Schema is published as ``docs/bench.schema.json``. Its parts are in
:mod:`vit_deploy.bench.records`.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field, ValidationError

from vit_deploy.bench.records import Closed, Counts, Free, RowRecord, SkippedRecord, Soundness, json_data
from vit_deploy.errors import HostileInput

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vit_deploy.bench.result import BenchResult

__all__ = [
    "SCHEMA",
    "BenchReport",
    "RowRecord",
    "SkippedRecord",
    "Soundness",
    "json_schema",
    "read_result",
]

SCHEMA: Final = "vit-deploy/bench/3"

_FAMILY = "vit-deploy/bench/"
_MEASURE_AGAIN = "vit-deploy bench BUNDLE -o RESULT.json, to measure again with the version installed here"

MOST_BYTES = 512 * 1024 * 1024
"""No result is larger: some 40 million samples."""

MOST_ROWS = 100_000


class BenchReport(Closed):
    """Everything a run of ``vit-deploy bench`` found."""

    schema_: Literal["vit-deploy/bench/3"] = Field(alias="schema")
    environment: Free
    settings: Free
    soundness: Soundness | None = Field(description="null where the same was not measured against itself.")
    machine: Free = Field(description="What the machine did meanwhile.")
    interrupted: bool = Field(description="Whether the user stopped it before its end.")
    order: list[Counts] = Field(description="For each round, the workers in the order they measured in.")
    ceilings: list[Free]
    scenarios: list[Free]
    rows: list[RowRecord] = Field(max_length=MOST_ROWS)
    skipped: list[SkippedRecord]

    @classmethod
    def of(
        cls, result: BenchResult, environment: Mapping[str, Any], skipped: Iterable[Any] = ()
    ) -> BenchReport:
        """The document of a result.

        Args:
            result: what a run found.
            environment: of :func:`vit_deploy.environment.environment`.
            skipped: :class:`vit_deploy.bench.plan.Skipped`, or mappings of its names.
        """
        left_out = [
            entry
            if isinstance(entry, Mapping)
            else {"backend": entry.backend, "reason": entry.reason, "mend": entry.mend}
            for entry in skipped
        ]
        document = {
            "schema": SCHEMA,
            "environment": environment,
            **result.to_dict(),
            "skipped": left_out,
        }
        return cls.model_validate(json_data(document))

    def row(self, key: str) -> RowRecord | None:
        """The row of that key."""
        return next((row for row in self.rows if row.key == key), None)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return self.model_dump(mode="json", by_alias=True)

    def to_json(self) -> str:
        """The document as text that ends in a line break; samples make it long, so it is one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False) + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of :meth:`BenchReport.to_json`."""
    schema = BenchReport.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def read_result(path: str | Path) -> BenchReport:
    """Read a document that ``vit-deploy bench -o`` has written.

    Args:
        path: the file.

    Raises:
        HostileInput: when it cannot be read, is cut short, no JSON, too large, of another schema, or
            holds what no run could have written.
    """
    from pydantic_core import from_json

    where = repr(str(path))
    raw = _read(Path(path), where)
    if not raw.strip():
        raise _refused(where, "it is empty", "the run that was to write it never ended")
    try:
        data: Any = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        cut = "EOF" in str(error)
        what = "it is cut short" if cut else "it is not JSON"
        raise _refused(where, what, str(error)) from error
    _require_schema(data, where)
    try:
        report = BenchReport.model_validate(data)
    except (ValidationError, RecursionError) as error:
        raise _refused(where, _first_complaint(error)) from error
    _require_distinct(report, where)
    return report


def _read(path: Path, where: str) -> bytes:
    """The bytes of a plain file of a size that a result can have."""
    try:
        # A pipe that nobody writes to would hold us for ever, so it is opened without waiting.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise _unreadable(where, getattr(error, "strerror", None) or str(error)) from error
    told = os.fstat(descriptor)
    if not stat.S_ISREG(told.st_mode):
        os.close(descriptor)
        raise _unreadable(where, "it is a folder" if stat.S_ISDIR(told.st_mode) else "it is no plain file")
    with os.fdopen(descriptor, "rb") as file:
        if told.st_size > MOST_BYTES:
            raise _refused(where, f"it is of {told.st_size} bytes", f"no result has more than {MOST_BYTES}")
        try:
            return file.read(MOST_BYTES)
        except OSError as error:
            raise _unreadable(where, error.strerror or str(error)) from error


def _require_schema(data: Any, where: str) -> None:
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema == SCHEMA:
        return
    if not isinstance(schema, str):
        raise _refused(where, "it says no schema", "it is no document of vit-deploy")
    shown = schema if len(schema) <= 60 else f"{schema[:60]}…"
    if schema.startswith(_FAMILY):
        raise _refused(where, f"its schema is {shown!r}", "another version of vit-deploy wrote it")
    raise _refused(where, f"its schema is {shown!r}", "it is no result of a benchmark")


def _require_distinct(report: BenchReport, where: str) -> None:
    seen: set[str] = set()
    for row in report.rows:
        if row.key in seen:
            raise _refused(where, f"two rows have the key {row.key!r}")
        seen.add(row.key)


def _unreadable(where: str, why: str) -> HostileInput:
    return HostileInput(
        f"{where} cannot be read: {why}",
        expected=f"a file of schema {SCHEMA}, as `vit-deploy bench -o` writes it",
        next_command="name the file that holds the result",
    )


def _refused(where: str, what: str, why: str = "") -> HostileInput:
    return HostileInput(
        f"{where} is no result that this version reads: {what}" + (f" ({why})" if why else ""),
        expected=f"a whole file of schema {SCHEMA}, as `vit-deploy bench -o` writes it",
        next_command=_MEASURE_AGAIN,
    )


def _first_complaint(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "it is nested too deep"
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or "the top"
    return f"at {place[:120]}: {first['msg'][:200]}"
