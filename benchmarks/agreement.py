"""Whether our p50 is what others measure: OpenVINO's ``benchmark_app``, and a bare loop around ONNX Runtime.

Each measures the same ONNX file (one image, shapes fixed) with the same threads, one stream, f32, and threads
that do not spin, in a fresh process of its own. They take turns in random order for several repetitions; the
ratio, ours over theirs, is taken within a repetition, and its interval is Student's over their logarithms.
The wall clock around a call from Python is ours and the bare loop's; ``benchmark_app`` takes what OpenVINO
itself says an inference took.

    python benchmarks/agreement.py
    python benchmarks/agreement.py --arch vit_base_patch16_224 --repetitions 12 --output FILE

Exits with 5 where a ratio is more than 2 % away from 1. On a busy machine intervals are wide, and it says so.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vit_deploy.bundle.reader import Bundle

LIMIT = 0.02
BARE_LOOP = Path(__file__).with_name("_bare_onnxruntime.py")
BENCHMARK_APP = (
    "import sys; sys.modules['openvino_telemetry'] = None; "
    "from openvino.tools.benchmark.main import main; sys.exit(main())"
)
"""What the script ``benchmark_app`` does, without word to its makers."""
REPORT = "benchmark_report.csv"
MEDIAN = "latency (ms)"
"""What ``benchmark_app`` calls its median where no other percentile was asked for."""


def main() -> int:
    """Measure, print, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="vit_small_patch16_224", help="with random weights (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of samples, each time (%(default)s)")
    parser.add_argument("--threads", type=int, help="all usable cores unless given")
    parser.add_argument("--seed", type=int, default=0, help="of the order (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    told = parser.parse_args()
    document = compare(told.arch, told.repetitions, told.seconds, told.threads, told.seed)
    for entry in document["comparisons"]:
        print(sentence(entry))
    if told.output:
        told.output.parent.mkdir(parents=True, exist_ok=True)
        told.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if all(entry["within_limit"] for entry in document["comparisons"]) else 5


def compare(arch: str, repetitions: int, seconds: float, threads: int | None, seed: int) -> dict[str, Any]:
    """Let the four take turns; the document."""
    from vit_deploy.environment import environment, usable_cores

    count = threads or usable_cores()
    with tempfile.TemporaryDirectory() as folder:
        bundle, path = export(arch, Path(folder) / "bundle")
        ways: dict[str, Callable[[], float]] = {
            "ours on openvino": lambda: ours(bundle, "openvino", seconds, count),
            "benchmark_app": lambda: benchmark_app(path, seconds, count, Path(folder)),
            "ours on onnxruntime": lambda: ours(bundle, "onnxruntime", seconds, count),
            "bare loop": lambda: bare_loop(path, seconds, count),
        }
        order = random.Random(seed)
        runs: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repetitions):
            for name in order.sample(list(ways), len(ways)):
                runs[name].append(ways[name]())
    pairs = (("ours on openvino", "benchmark_app"), ("ours on onnxruntime", "bare loop"))
    return {
        "schema": "vit-deploy/benchmark-agreement/1",
        "environment": environment(),
        "arch": arch,
        "batch_size": 1,
        "threads": count,
        "seconds": seconds,
        "limit": LIMIT,
        "comparisons": [judged(mine, theirs, runs[mine], runs[theirs]) for mine, theirs in pairs],
        "runs_ms": runs,
    }


def export(arch: str, folder: Path) -> tuple[Bundle, Path]:
    """An ONNX artefact for one image and no other batch, so that every tool takes it as it is."""
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.deploy.export import export_model
    from vit_deploy.spec import BatchRange
    from vit_deploy.weights import load_model

    outcome = export_model(load_model(arch), folder, ["onnx"], batch=BatchRange(1, 1, 1), verify=False)[0]
    if outcome.error is not None:
        raise outcome.error
    bundle = Bundle.open(folder)
    return bundle, bundle.artefact(next(iter(bundle.records))).path


def ours(bundle: Bundle, backend: str, seconds: float, threads: int) -> float:
    """The p50 of ``vit-deploy bench``, in ms.

    Raises:
        RuntimeError: when it gives none.
    """
    from vit_deploy import registry
    from vit_deploy.bench.cases import cases_for
    from vit_deploy.bench.coordinator import Settings, run_bench
    from vit_deploy.bench.grid import Grid
    from vit_deploy.facts import Device

    cases, _ = cases_for(bundle, registry.runtime(backend), Device(), Grid(threads=(threads,)))
    settings = Settings(duration_s=seconds, precision_target=1e-6, soundness=False)
    (row,) = run_bench(cases, settings).rows
    if row.p50_ms is None:
        raise RuntimeError(f"{backend} failed: {row.error}")
    return row.p50_ms


def benchmark_app(path: Path, seconds: float, threads: int, folder: Path) -> float:
    """The median of OpenVINO's own tool, in ms, from its report."""
    command = [sys.executable, "-c", BENCHMARK_APP, "-m", str(path), "-d", "CPU"]
    command += ["-api", "sync", "-hint", "none", "-nstreams", "1", "-nthreads", str(threads), "-pin", "NO"]
    command += ["-infer_precision", "f32", "-t", str(max(1, math.ceil(seconds)))]
    run([*command, "-report_type", "no_counters", "-report_folder", str(folder)], threads)
    return median_of_report((folder / REPORT).read_text(encoding="utf-8"))


def median_of_report(text: str) -> float:
    """The median latency in ms of a ``benchmark_report.csv``.

    Raises:
        ValueError: when there is not exactly one.
    """
    found = [
        row[1] for row in csv.reader(text.splitlines(), delimiter=";") if len(row) == 2 and row[0] == MEDIAN
    ]
    if len(found) != 1:
        raise ValueError(f"the report of benchmark_app has {len(found)} lines of {MEDIAN!r}, not one")
    return float(found[0])


def bare_loop(path: Path, seconds: float, threads: int) -> float:
    """The median of the bare loop, in ms."""
    return float(
        run([sys.executable, str(BARE_LOOP), str(path), str(threads), str(seconds)], threads).split()[-1]
    )


def run(command: Sequence[str], threads: int) -> str:
    """What a command prints; its environment says the same of threads as that of our workers.

    Raises:
        RuntimeError: with its last words, when it fails.
    """
    from vit_deploy.worker_process import worker_environment

    done = subprocess.run(command, capture_output=True, text=True, env=worker_environment(threads), check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} failed: {(done.stdout + done.stderr)[-1000:]}")
    return done.stdout


def judged(mine: str, theirs: str, ours_ms: Sequence[float], theirs_ms: Sequence[float]) -> dict[str, Any]:
    """The ratio of two series that were measured in turns, and whether it is within the limit."""
    ratio, low, high = paired(ours_ms, theirs_ms)
    return {
        "ours": mine,
        "theirs": theirs,
        "ours_ms": statistics.median(ours_ms),
        "theirs_ms": statistics.median(theirs_ms),
        "ratio": ratio,
        "ratio_interval": [low, high],
        "within_limit": abs(ratio - 1) <= LIMIT,
        "proven": low >= 1 - LIMIT and high <= 1 + LIMIT,
    }


def paired(mine: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The geometric mean of the paired ratios with its 95 % interval (Student's, over logarithms).

    Raises:
        ValueError: for fewer than two pairs.
    """
    from scipy import stats

    logs = [math.log(one / other) for one, other in zip(mine, theirs, strict=True)]
    if len(logs) < 2:
        raise ValueError(f"an interval needs at least two repetitions, not {len(logs)}")
    centre = statistics.fmean(logs)
    half = float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(centre), math.exp(centre - half), math.exp(centre + half)


def sentence(entry: dict[str, Any]) -> str:
    """A comparison in a line."""
    low, high = entry["ratio_interval"]
    verdict = "within 2 %" if entry["within_limit"] else "NOT within 2 %"
    if entry["within_limit"] and not entry["proven"]:
        verdict += ", but its interval is not: more repetitions, or a quieter machine, would tell"
    return (
        f"{entry['ours']}: {entry['ours_ms']:.2f} ms; {entry['theirs']}: {entry['theirs_ms']:.2f} ms; "
        f"ratio {entry['ratio']:.4f} ({low:.4f} to {high:.4f}), {verdict}"
    )


if __name__ == "__main__":
    sys.exit(main())
