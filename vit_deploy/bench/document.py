"""The document of a run: what ``vit-deploy bench`` writes, and all that tables and comparisons are made from.

Its names are those of :class:`vit_deploy.bench.result.Row` and of ``BenchResult.to_dict()``; a test keeps
them so. Its JSON Schema is published as ``docs/bench.schema.json``. A file that is read back came from
another machine: types are strict, names that are not known are refused, so is every number that is not
finite or larger than anything that can be measured.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from vit_deploy.errors import HostileInput

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vit_deploy.bench.result import BenchResult

__all__ = ["SCHEMA", "BenchReport", "RowRecord", "SkippedRecord", "Soundness", "json_schema", "read_result"]

SCHEMA: Final = "vit-deploy/bench/2"

_FAMILY = "vit-deploy/bench/"
_MEASURE_AGAIN = "vit-deploy bench BUNDLE -o RESULT.json, to measure again with the version installed here"

MOST_BYTES = 512 * 1024 * 1024
"""No result is larger: some 40 million samples."""

MOST_ROWS = 100_000
LARGEST = 1e18
"""No figure is larger: nanoseconds of thirty years, an exabyte."""

DEEPEST = 16
"""No free-form entry is nested deeper."""


def _bounded(value: Any, depth: int = 0) -> Any:
    """Free-form JSON data in which every number can be reckoned with.

    Raises:
        ValueError: for a number that is not finite or too large, for other types, for deep nesting.
    """
    if depth > DEEPEST:
        raise ValueError(f"nested more than {DEEPEST} deep")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= LARGEST:  # NaN is in no order
            raise ValueError(f"a number beyond {LARGEST:g}")
    elif isinstance(value, dict):
        for entry in value.values():
            _bounded(entry, depth + 1)
    elif isinstance(value, list):
        for entry in value:
            _bounded(entry, depth + 1)
    elif value is not None and not isinstance(value, (bool, str)):
        raise ValueError(f"{type(value).__name__} is no JSON")
    return value


Free = Annotated[dict[str, Any], AfterValidator(_bounded)]
"""JSON data whose names are another part's to choose; numbers in it are finite."""

Figure = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=int(LARGEST))]
# JSON has no tuples: a list of the right length is one.
Interval = Annotated[tuple[Figure, Figure], Strict(False)]
Size = Annotated[tuple[Count, Count], Strict(False)]
Texts = Annotated[tuple[str, ...], Strict(False)]
Counts = Annotated[tuple[Count, ...], Strict(False)]


class _Closed(BaseModel):
    """What is ours alone to fill: a name that is not known is a mistake, and so is a text for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RowRecord(_Closed):
    """One row, raw samples included; :class:`vit_deploy.bench.result.Row` says what each name means."""

    key: str
    artefact: str
    format: str
    precision: str
    backend: str
    device: str
    batch_size: Count
    image_size: Size | None
    contract: str
    threads: Count
    streams: Count
    cuda_graph: bool
    ok: bool
    error: str | None
    exit_code: int
    worker_exit: int | None
    verified: bool = Field(description="Whether parity with eager PyTorch was proven.")
    worst_ratio: Figure | None
    p50_ms: Figure | None
    p50_interval_ms: Interval | None
    p90_ms: Figure | None
    p99_ms: Figure | None
    half_width: Figure | None
    images_per_s: Figure | None
    images_per_s_interval: Interval | None
    ratio: Figure | None = Field(description="Latency over the baseline's, paired round by round.")
    ratio_interval: Interval | None
    throughput_ratio: Figure | None
    throughput_ratio_interval: Interval | None
    baseline: str | None
    baseline_key: str | None
    limit: Free | None
    gpu: Free | None
    cold_start_ms: dict[str, Figure] | None
    peak_rss_bytes: Count | None
    peak_device_bytes: Count | None
    warm_up: Free | None
    disturbed: Texts = Field(description="Why the samples may not be trusted; empty where nothing was seen.")
    notes: Texts
    facts: Free | None
    sha256: str
    files: dict[str, str]
    round_lengths: Counts
    round_elapsed_ns: Counts
    samples_ns: Counts

    @model_validator(mode="after")
    def _samples_fall_into_rounds(self) -> RowRecord:
        if sum(self.round_lengths) != len(self.samples_ns):
            raise ValueError(
                f"round_lengths are {sum(self.round_lengths)} in sum, and there are {len(self.samples_ns)} samples"
            )
        if self.ok and (self.p50_ms is None or not self.samples_ns):
            raise ValueError("a row that is ok has a p50_ms and samples")
        if self.ok and len(self.round_elapsed_ns) != len(self.round_lengths):
            raise ValueError("round_elapsed_ns and round_lengths are of the same rounds")
        return self

    @property
    def rounds_ns(self) -> list[tuple[int, ...]]:
        """The samples of each round, in order."""
        ends = list(accumulate(self.round_lengths))
        return [self.samples_ns[end - n : end] for end, n in zip(ends, self.round_lengths, strict=True)]

    @property
    def cold_ms(self) -> float | None:
        """From the start of the process to the end of its first inference."""
        return None if self.cold_start_ms is None else sum(self.cold_start_ms.values())


class Soundness(_Closed):
    """The same artefact measured against itself: were they told apart, nothing else could be believed."""

    sound: bool
    ratio: Figure | None = None
    ratio_interval: Interval | None = None
    key: str | None = None
    reason: str | None = None


class SkippedRecord(_Closed):
    """A backend that was left out: why, and what mends it."""

    backend: str
    reason: str
    mend: str


class BenchReport(_Closed):
    """Everything a run of ``vit-deploy bench`` found."""

    schema_: Literal["vit-deploy/bench/2"] = Field(alias="schema")
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
        return cls.model_validate(_plain(document))

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
    with os.fdopen(descriptor, "rb") as file:
        told = os.fstat(file.fileno())
        if stat.S_ISDIR(told.st_mode):
            raise _unreadable(where, "it is a folder")
        if not stat.S_ISREG(told.st_mode):
            raise _unreadable(where, "it is no plain file")
        if told.st_size > MOST_BYTES:
            raise _refused(where, f"it is of {told.st_size} bytes", f"no result has more than {MOST_BYTES}")
        try:
            return file.read(MOST_BYTES + 1)
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


def _plain(value: Any) -> Any:
    """What was measured as JSON data: a number that is not finite is ``None``, a text is valid Unicode.

    A backend's message may hold lone surrogates, and a library may report NaN: neither may cost a run.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_plain(str(name)): _plain(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_plain(entry) for entry in value]
    # numpy's scalars and arrays, without importing numpy for those who have none in the document.
    convert = getattr(value, "tolist", None)
    return _plain(convert()) if callable(convert) else _plain(str(value))
