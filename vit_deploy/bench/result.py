"""What a run found: one row per case, raw samples first, every figure derived from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.cases import Case
from vit_deploy.bench.statistics import median, paired_ratio, relative_half_width, tail_quantile

if TYPE_CHECKING:
    from collections.abc import Mapping

NS_PER_MS = 1e6
PHASES = ("import", "check", "open", "first")


@dataclass
class Measured:
    """What one worker gave, as it is gathered; a failure leaves the rest as it was by then.

    Attributes:
        case: what was measured.
        rounds: nanoseconds of each step, by round; the steps of all streams.
        elapsed_ns: how long each round took, all its streams together.
        cold_start_ns: nanoseconds of each of :data:`PHASES`.
        facts: what the session reported of itself.
        warm_up: steps, elapsed nanoseconds, whether it settled.
        rested: whether the worker's threads came to rest after each of its turns.
        idle_share: the share of one core that the worker used while others measured; ``None`` if unknown.
        disturbed: why its samples may not be trusted, a line for each kind of disturbance.
        gpu: what was timed on the device, see :attr:`Row.gpu`.
        peak_rss_bytes: the most memory the worker had resident.
        peak_device_bytes: the most that PyTorch held on the GPU.
        error: why the case failed, empty where it did not.
        exit_code: the exit code that this failure means, were it the only case.
        worker_exit: how the worker process ended, where it died: a signal's number is negative.
    """

    case: Case
    rounds: list[list[int]] = field(default_factory=list)
    elapsed_ns: list[int] = field(default_factory=list)
    cold_start_ns: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warm_up: Mapping[str, Any] = field(default_factory=dict)
    rested: bool = True
    idle_share: float | None = None
    disturbed: list[str] = field(default_factory=list)
    gpu: Mapping[str, float] = field(default_factory=dict)
    peak_rss_bytes: int | None = None
    peak_device_bytes: int | None = None
    error: str = ""
    exit_code: int = 0
    worker_exit: int | None = None

    @property
    def samples(self) -> list[int]:
        """All samples in the order they were taken."""
        return [sample for entry in self.rounds for sample in entry]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as a journal keeps it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measured:
        """The inverse of :meth:`to_dict`.

        Raises:
            KeyError: when a field is missing.
        """
        given = {entry.name: data[entry.name] for entry in fields(cls)}
        return cls(**{**given, "case": Case.from_dict(data["case"])})


@dataclass(frozen=True)
class Row:
    """One row of the result. Figures of a failed row are ``None``.

    Attributes:
        key: :attr:`vit_deploy.bench.cases.Case.key`.
        half_width: half the width of the median's 95 % confidence interval, over the median.
        p50_interval_ms: that interval, ``(low, high)``.
        images_per_s: images of a round over its elapsed time, the median over rounds.
        ratio: this row's latency over the baseline's, paired round by round: below 1 is faster.
        ratio_interval: its 95 % bootstrap interval, ``(low, high)``.
        throughput_ratio: this row's images per second over the baseline's: above 1 is faster.
        throughput_ratio_interval: its 95 % bootstrap interval.
        baseline: the artefact and backend that the ratios stand against: same device, batch and image size.
        baseline_key: that row's ``key``.
        worst_ratio: of the artefact's parity verdict.
        limit: how close to the machine's limit it comes: ``flops`` of one inference, ``gflops_per_s``,
            ``ceiling_gflops_per_s``, ``share`` of that ceiling, ``bytes_moved`` at least by one inference.
        gpu: what was timed on the device: host to device, compute, device to host and enqueue in ms,
            joules of an inference.
        disturbed: why the samples may not be trusted: what other processes did meanwhile; empty if nothing.
        round_lengths: how many of ``samples_ns`` each round took.
        round_elapsed_ns: how long each round took, all its streams together.
        notes: what a reader of the figures must know.
    """

    key: str
    artefact: str
    format: str
    precision: str
    backend: str
    device: str
    batch_size: int
    image_size: tuple[int, int] | None
    contract: str
    threads: int
    streams: int
    cuda_graph: bool
    ok: bool
    error: str | None
    exit_code: int
    worker_exit: int | None
    verified: bool
    worst_ratio: float | None
    p50_ms: float | None
    p50_interval_ms: tuple[float, float] | None
    p90_ms: float | None
    p99_ms: float | None
    half_width: float | None
    images_per_s: float | None
    images_per_s_interval: tuple[float, float] | None
    ratio: float | None
    ratio_interval: tuple[float, float] | None
    throughput_ratio: float | None
    throughput_ratio_interval: tuple[float, float] | None
    baseline: str | None
    baseline_key: str | None
    limit: dict[str, float] | None
    gpu: dict[str, float] | None
    cold_start_ms: dict[str, float] | None
    peak_rss_bytes: int | None
    peak_device_bytes: int | None
    warm_up: dict[str, Any] | None
    disturbed: tuple[str, ...]
    notes: tuple[str, ...]
    facts: dict[str, Any] | None
    sha256: str
    files: dict[str, str]
    round_lengths: tuple[int, ...]
    round_elapsed_ns: tuple[int, ...]
    samples_ns: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in the JSON document."""
        return {**asdict(self), "notes": list(self.notes)}


@dataclass(frozen=True)
class BenchResult:
    """A whole run.

    Attributes:
        rows: one per case, in the order that was asked for.
        order: for each round, the indices of the workers in the order in which they measured.
        settings: what governed the run.
        soundness: the same artefact against itself: ``sound``, ``ratio``, ``ratio_interval``, ``key``,
            ``reason``; ``None`` where it was not measured.
        machine: what the machine did meanwhile: steal, clock, throttling, load of others.
        ceilings: what the matrix products of the model reach, one for each precision, device and threads.
        scenarios: what LoadGen found, one for each case and scenario.
        interrupted: whether the user stopped it before its end.
    """

    rows: tuple[Row, ...]
    order: tuple[tuple[int, ...], ...]
    settings: dict[str, Any]
    soundness: dict[str, Any] | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    ceilings: tuple[dict[str, Any], ...] = ()
    scenarios: tuple[dict[str, Any], ...] = ()
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0 when any row holds; otherwise the one code that all failures share, or 1."""
        if any(row.ok for row in self.rows):
            return 0
        codes = {row.exit_code for row in self.rows}
        return codes.pop() if len(codes) == 1 else 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in the JSON document."""
        return {
            "settings": self.settings,
            "soundness": self.soundness,
            "machine": self.machine,
            "interrupted": self.interrupted,
            "order": [list(entry) for entry in self.order],
            "ceilings": list(self.ceilings),
            "scenarios": list(self.scenarios),
            "rows": [row.to_dict() for row in self.rows],
        }


def find_baseline(measured: Measured, everyone: list[Measured]) -> Measured | None:
    """What a case is compared with: eager among its peers, else the first of them that holds."""
    peers = [other for other in everyone if other.case.peers == measured.case.peers and not other.error]
    eager = [other for other in peers if other.case.backend == "eager"]
    return next(iter([*eager, *peers]), None)


def make_row(measured: Measured, baseline: Measured | None) -> Row:
    """The row of a case; its statistics are derived here and nowhere else."""
    case, ok = measured.case, not measured.error
    samples = measured.samples
    figures = _figures(samples, case.batch_size) if ok else dict.fromkeys(_FIGURES)
    ratio = paired_ratio(measured.rounds, baseline.rounds) if ok and baseline else None
    return Row(
        key=case.key,
        artefact=case.artefact,
        format=case.format,
        precision=case.precision,
        backend=case.backend,
        device=case.device,
        batch_size=case.batch_size,
        image_size=case.image_size,
        contract=case.contract,
        threads=case.threads,
        streams=case.streams,
        cuda_graph=case.cuda_graph,
        ok=ok,
        error=measured.error or None,
        exit_code=measured.exit_code,
        worker_exit=measured.worker_exit,
        verified=case.verified,
        worst_ratio=case.worst_ratio,
        **figures,
        ratio=ratio,
        ratio_interval=None,
        throughput_ratio=None,
        throughput_ratio_interval=None,
        baseline=f"{baseline.case.artefact} on {baseline.case.backend}" if baseline and ok else None,
        baseline_key=baseline.case.key if baseline and ok else None,
        limit=None,
        gpu=None,
        cold_start_ms={name: measured.cold_start_ns[name] / NS_PER_MS for name in PHASES}
        if measured.cold_start_ns
        else None,
        peak_rss_bytes=measured.peak_rss_bytes,
        peak_device_bytes=measured.peak_device_bytes,
        warm_up=dict(measured.warm_up) or None,
        disturbed=(),
        notes=_notes(measured) if ok else (),
        facts=dict(measured.facts) or None,
        sha256=case.sha256,
        files=dict(case.files),
        round_lengths=tuple(len(entry) for entry in measured.rounds),
        round_elapsed_ns=tuple(measured.elapsed_ns),
        samples_ns=tuple(samples),
    )


_FIGURES = (
    "p50_ms",
    "p50_interval_ms",
    "p90_ms",
    "p99_ms",
    "half_width",
    "images_per_s",
    "images_per_s_interval",
)


def _figures(samples: list[int], batch_size: int) -> dict[str, Any]:
    p90, p99 = tail_quantile(samples, 0.9), tail_quantile(samples, 0.99)
    p50 = median(samples)
    return {
        "p50_ms": p50 / NS_PER_MS,
        "p50_interval_ms": None,
        "images_per_s_interval": None,
        "p90_ms": None if p90 is None else p90 / NS_PER_MS,
        "p99_ms": None if p99 is None else p99 / NS_PER_MS,
        "half_width": relative_half_width(samples),
        # A step that takes no time at all can only be a fake's; the clock ticks in nanoseconds.
        "images_per_s": batch_size * 1e9 / max(p50, 1),
    }


def _notes(measured: Measured) -> tuple[str, ...]:
    notes = []
    if not measured.case.verified:
        notes.append("unverified")
    if measured.case.cuda_graph:
        notes.append("CUDA graph")
    if not measured.warm_up.get("settled", True):
        notes.append("warm-up did not settle")
    if not measured.rested:
        notes.append("threads ran on between its turns")
    return tuple(notes)
