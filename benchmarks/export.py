"""What an ONNX export costs: our whole road beside a bare ``torch.onnx.export`` of the same model.

Each run is a process of its own; the two take turns in random order, so that a busy machine is
unfair to both alike. Ours starts from a checkpoint file and ends with a bundle on the disk (import,
hash, finite check, reference weights, graph, lint, weights; no verification). The bare export starts
from the module with its weights in memory and ends with the file. Imports are in neither time.
``exporter_seconds`` is the part of ours that does what the bare export does: model to ONNX file.

Memory is the peak resident size above what it was once everything was imported.

    python benchmarks/export.py --arch vit_base_patch16_224 --rounds 5
    python benchmarks/export.py --arch vit_large_patch16_224 --rounds 1
    python benchmarks/export.py --arch vit_giant_patch14_dinov2 --rounds 5 --ways ours

The last has 1.1 thousand million parameters; the bare export is left out there, since it holds them twice.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
WAYS = ("ours", "bare")


def main() -> None:
    """Run the rounds, print the figures, and record them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vit_base_patch16_224")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS), help="which to run")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--run", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        way = {"ours": export_ours, "bare": export_bare}[arguments.run]
        print(json.dumps(way(arguments.arch, arguments.checkpoint)))
        return
    result = compare(arguments.arch, arguments.rounds, arguments.seed, arguments.ways)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n", encoding="utf-8")


def compare(arch: str, rounds: int, seed: int, ways: Sequence[str] = WAYS) -> dict[str, object]:
    """Runs of the ways in random order, and the ratios of their medians where both ran."""
    from vit_deploy.environment import environment
    from vit_deploy.weights import load_model
    from vit_deploy.weights.tensors import write_safetensors

    model = load_model(arch)
    order = random.Random(seed)
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "model.safetensors"
        with checkpoint.open("wb") as file:
            write_safetensors(model.weights, file)
        for _ in range(rounds):
            for way in order.sample(list(ways), len(ways)):
                command = [
                    sys.executable,
                    __file__,
                    "--arch",
                    arch,
                    "--run",
                    way,
                    "--checkpoint",
                    str(checkpoint),
                ]
                finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                runs[way].append(json.loads(finished.stdout.splitlines()[-1]))
    return {
        "schema": "vit-deploy/benchmark-export/1",
        "environment": environment(),
        "arch": arch,
        **_figures(runs, model.weights.nbytes),
        "runs": runs,
    }


def _figures(runs: dict[str, list[dict[str, float]]], weights: int) -> dict[str, object]:
    seconds = {way: statistics.median(run["seconds"] for run in done) for way, done in runs.items()}
    peak = {way: max(run["peak_bytes"] for run in done) for way, done in runs.items()}
    exporters = [run["exporter_seconds"] for run in runs.get("ours", [])]
    exporter = statistics.median(exporters) if exporters else None
    bare = seconds.get("bare")
    return {
        "weights_bytes": weights,
        "seconds": {way: round(value, 2) for way, value in seconds.items()},
        "seconds_ratio": round(seconds["ours"] / bare, 3) if bare and exporter else None,
        "exporter_seconds": round(exporter, 2) if exporter else None,
        "exporter_ratio": round(exporter / bare, 3) if bare and exporter else None,
        "peak_over_weights": {way: round(value / weights, 3) for way, value in peak.items()},
    }


def export_ours(arch: str, checkpoint: Path) -> dict[str, float]:
    """From the checkpoint file to a bundle with an ONNX artefact, unverified."""
    import onnx
    import onnxscript
    import torch

    import vit_deploy.deploy.export as deploy
    import vit_deploy.exporters.onnx
    from vit_deploy.weights import load_model

    _keep(onnx, onnxscript, torch.onnx, vit_deploy.exporters.onnx)
    with tempfile.TemporaryDirectory(dir=checkpoint.parent) as folder, _measured() as figures:
        model = load_model(arch, weights=checkpoint)
        outcomes = deploy.export_model(model, Path(folder) / "bundle", ["onnx"], verify=False)
        if outcomes[0].error:
            raise outcomes[0].error
    return {**figures, "exporter_seconds": outcomes[0].export_s}


def export_bare(arch: str, checkpoint: Path) -> dict[str, float]:
    """``torch.onnx.export`` of the eager module to a file, as its documentation has it."""
    import onnx
    import onnxscript
    import torch
    from safetensors.torch import load_file

    from vit_deploy.model.architectures import named_config
    from vit_deploy.model.layout import RESHAPE
    from vit_deploy.model.vit import ViT

    _keep(onnx, onnxscript)
    config = named_config(arch)
    with tempfile.TemporaryDirectory(dir=checkpoint.parent) as folder, _measured(memory_only=True) as figures:
        model = ViT(config, layout=RESHAPE).eval()
        model.load_state_dict(load_file(checkpoint))
        pixels = torch.randn(2, config.in_channels, *config.image_size)
        with _measured() as timed, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (pixels,),
                str(Path(folder) / "model.onnx"),
                dynamo=True,
                opset_version=23,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
    return {**figures, **timed, "peak_bytes": figures["peak_bytes"]}


class _measured:  # noqa: N801 - reads as a statement: `with _measured() as figures`
    """Seconds, and peak resident bytes above those at the start."""

    def __init__(self, *, memory_only: bool = False) -> None:
        self.memory_only = memory_only
        self.figures: dict[str, float] = {}

    def __enter__(self) -> dict[str, float]:
        import psutil

        self.base = psutil.Process().memory_info().rss
        self.started = time.perf_counter()
        return self.figures

    def __exit__(self, *_: object) -> None:
        if not self.memory_only:
            self.figures["seconds"] = time.perf_counter() - self.started
        self.figures["peak_bytes"] = peak_resident_bytes() - self.base


def peak_resident_bytes() -> int:
    """``VmHWM`` of this process; ``ru_maxrss`` would start at the peak of the parent."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell a process's peak memory")


def _keep(*_: object) -> None:
    """The arguments are imported for their own sake."""


if __name__ == "__main__":
    main()
