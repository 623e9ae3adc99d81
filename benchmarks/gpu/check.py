"""The whole road on a CUDA machine: export, verify and bench of a ViT-B/16, its figures in one file per GPU.

It calls the command line as a user would, so what it records is what a user gets. It benches twice, without
and with CUDA graphs, and says which figures of the GPU were there: one that is missing on every row is named,
so that nobody takes a silent gap for a measurement.

    python benchmarks/gpu/check.py --output benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FORMATS = "onnx,torchscript,tensorrt"
BACKENDS = "eager,onnxruntime,torchscript,tensorrt"
GRAPH_BACKENDS = "onnxruntime,tensorrt"
"""Those that replay an inference as a CUDA graph."""

SPLIT = ("h2d_ms", "compute_ms", "d2h_ms", "enqueue_ms")
TOLD = (*SPLIT, "energy_j", "power_w", "clock_mhz")
"""What a row says of the GPU beside the wall clock."""

SLACK = 1.1
"""Compute may be so much longer than the median latency: it was timed at another moment."""


def main() -> None:
    """Run the commands, and write their documents side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vit_base_patch16_224")
    parser.add_argument("--batch-size", default="1,8,32")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        document = run_road(Path(folder) / "bundle", arguments.arch, arguments.batch_size)
    target = arguments.output / f"{slug(document)}.json"
    target.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written: {target}")
    for name in ("absent", "odd", "failed"):
        if document["gpu"][name]:
            print(f"{name}: {json.dumps(document['gpu'][name], indent=1)}")


def run_road(bundle: Path, arch: str, batch_sizes: str) -> dict[str, Any]:
    """Export, verify, bench without and with CUDA graphs; stops at the first command that fails."""
    largest = max(map(int, batch_sizes.split(",")))
    side = re.search(r"_(\d+)$", arch)
    shape = f"{largest}x3x{side[1]}x{side[1]}" if side else ""
    shapes = ["--maxShapes", shape, "--optShapes", shape] if shape else []
    where = str(bundle)
    on_gpu = ["--device", "cuda", "--batch-size", batch_sizes]
    document = {
        "arch": arch,
        "doctor": call("doctor"),
        "export": call("export", "-m", arch, "--format", FORMATS, "-o", where, *shapes),
        "verify": call("verify", where),
        "bench": call("bench", where, "--backend", BACKENDS, "--ceiling", *on_gpu),
        "bench_cuda_graph": call("bench", where, "--backend", GRAPH_BACKENDS, "--cuda-graph", *on_gpu),
    }
    document["gpu"] = summarise([*document["bench"]["rows"], *document["bench_cuda_graph"]["rows"]])
    return document


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rows say of the GPU: by row, which figures no row has, and what contradicts itself.

    Args:
        rows: of ``bench``.
    """
    told = {row["key"]: {**(row["gpu"] or {}), **_limit(row)} for row in rows if row["ok"]}
    absent = [name for name in (*TOLD, "share") if not any(name in figures for figures in told.values())]
    odd = [
        f"{row['key']}: compute of {row['gpu']['compute_ms']:.3f} ms in an inference of {row['p50_ms']:.3f} ms"
        for row in rows
        if row["ok"] and (row["gpu"] or {}).get("compute_ms", 0) > SLACK * row["p50_ms"]
    ]
    return {
        "rows": told,
        "absent": absent,
        "odd": odd,
        "failed": {row["key"]: row["error"] for row in rows if not row["ok"]},
    }


def _limit(row: dict[str, Any]) -> dict[str, float]:
    limit = row["limit"] or {}
    return {name: limit[name] for name in ("gflops_per_s", "ceiling_gflops_per_s", "share") if name in limit}


def call(command: str, *words: str) -> dict[str, Any]:
    """One command's document; its notes go to the terminal."""
    program = Path(sys.executable).with_name("vit-deploy")
    print(f"$ vit-deploy {command} {' '.join(words)}", flush=True)
    done = subprocess.run(
        [str(program), command, *words, "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.returncode)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def slug(document: dict[str, Any]) -> str:
    """A file name made of the GPU's name."""
    gpus = document["doctor"]["environment"]["gpus"]
    return re.sub(r"[^a-z0-9]+", "-", (gpus[0] if gpus else "unknown-gpu").lower()).strip("-")


if __name__ == "__main__":
    main()
