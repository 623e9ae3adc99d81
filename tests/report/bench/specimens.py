"""What a benchmark finds, written by hand: seeded samples, intervals that are made up beside them."""

from __future__ import annotations

import random
import statistics
from typing import Any

from vit_deploy.bench.document import BenchReport

ENVIRONMENT = {
    "cpu": "AMD EPYC 9R14",
    "cores": 2,
    "memory_bytes": 8_000_000_000,
    "gpus": [],
    "system": "Linux x86_64",
    "python": "3.11.2",
    "packages": {"vit-deploy": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.32.0"},
}

HOSTILE = "<script>alert(1)</script> \"'&]]> =cmd() @everyone #1 `tick` | pipe \u202e \x1b[31m \x00 größe 犬"

WAYS = (
    # artefact, backend, format, precision, p50 at batch 1 and 8, worst_ratio, peak bytes
    ("pytorch-fp32", "eager", "pytorch", "fp32", 290.0, 2150.0, None, 1_210_000_000),
    ("onnx-fp32", "onnxruntime", "onnx", "fp32", 226.0, 1850.0, 1.06, 870_000_000),
    ("openvino-fp32", "openvino", "openvino", "fp32", 222.0, 1600.0, 1.61, 1_050_000_000),
    ("openvino-bf16", "openvino", "openvino", "bf16", 124.0, 770.0, 1.2, 610_000_000),
    ("onnx-int8", "onnxruntime", "onnx", "int8", 78.0, 602.0, None, 340_000_000),
)


def samples(p50_ms: float, count: int, seed: int, noise: float = 0.02) -> list[int]:
    """Nanoseconds around a median, with a tail to the right."""
    generator = random.Random(seed)

    def one() -> int:
        bell = sum(generator.random() for _ in range(8)) - 4
        tail = 0.2 * generator.random() ** 12
        return round(p50_ms * 1e6 * (1 + noise * bell + tail))

    return [one() for _ in range(count)]


def row(
    way: tuple[Any, ...], batch: int, seed: int, rounds: int = 5, each: int = 16, **changes: Any
) -> dict[str, Any]:
    """One row that holds, as :class:`RowRecord` has it."""
    artefact, backend, format_, precision, one, eight, worst, peak = way
    p50 = one if batch == 1 else eight * batch / 8
    taken = samples(p50, rounds * each, seed)
    middle = statistics.median(taken) / 1e6
    ordered = sorted(taken)
    rate = 1000 * batch / middle
    base = WAYS[0][4] if batch == 1 else WAYS[0][5] * batch / 8
    flops, ceiling = 35.2e9 * batch, 176.0 if precision == "fp32" else 520.0
    turns = [taken[place * each : (place + 1) * each] for place in range(rounds)]
    entry = {
        "key": f"{artefact}/{backend}/cpu/b{batch}/224x224/t2/s1",
        "artefact": artefact, "format": format_, "precision": precision, "backend": backend, "device": "cpu",
        "batch_size": batch, "image_size": (224, 224), "contract": "pixel_values", "threads": 2, "streams": 1,
        "cuda_graph": False, "ok": True, "error": None, "exit_code": 0, "worker_exit": None,
        "verified": artefact != "onnx-int8", "worst_ratio": worst,
        "p50_ms": middle, "p50_interval_ms": (0.993 * middle, 1.006 * middle),
        "p90_ms": ordered[int(0.9 * len(ordered))] / 1e6 if len(taken) >= 36 else None,
        "p99_ms": ordered[int(0.99 * len(ordered))] / 1e6 if len(taken) >= 368 else None,
        "half_width": 0.0065,
        "images_per_s": rate, "images_per_s_interval": (0.992 * rate, 1.007 * rate),
        "ratio": middle / base, "ratio_interval": (0.98 * middle / base, 1.02 * middle / base),
        "throughput_ratio": base / middle,
        "throughput_ratio_interval": (0.98 * base / middle, 1.02 * base / middle),
        "baseline": "pytorch-fp32 on eager", "baseline_key": f"pytorch-fp32/eager/cpu/b{batch}/224x224/t2/s1",
        "limit": {
            "flops": flops, "bytes_moved": 3.5e8, "intensity": flops / 3.5e8,
            "gflops_per_s": flops / middle / 1e6,
            "ceiling_gflops_per_s": ceiling, "share": flops / middle / 1e6 / ceiling,
        },
        "gpu": None,
        "cold_start_ms": {"import": 4 * one, "check": 180.0, "open": 3.1 * one, "first": 1.4 * p50},
        "peak_rss_bytes": peak, "peak_device_bytes": None,
        "warm_up": {"steps": 12, "elapsed_ns": 2_000_000_000, "settled": True},
        "disturbed": (), "notes": () if artefact != "onnx-int8" else ("unverified",),
        "facts": {"precision": precision, "threads": 2, "placement": {"CPUExecutionProvider": 287}},
        "sha256": "ab" * 32, "files": {f"{artefact}.bin": "ab" * 32},
        "round_lengths": (each,) * rounds, "round_elapsed_ns": tuple(map(sum, turns)),
        "launch_lengths": (rounds,),
        "samples_ns": tuple(taken),
    }  # fmt: skip
    return {**entry, **changes}


def failed(artefact: str, backend: str, batch: int, error: str) -> dict[str, Any]:
    """A row that came to nothing."""
    entry = row((artefact, backend, "tensorrt", "fp16", 1.0, 8.0, None, 1), batch, 0, 1, 1)
    unknown = dict.fromkeys(
        ("p50_ms", "p50_interval_ms", "p90_ms", "p99_ms", "half_width", "images_per_s", "images_per_s_interval",
         "ratio", "ratio_interval", "throughput_ratio", "throughput_ratio_interval", "baseline", "baseline_key",
         "limit", "cold_start_ms", "peak_rss_bytes", "warm_up", "facts")
    )  # fmt: skip
    nothing = {"round_lengths": (), "round_elapsed_ns": (), "launch_lengths": (), "samples_ns": ()}
    return {**entry, **unknown, **nothing, "ok": False, "error": error, "exit_code": 1, "worker_exit": -11}


SCENARIOS = [
    {
        "key": "onnx-fp32/onnxruntime/cpu/b1/224x224/t2/s1", "scenario": "Server", "verdict": "short run",
        "why": "600 s are asked for, it lasted 20", "target_rate": 3.5, "achieved_rate": 3.42, "queries": 71,
        "latency_ms": {"p50": 241.0, "p90": 410.2, "p95": 450.1, "p97": 480.0, "p99": 690.4, "p99.9": 701.0},
        "slo": {"text": "p99=700ms", "percentile": "p99", "limit_ms": 700.0, "met": True, "rate": 3.5},
    },
    {
        "key": "openvino-bf16/openvino/cpu/b1/224x224/t2/s1", "scenario": "SingleStream", "verdict": "valid",
        "why": "", "target_rate": None, "achieved_rate": 8.1, "queries": 4096,
        "latency_ms": {"p50": 123.9, "p90": 130.4, "p95": 133.0, "p97": 140.0, "p99": 155.1, "p99.9": 160.0},
        "slo": None,
    },
]  # fmt: skip


def document(rows: list[dict[str, Any]], **changes: Any) -> BenchReport:
    """A report of these rows."""
    data = {
        "schema": "vit-deploy/bench/3",
        "environment": ENVIRONMENT,
        "settings": {"duration_s": 10.0, "rounds": 5, "precision_target": 0.01, "seed": 7},
        "soundness": {
            "sound": True, "ratio": 1.002, "ratio_interval": (0.995, 1.008),
            "key": "onnx-fp32/onnxruntime/cpu/b1/224x224/t2/s1", "reason": None,
        },
        "machine": {
            "cores": 2, "turns": 45, "measuring_s": 61.5, "steal_share": 0.004, "foreign_cores": 0.03,
            "mhz": {"lowest": 3650, "median": 3700, "highest": 3710}, "limits": {"idle_share": 0.02},
        },
        "interrupted": False,
        "order": [[2, 0, 1, 3, 4], [0, 4, 3, 1, 2], [1, 2, 0, 4, 3]],
        "ceilings": [
            {"precision": "fp32", "device": "cpu", "threads": 2, "gflops_per_s": 176.0, "products": [1, 2]},
            {"precision": "int8", "device": "cpu", "threads": 2, "gflops_per_s": 520.0},
        ],
        "scenarios": SCENARIOS,
        "rows": rows,
        "skipped": [{"backend": "tensorrt", "reason": "no CUDA device", "mend": "vit-deploy doctor"}],
    }  # fmt: skip
    return BenchReport.model_validate({**data, **changes})


def rows(batches: tuple[int, ...] = (1, 8)) -> list[dict[str, Any]]:
    """All ways at all batch sizes; at batch 1 there are samples enough for p99."""
    return [
        row(way, batch, 31 * batch + number, each=80 if batch == 1 else 16)
        for batch in batches
        for number, way in enumerate(WAYS)
    ]


def report(**changes: Any) -> BenchReport:
    """A run at two batch sizes, one row disturbed, one failed, one never verified."""
    found = rows()
    found[2]["disturbed"] = ("another process took 31 % of a core in round 3",)
    found.insert(
        3, failed("tensorrt-fp16", "tensorrt_rtx", 1, "the worker died of SIGSEGV\n  next: vit-deploy doctor")
    )
    return document(found, **changes)


def quiet() -> BenchReport:
    """One batch size, nothing wrong, nothing but the rows."""
    found = rows((1,))[:3]
    return document(found, scenarios=[], ceilings=[], skipped=[], machine={}, order=[])


def unsound() -> BenchReport:
    """The same against itself was not equal, and the user stopped it."""
    sound = {
        "sound": False,
        "ratio": 1.09,
        "ratio_interval": (1.03, 1.15),
        "reason": "its interval does not hold 1",
    }
    return report(soundness=sound, interrupted=True)


def nothing() -> BenchReport:
    """All failed."""
    found = [failed("onnx-fp32", "onnxruntime", 1, "no memory"), failed("x", "openvino", 1, "gone")]
    return document(found, soundness=None, scenarios=[], ceilings=[], machine={}, order=[])


def hostile() -> BenchReport:
    """Names and errors that are markup of every rendering."""
    way = (HOSTILE, f"b{HOSTILE}", "onnx", "fp32", 100.0, 700.0, 1.0, 1_000_000)
    found = [row(WAYS[0], 1, 1), row(way, 1, 2, key=HOSTILE, disturbed=(HOSTILE,), notes=(HOSTILE,))]
    found += [row(way, 8, 3, key=f"8{HOSTILE}"), failed("=1+1", HOSTILE, 1, HOSTILE * 3)]
    return document(
        found,
        environment={HOSTILE: HOSTILE, **ENVIRONMENT},
        machine={HOSTILE: [HOSTILE]},
        scenarios=[
            {
                "key": HOSTILE,
                "scenario": HOSTILE,
                "verdict": HOSTILE,
                "why": HOSTILE,
                "latency_ms": {"p50": HOSTILE},
            }
        ],
        skipped=[{"backend": HOSTILE, "reason": HOSTILE, "mend": HOSTILE}],
        ceilings=[{HOSTILE: HOSTILE}],
    )


def many(count: int = 300, each: int = 2000) -> BenchReport:
    """Many rows at several batch sizes, each of five rounds of ``each`` samples."""
    taken = [sample // 1000 for sample in samples(1.0, 5 * each, 1)]
    found = []
    for number in range(count):
        way = list(WAYS[number % len(WAYS)])
        way[0], way[4] = f"{way[0]}-variant-{number}", way[4] * (1 + number / count)
        entry = row(tuple(way), (1, 8, 32)[number % 3], number, each=1)
        factor = round(1000 * entry["p50_ms"])
        own = tuple(sample * factor for sample in taken)
        found.append(
            {
                **entry,
                "round_lengths": (each,) * 5,
                "round_elapsed_ns": (1,) * 5,
                "launch_lengths": (5,),
                "samples_ns": own,
            }
        )
    return document(found)
