"""What normalising inside the artefact costs: `--input uint8` beside `--input pixel_values`, in ONNX Runtime.

Two figures. The nodes that an artefact has more of (a cast, a transposition, a subtraction; a test pins
that there are no others) are timed by themselves: the quickest inference of them over the model's. And
both artefacts of a model are open in one process and take turns inference by inference, in an order
that is drawn anew each time, so that what disturbs the machine meets both alike: the median of the pairs'
ratios with its 95 % confidence interval (order statistics), by the clock and by the processor time of all
threads. On a busy machine that interval is wider than what is asked for; the first figure is not.

It holds where the nodes take at most LIMIT - 1 and no interval lies above LIMIT as a whole; the script
exits with 5 otherwise. Nothing of preparing the input is in the times: with ``pixel_values`` someone has
to normalise outside.

    python benchmarks/input_contract.py
    python benchmarks/input_contract.py --output benchmarks/results/input-contract.json
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from vit_deploy.bench.statistics import median, median_interval
from vit_deploy.bench.worker import make_inputs
from vit_deploy.bundle import Bundle
from vit_deploy.deploy.export import export_model
from vit_deploy.environment import environment, usable_cores
from vit_deploy.facts import Device
from vit_deploy.garbage import collection_off
from vit_deploy.graph.capture import capture
from vit_deploy.graph.fold import fold_constants
from vit_deploy.model.contract import contracted
from vit_deploy.model.input_stage import InputStage
from vit_deploy.protocols import SessionOptions
from vit_deploy.registry import runtime
from vit_deploy.spec import BATCH, TensorSpec
from vit_deploy.weights import load_model

if TYPE_CHECKING:
    from vit_deploy.protocols import Step
    from vit_deploy.weights.imported import Model

LIMIT = 1.01
ARCHS = ("vit_small_patch16_224", "vit_base_patch16_224")
CONTRACTS = ("pixel_values", "uint8")


def measure(arch: str, pairs: int, seed: int) -> dict[str, Any]:
    """The ratio of one architecture, and what it was made of.

    Args:
        arch: a named architecture; its weights are random, which no dense model's time depends on.
        pairs: how many ratios.
        seed: of the order of the turns.
    """
    model = load_model(arch)
    with tempfile.TemporaryDirectory() as folder:
        for contract in CONTRACTS:
            export_model(model, Path(folder) / "b", ["onnx"], contract=contract, verify=False)
        bundle = Bundle.open(Path(folder) / "b")
        onnxruntime, options = runtime("onnxruntime"), SessionOptions(threads=usable_cores())
        sessions, steps = [], []
        for name in ("onnx-fp32", "onnx-fp32-uint8"):
            artefact = bundle.artefact(name)
            sessions.append(onnxruntime.open(artefact, Device("cpu"), options))
            steps.append(sessions[-1].stage(make_inputs(artefact, artefact.spec.free_at(1))))
        samples = take_turns(steps, pairs, seed)
        for session in sessions:
            session.close()
    by_clock, by_processor = (compare(samples, place) for place in (0, 1))
    alone, whole = stage_ns(model, options.threads or 1), min(clock for clock, _ in samples[0])
    return {
        "arch": arch,
        "threads": options.threads,
        "pairs": pairs,
        "clock": by_clock,
        "processor": by_processor,
        "stage_ms": alone / 1e6,
        "stage_share": alone / whole,
        "ok": alone / whole <= LIMIT - 1 and by_clock["interval"][0] <= LIMIT >= by_processor["interval"][0],
        "samples_ns": samples,
    }


def stage_ns(model: Model, threads: int) -> int:
    """The quickest inference of the nodes that normalising adds, by themselves."""
    import onnxruntime as ort

    preprocessing = model.known_preprocessing
    spec = contracted(model.config.io_spec(("logits",)), "uint8", model.config, preprocessing)
    levels = TensorSpec("levels", "float32", (BATCH, model.config.in_channels, *model.config.image_size))
    spec = replace(spec, outputs=(levels,))
    graph = capture(lambda: InputStage(preprocessing, resize=False), spec)
    fold_constants(graph)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString(), settings)
    (entry,) = spec.inputs
    picture = np.random.default_rng(0).integers(0, 256, entry.at_batch(1), dtype=np.uint8)
    taken = []
    for _ in range(500):
        start = time.perf_counter_ns()
        session.run(None, {entry.name: picture})
        taken.append(time.perf_counter_ns() - start)
    return min(taken)


def compare(samples: list[list[tuple[int, int]]], place: int) -> dict[str, Any]:
    """The ratio by one of the two clocks, its interval, and both medians."""
    before, after = ([taken[place] for taken in of_one] for of_one in samples)
    ratios = [later / earlier for earlier, later in zip(before, after, strict=True)]
    return {
        "pixel_values_ms": median(before) / 1e6,
        "uint8_ms": median(after) / 1e6,
        "ratio": median(ratios),
        "interval": list(median_interval(ratios) or (min(ratios), max(ratios))),
    }


def take_turns(steps: list[Step], pairs: int, seed: int) -> list[list[tuple[int, int]]]:
    """Nanoseconds of each inference by the clock and of the processor, by step.

    A tenth as many pairs warm up, uncounted.
    """
    order = random.Random(seed)
    samples: list[list[tuple[int, int]]] = [[] for _ in steps]
    warm_up = max(5, pairs // 10)
    with collection_off(collect_first=True):
        for turn in range(pairs + warm_up):
            for index in order.sample(range(len(steps)), len(steps)):
                worked, start = time.process_time_ns(), time.perf_counter_ns()
                steps[index]()
                steps[index].synchronize()
                clock = time.perf_counter_ns() - start
                if turn >= warm_up:
                    samples[index].append((clock, time.process_time_ns() - worked))
    return samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    given = parser.parse_args()
    rows = [measure(arch, given.pairs, given.seed) for arch in ARCHS]
    for row in rows:
        for kind in ("clock", "processor"):
            figures = row[kind]
            low, high = figures["interval"]
            print(
                f"{row['arch']:24} {kind:10} {figures['pixel_values_ms']:8.2f} {figures['uint8_ms']:8.2f} ms  "
                f"ratio {figures['ratio']:.4f} ({low:.4f} to {high:.4f})"
            )
        print(f"{row['arch']:24} the added nodes alone {row['stage_ms']:.3f} ms, {row['stage_share']:.2%}")
        print(f"{row['arch']:24} at most {LIMIT - 1:.0%}: {'holds' if row['ok'] else 'does not hold'}")
    document = {
        "schema": "vit-deploy/input-contract/1",
        "environment": environment(),
        "limit": LIMIT,
        "rows": rows,
    }
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return 0 if all(row["ok"] for row in rows) else 5


if __name__ == "__main__":
    sys.exit(main())
