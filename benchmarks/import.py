"""What an import costs: ``load_model`` beside safetensors' own reading of the same file.

The checkpoint is a ViT-B/16 in fp32 (346 MB), written here with seeded random weights and in the page
cache. In one process, after one run of each that does not count, the ways take turns in random order:

- ``safetensors``: ``safetensors.torch.load_file``, then the sum of every tensor, so that each byte is
  read; by itself ``load_file`` maps the file and reads nothing;
- ``in memory``: the same with a copy of each tensor, which is what a model that must not depend on the
  file needs; for the reader, not part of the ratio;
- ``ours``: ``load_model``, which checks the header, every name and shape, and that every weight is finite;
- ``hash``: the SHA-256 of the file, which is computed when it is first asked for (an export, ``inspect``).

The ratio is that of the medians, ours over safetensors; the target is 1.2. CPU seconds, of all threads,
are beside the wall-clock ones: on a busy machine they are the steadier of the two. torch has the threads
that it takes by itself, in which safetensors' reading is slow: threads that touch one new mapping wait for
each other. With ``--threads 1`` it is at its fastest, which is as fast as the memory; then the work that
does not grow with the file (names, shapes, config: some 8 ms) shows, and the ratio is above the target.

    python benchmarks/import.py --rounds 15
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TARGET = 1.2


def main() -> None:
    """Run the rounds, print the figures, and record them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vit_base_patch16_224")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=0, help="of torch, for all ways alike; its own choice at 0"
    )
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    result = compare(arguments.arch, arguments.rounds, arguments.seed, arguments.threads)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n", encoding="utf-8")


def compare(arch: str, rounds: int, seed: int, threads: int) -> dict[str, object]:
    """Runs of every way in random order, and the ratio of two medians."""
    import torch

    from vit_deploy.environment import environment
    from vit_deploy.weights import load_model
    from vit_deploy.weights.tensors import write_safetensors

    torch.set_num_threads(threads or torch.get_num_threads())
    order = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "model.safetensors"
        with checkpoint.open("wb") as file:
            write_safetensors(load_model(arch).weights, file)
        ways = ways_to_read(checkpoint, arch)
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for counted in [False] + [True] * rounds:
            for way in order.sample(sorted(ways), len(ways)):
                figures = timed(ways[way])
                if counted:
                    runs[way].append(figures)
        size = checkpoint.stat().st_size
    seconds, cpu = (
        {way: statistics.median(run[kind] for run in figures) for way, figures in runs.items()}
        for kind in ("seconds", "cpu_seconds")
    )
    return {
        "schema": "vit-deploy/benchmark-import/1",
        "environment": environment(),
        "arch": arch,
        "threads": torch.get_num_threads(),
        "checkpoint_bytes": size,
        "target_ratio": TARGET,
        "seconds": {way: round(value, 4) for way, value in seconds.items()},
        "seconds_ratio": round(seconds["ours"] / seconds["safetensors"], 3),
        "cpu_seconds": {way: round(value, 4) for way, value in cpu.items()},
        "cpu_seconds_ratio": round(cpu["ours"] / cpu["safetensors"], 3),
        "runs": runs,
    }


def ways_to_read(checkpoint: Path, arch: str) -> dict[str, Callable[[], object]]:
    """What takes turns, by name."""
    from safetensors.torch import load_file

    from vit_deploy.weights import load_model
    from vit_deploy.weights.hashes import sha256_of

    return {
        "safetensors": lambda: sum(float(tensor.sum()) for tensor in load_file(checkpoint).values()),
        "in memory": lambda: [tensor.clone() for tensor in load_file(checkpoint).values()],
        "ours": lambda: load_model(arch, weights=checkpoint),
        "hash": lambda: sha256_of(checkpoint),
    }


def timed(read: Callable[[], object]) -> dict[str, float]:
    """Wall-clock and CPU seconds of one run; what it gave is dropped after the clock was read."""
    cpu, started = time.process_time(), time.perf_counter()
    result = read()
    figures = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    del result
    return figures


if __name__ == "__main__":
    main()
