"""What calibrating for int8 costs: the whole way from an fp32 graph to an int8 file, beside eager forwards.

Each is a process of its own. *Calibration* takes the finished fp32 graph through the pictures, the choice of
ranges and scales, the correction of biases and the writing of the file; what an earlier run kept is not used.
*Eager* is as many forwards of PyTorch in float32 as there are pictures, in batches of the same size. Building
the graph and importing libraries are in neither time. The peak is the most memory that the process had
resident; what it was before the work began is told beside it.

    python benchmarks/calibration.py --arch vit_base_patch16_224 --images 128
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH = 4
"""Pictures in a batch, as in :mod:`vit_deploy.quantisation.lower`."""

LIMITS = {"seconds": (1.5, 10.0), "peak": 3.0}
"""At most so many times eager's seconds, and so many more; so many times the weights."""


def main() -> int:
    """Run both, print the figures, record them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vit_base_patch16_224", help="a named architecture")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--run", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(json.dumps(WAYS[given.run](given.arch, given.images)))
        return 0
    result = compare(given.arch, given.images, given.threads)
    text = json.dumps(result, indent=2)
    print(text)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(text + "\n", encoding="utf-8")
    return 0 if result["within"]["seconds"] and result["within"]["peak"] else 5


def compare(arch: str, images: int, threads: int) -> dict[str, Any]:
    """Both ways, and what the figures come to."""
    from vit_deploy.environment import environment

    found = {way: _in_a_process(way, arch, images, threads) for way in WAYS}
    ours, eager = found["calibration"], found["eager"]
    factor, more = LIMITS["seconds"]
    seconds = ours["seconds"] / (factor * eager["seconds"] + more)
    peak = ours["peak_bytes"] / ours["weight_bytes"]
    return {
        "schema": "vit-deploy/benchmark-calibration/1",
        "environment": environment(),
        "arch": arch,
        "images": images,
        "threads": threads,
        **found,
        "seconds_over_eager": ours["seconds"] / eager["seconds"],
        "share_of_the_time_allowed": seconds,
        "peak_over_weights": peak,
        "within": {"seconds": seconds <= 1, "peak": peak <= LIMITS["peak"]},
    }


def _in_a_process(way: str, arch: str, images: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--run", way, "--arch", arch, "--images", str(images)]
    with tempfile.TemporaryDirectory() as cache:
        variables = {**os.environ, "OMP_NUM_THREADS": str(threads), "VIT_DEPLOY_CACHE": cache}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def calibrate(arch: str, images: int) -> dict[str, Any]:
    """From the fp32 graph to the int8 file."""
    import torch

    from vit_deploy.bench.worker import peak_rss_bytes
    from vit_deploy.exporters.onnx import build_graph
    from vit_deploy.graph.options import OnnxOptions
    from vit_deploy.graph.precision import lower_precision
    from vit_deploy.graph.stream import write_model
    from vit_deploy.protocols import Silent
    from vit_deploy.weights import load_model

    model = load_model(arch)
    spec = model.config.io_spec()
    graph = build_graph(model, spec, 23)
    before = peak_rss_bytes()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        lower_precision(graph, model, spec, "int8", OnnxOptions(calibration_images=images), Silent())
        lowered = time.monotonic()
        write_model(graph, Path(folder) / "model.onnx")
        ended = time.monotonic()
    peak = peak_rss_bytes()
    with torch.device("meta"):
        parameters = sum(tensor.numel() for tensor in model.module(spec).parameters())
    return {
        "seconds": ended - began,
        "lowering_seconds": lowered - began,
        "writing_seconds": ended - lowered,
        "peak_bytes": peak,
        "peak_before_bytes": before,
        "weight_bytes": 4 * parameters,
    }


def forward(arch: str, images: int) -> dict[str, Any]:
    """So many forwards of eager PyTorch."""
    import torch

    from vit_deploy.weights import load_model

    model = load_model(arch)
    module = model.eager()
    shape = model.config.io_spec().inputs[0].at_batch(BATCH)
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        module(pixels)
        began = time.monotonic()
        for _ in range(-(-images // BATCH)):
            module(pixels)
    return {"seconds": time.monotonic() - began}


WAYS = {"calibration": calibrate, "eager": forward}

if __name__ == "__main__":
    sys.exit(main())
