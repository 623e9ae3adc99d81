"""Results of runs that never were: samples drawn from a seeded distribution, documents made of them."""

from __future__ import annotations

import random
import statistics
from dataclasses import fields
from typing import Any

from vit_deploy.bench.document import SCHEMA, BenchReport
from vit_deploy.bench.result import Row

ENVIRONMENT: dict[str, Any] = {
    "cpu": "AMD EPYC 9R14",
    "cores": 2,
    "memory_bytes": 8_000_000_000,
    "gpus": [],
    "system": "Linux x86_64",
    "python": "3.11.2",
    "packages": {"vit-deploy": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.32.0"},
}

HOSTILE = "<script>alert(1)</script> \"'&]]> @everyone #1 `tick` | pipe \u202e \x1b[31m größe 犬"
"""What an artefact's name may hold: markup of every rendering, control characters."""


def drawn(
    centre_ms: float, *, rounds: int = 8, per_round: int = 40, noise: float = 0.01, seed: int = 0
) -> list:
    """Samples in nanoseconds, by round; each round drifts by a third of the noise."""
    generator = random.Random(seed)
    found = []
    for _ in range(rounds):
        middle = centre_ms * 1e6 * generator.gauss(1, noise / 3)
        found.append([max(1, round(generator.gauss(middle, noise * middle))) for _ in range(per_round)])
    return found


def row(
    artefact: str = "onnx-fp32",
    backend: str = "onnxruntime",
    rounds: list[list[int]] | None = None,
    *,
    baseline: tuple[str, list[list[int]]] | None = None,
    batch_size: int = 1,
    spread: float = 0.005,
    **changes: Any,
) -> dict[str, Any]:
    """A row as it stands in a document.

    Args:
        artefact: its name.
        backend: its backend.
        rounds: samples by round.
        baseline: the key of the baseline's row and its samples by round.
        batch_size: of the row.
        spread: half the width of each interval, over its figure.
        changes: any field of it.
    """
    rounds = drawn(10.0) if rounds is None else rounds
    samples = sorted(sample for entry in rounds for sample in entry)
    p50 = statistics.median(samples) / 1e6 if samples else None
    ratio = None
    if baseline:
        pairs = zip(rounds, baseline[1], strict=False)
        ratio = statistics.median(statistics.median(mine) / statistics.median(theirs) for mine, theirs in pairs)

    def around(value: float | None) -> list[float] | None:
        return None if value is None else [value * (1 - spread), value * (1 + spread)]

    rate = None if p50 is None else batch_size * 1e3 / p50
    return {
        **dict.fromkeys(entry.name for entry in fields(Row)),
        "key": f"{artefact}/{backend}/cpu/b{batch_size}/32x32/t2/s1",
        "artefact": artefact,
        "format": artefact.partition("-")[0],
        "precision": "fp32",
        "backend": backend,
        "device": "cpu",
        "batch_size": batch_size,
        "image_size": [32, 32],
        "contract": "pixel_values",
        "threads": 2,
        "streams": 1,
        "cuda_graph": False,
        "ok": True,
        "exit_code": 0,
        "verified": True,
        "worst_ratio": 1.2,
        "p50_ms": p50,
        "p50_interval_ms": around(p50),
        "p90_ms": samples[int(0.9 * len(samples))] / 1e6 if len(samples) >= 36 else None,
        "p99_ms": samples[int(0.99 * len(samples))] / 1e6 if len(samples) >= 368 else None,
        "half_width": 0.004,
        "images_per_s": rate,
        "images_per_s_interval": around(rate),
        "ratio": ratio,
        "ratio_interval": around(ratio),
        "baseline": "pytorch-fp32 on eager" if baseline else None,
        "baseline_key": baseline[0] if baseline else None,
        "cold_start_ms": {"import": 900.0, "check": 20.0, "open": 100.0, "first": 12.0},
        "peak_rss_bytes": 400_000_000,
        "warm_up": {"steps": 30, "elapsed_ns": 400_000_000, "settled": True},
        "disturbed": [],
        "notes": [],
        "facts": {"backend": backend, "version": "1.32.0", "threads": 2, "streams": 1},
        "sha256": "a" * 64,
        "files": {"model.onnx": "a" * 64},
        "round_lengths": [len(entry) for entry in rounds],
        "round_elapsed_ns": [sum(entry) for entry in rounds],
        "launch_lengths": [2] * (len(rounds) // 2 - 1) + [2 + len(rounds) % 2]
        if len(rounds) > 1
        else [len(rounds)],
        "samples_ns": [sample for entry in rounds for sample in entry],
        **changes,
    }


def failed(
    artefact: str = "onnx-fp32", backend: str = "onnxruntime", error: str = "it broke"
) -> dict[str, Any]:
    """A row that failed before its first sample."""
    figures = {"p50_ms": None, "half_width": None, "images_per_s": None, "cold_start_ms": None}
    return row(artefact, backend, [], ok=False, error=error, exit_code=1, peak_rss_bytes=None, **figures)


def document(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A document of these rows, or of one."""
    return {
        "schema": SCHEMA,
        "environment": ENVIRONMENT,
        "settings": {"duration_s": 10.0, "rounds": 8, "confidence": 0.95},
        "soundness": {"sound": True, "ratio": 1.0, "ratio_interval": [0.99, 1.01], "key": None, "reason": None},
        "machine": {},
        "interrupted": False,
        "order": [[0]],
        "ceilings": [],
        "scenarios": [],
        "rows": list(rows) or [row()],
        "skipped": [],
        **changes,
    }


def report(*rows: dict[str, Any], **changes: Any) -> BenchReport:
    """The same, read."""
    return BenchReport.model_validate(document(*rows, **changes))
