"""How rows are told apart, put together and put in order, alike in every rendering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from vit_deploy.spec import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vit_deploy.bench.document import BenchReport, RowRecord


class Named(Protocol):
    """What has a name among others: a row, or a case that is to become one."""

    @property
    def artefact(self) -> str:
        """Its artefact's name."""

    @property
    def backend(self) -> str:
        """What runs it."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def batch_size(self) -> int:
        """Images in an inference."""

    @property
    def image_size(self) -> tuple[int, int] | None:
        """``(height, width)``."""

    @property
    def contract(self) -> str:
        """What it takes."""

    @property
    def threads(self) -> int:
        """Of all its streams."""

    @property
    def streams(self) -> int:
        """Inferences side by side."""

    @property
    def cuda_graph(self) -> bool:
        """Whether a CUDA graph is replayed."""


_TOLD: dict[str, Callable[[Named], str]] = {
    "device": lambda row: row.device,
    "image_size": lambda row: size_text(row.image_size) if row.image_size else "",
    "batch_size": lambda row: f"batch {row.batch_size}",
    "threads": lambda row: f"{row.threads} thread{'' if row.threads == 1 else 's'}",
    "streams": lambda row: f"{row.streams} stream{'' if row.streams == 1 else 's'}",
    "contract": lambda row: row.contract,
    "cuda_graph": lambda row: "CUDA graph" if row.cuda_graph else "no CUDA graph",
}
"""What may differ between two rows of one artefact and backend, in the order in which it is told."""

_OF_GROUP = ("device", "image_size", "batch_size")


@dataclass(frozen=True)
class Group:
    """Rows that are compared with each other, the fastest first, those that failed last.

    Attributes:
        title: what they have in common.
        rows: the rows.
    """

    title: str
    rows: tuple[RowRecord, ...]

    @property
    def measured(self) -> list[RowRecord]:
        """The rows that hold, the fastest first."""
        return [row for row in self.rows if row.ok]


class Naming:
    """Short names of the rows of one report: only what differs between some of them is told."""

    def __init__(self, rows: Sequence[Named]) -> None:
        self._differs = [name for name, tell in _TOLD.items() if len({tell(row) for row in rows}) > 1]

    def in_group(self, row: Named) -> str:
        """A row's name beside its peers: ``onnx-fp32 on onnxruntime, 2 threads``."""
        return self._name(row, [name for name in self._differs if name not in _OF_GROUP])

    def of_series(self, row: Named) -> str:
        """The name of all rows that differ from this one in nothing but the batch size."""
        return self._name(row, [name for name in self._differs if name != "batch_size"])

    def whole(self, row: Named) -> str:
        """A row's name among all of the report."""
        return self._name(row, self._differs)

    def group(self, row: Named) -> str:
        """What a row shares with its peers: ``batch 8, 384x384, on cuda:0``."""
        parts = [f"batch {row.batch_size}"]
        parts += [_TOLD["image_size"](row)] if "image_size" in self._differs and row.image_size else []
        parts += [f"on {row.device}"] if "device" in self._differs else []
        return visible(", ".join(parts))

    @staticmethod
    def _name(row: Named, told: Sequence[str]) -> str:
        words = [word for name in told if (word := _TOLD[name](row))]
        return visible(", ".join([f"{row.artefact} on {row.backend}", *words]))


def visible(text: str) -> str:
    """Text without what steers a terminal, or turns the direction in which a whole page is read."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def groups(report: BenchReport) -> list[Group]:
    """The rows by what they are compared within, in the order of the report."""
    naming = Naming(report.rows)
    found: dict[object, list[RowRecord]] = {}
    for row in report.rows:
        found.setdefault((row.device, row.batch_size, row.image_size), []).append(row)
    return [Group(naming.group(rows[0]), tuple(sorted(rows, key=_speed))) for rows in found.values()]


def _speed(row: RowRecord) -> tuple[bool, float]:
    return not row.ok, row.p50_ms or 0.0


def series(rows: Sequence[RowRecord]) -> list[list[RowRecord]]:
    """The rows that hold, those together that differ in the batch size alone, smallest batch first."""
    found: dict[object, list[RowRecord]] = {}
    for row in rows:
        if row.ok and row.images_per_s:
            what = (row.artefact, row.backend, row.device, row.image_size)
            found.setdefault((*what, row.threads, row.streams, row.contract, row.cuda_graph), []).append(row)
    return [sorted(entry, key=lambda row: row.batch_size) for entry in found.values()]


def frontier(rows: Sequence[RowRecord]) -> list[RowRecord]:
    """The rows that no other one beats in latency and throughput at once, the fastest first.

    Two rows of the same latency and throughput are both on it.
    """
    best = 0.0
    found: list[RowRecord] = []
    able = [row for row in rows if row.ok and row.p50_ms and row.images_per_s]
    for row in sorted(able, key=lambda row: (row.p50_ms, -(row.images_per_s or 0))):
        rate = row.images_per_s or 0.0
        last = found[-1] if found else None
        if rate > best or (last and (row.p50_ms, rate) == (last.p50_ms, last.images_per_s)):
            best = rate
            found.append(row)
    return found


def is_baseline(row: RowRecord) -> bool:
    """Whether its group's ratios stand against this row."""
    return row.baseline_key is not None and row.baseline_key == row.key
