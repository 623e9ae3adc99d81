"""What ``make gpu-check`` says of the figures that it recorded."""

from __future__ import annotations

import runpy
from pathlib import Path

from tests.bench.results import row

CHECK = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "gpu" / "check.py"))


def test_the_figures_of_each_row_and_what_none_has():
    split = {"h2d_ms": 0.1, "compute_ms": 5.0, "d2h_ms": 0.02, "enqueue_ms": 0.4}
    limit = {"flops": 1.0, "gflops_per_s": 9.0, "ceiling_gflops_per_s": 12.0, "share": 0.75}
    whole = row("tensorrt-fp16", "tensorrt", gpu=split, limit=limit)
    bare = row("onnx-fp16", "onnxruntime", gpu={"clock_mhz": 1980.0}, limit=None)
    failed = row("onnx-fp32", "eager", ok=False, error="it is broken", gpu=None, limit=None)
    found = CHECK["summarise"]([whole, bare, failed])
    assert found["rows"] == {
        whole["key"]: {**split, "gflops_per_s": 9.0, "ceiling_gflops_per_s": 12.0, "share": 0.75},
        bare["key"]: {"clock_mhz": 1980.0},
    }
    assert found["absent"] == ["energy_j", "power_w"]
    assert found["odd"] == []
    assert found["failed"] == {failed["key"]: "it is broken"}


def test_compute_that_is_longer_than_the_inference_is_odd():
    entry = row(gpu={"compute_ms": 50.0}, limit=None)
    assert CHECK["summarise"]([entry])["odd"] == [
        f"{entry['key']}: compute of 50.000 ms in an inference of {entry['p50_ms']:.3f} ms"
    ]
