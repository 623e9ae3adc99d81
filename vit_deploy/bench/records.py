"""The parts of a result's document: plain data whose every number can be reckoned with.

Types are strict, names that are not known are refused, so is every number that is not finite or larger than
anything that can be measured: a file that is read back came from another machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

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


class Closed(BaseModel):
    """What is ours alone to fill: a name that is not known is a mistake, and so is a text for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RowRecord(Closed):
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
    launch_lengths: Counts = Field(description="Rounds of each launch: a worker process of its own.")
    samples_ns: Counts

    @model_validator(mode="after")
    def _samples_fall_into_rounds(self) -> RowRecord:
        if sum(self.round_lengths) != len(self.samples_ns):
            raise ValueError(f"{len(self.samples_ns)} samples, and {sum(self.round_lengths)} in round_lengths")
        if self.ok and (self.p50_ms is None or not self.samples_ns):
            raise ValueError("a row that is ok has a p50_ms and samples")
        if self.ok and len(self.round_elapsed_ns) != len(self.round_lengths):
            raise ValueError("round_elapsed_ns and round_lengths are of the same rounds")
        if self.ok and sum(self.launch_lengths) != len(self.round_lengths):
            raise ValueError("launch_lengths and round_lengths are of the same rounds")
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


class Soundness(Closed):
    """The same artefact measured against itself: were they told apart, nothing else could be believed."""

    sound: bool
    ratio: Figure | None = None
    ratio_interval: Interval | None = None
    key: str | None = None
    reason: str | None = None


class SkippedRecord(Closed):
    """A backend that was left out: why, and what mends it."""

    backend: str
    reason: str
    mend: str


def json_data(value: Any) -> Any:
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
        return {json_data(str(name)): json_data(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [json_data(entry) for entry in value]
    # numpy's scalars and arrays, without importing numpy for those who have none in the document.
    convert = getattr(value, "tolist", None)
    return json_data(convert()) if callable(convert) else json_data(str(value))
