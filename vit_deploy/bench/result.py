"""What a run found: one row per case, raw samples first, every figure derived from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from vit_deploy.bench.measured import PHASES, Measured

__all__ = ["PHASES", "BenchResult", "Measured", "Row"]


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
        launch_lengths: how many of the rounds each launch took: a launch is a worker process of its own.
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
    launch_lengths: tuple[int, ...]
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
