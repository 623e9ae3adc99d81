"""What ``vit-deploy verify`` costs: its time beside that of the forwards it cannot do without, and its memory.

Each round holds three runs in random order, each a process of its own, so that a busy machine is unfair to all
alike:

* ``cold``: the command, with no reference kept;
* ``cached``: the command, with the references kept that a cold run left;
* ``forwards``: every sample once through eager in float64, once through eager in fp32 and once through the
  artefact at its largest batch, in one process, with nothing but these forwards timed.

``cold_ratio`` is cold over all three forwards, ``cached_ratio`` cached over eager fp32 and the artefact: the
medians over the rounds, each ratio within its round. The time of the command is that of all it does (hashes,
pictures, building the models, starting the worker, judging, printing) but for its own imports: a verification
of a tiny model goes before it in the same process.

Memory is the peak of the resident size of the whole process tree, sampled, above what its processes held after
that tiny verification: imports, in the worker as well.

    python benchmarks/verify.py --arch vit_base_patch16_224 --images 32 --rounds 5
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RUNS = ("cold", "cached", "forwards")
SAMPLE_S = 0.01
"""Between two looks at the memory of the process tree."""


def main() -> None:
    """Run the rounds, print the figures, and record them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vit_base_patch16_224")
    parser.add_argument("--images", type=int, default=32, help="photographs, beside the generated pictures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--run", choices=("verify", "forwards"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        {"verify": run_verify, "forwards": run_forwards}[arguments.run](arguments.folder)
        return
    result = compare(arguments.arch, arguments.images, arguments.rounds, arguments.seed)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n", encoding="utf-8")


def compare(arch: str, images: int, rounds: int, seed: int) -> dict[str, object]:
    """All rounds, and their figures."""
    from vit_deploy.environment import environment

    order = random.Random(seed)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = _prepare(folder, arch, images)
        _in_process(folder, "cold")  # the files are in the page cache, and references are kept, from here on
        for _ in range(rounds):
            for kind in order.sample(RUNS, len(RUNS)):
                runs[kind].append(_in_process(folder, kind))
    return {
        "schema": "vit-deploy/benchmark-verify/1",
        "environment": environment(),
        "arch": arch,
        "images": images,
        "rounds": rounds,
        **_figures(runs, weights),
        "runs": runs,
    }


def _figures(runs: dict[str, list[dict[str, Any]]], weights: int) -> dict[str, object]:
    def ratio(kind: str, forwards: tuple[str, ...]) -> float:
        pairs = zip(runs[kind], runs["forwards"], strict=True)
        return statistics.median(run["seconds"] / sum(best[name] for name in forwards) for run, best in pairs)

    peaks = {kind: max(run["peak_bytes"] for run in runs[kind]) for kind in ("cold", "cached")}
    parts = ("float64", "eager", "artefact")
    medians = {part: statistics.median(run[part] for run in runs["forwards"]) for part in parts}
    return {
        "weights_bytes": weights,
        "samples": runs["forwards"][0]["samples"],
        "seconds": {
            **{kind: round(statistics.median(run["seconds"] for run in runs[kind]), 2) for kind in peaks},
            **{f"{part}_forwards": round(value, 2) for part, value in medians.items()},
        },
        "cold_ratio": round(ratio("cold", parts), 3),
        "cached_ratio": round(ratio("cached", parts[1:]), 3),
        "peak_over_weights": {kind: round(peak / weights, 3) for kind, peak in peaks.items()},
    }


def _prepare(folder: Path, arch: str, images: int) -> int:
    """The bundles and the pictures; the bytes of the weights."""
    import vit_deploy.assets
    from vit_deploy.deploy.export import export_model
    from vit_deploy.weights import load_model

    (digits,) = vit_deploy.assets.__path__
    models = {"bundle": load_model(arch), "tiny": load_model(str(Path(digits) / "digits"))}
    for name, model in models.items():
        (outcome,) = export_model(model, folder / name, ["onnx"], verify=False)
        if outcome.error:
            raise outcome.error
    write_pictures(folder / "pictures", images)
    return models["bundle"].weights.nbytes


def write_pictures(folder: Path, count: int) -> None:
    """Crops of the photographs that scikit-image brings, or pink noise where it is not installed."""
    import numpy as np
    from PIL import Image

    from vit_deploy.parity.inputs import pink_noise

    folder.mkdir()
    generator = np.random.default_rng(0)
    try:
        from skimage import data

        photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    except ImportError:
        noise = (pink_noise(generator, 480, 640, 3) for _ in range(4))
        photographs = [np.clip(127.5 + 50 * picture, 0, 255).astype(np.uint8) for picture in noise]
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        height, width = photograph.shape[:2]
        side = int(generator.integers(200, min(height, width)))
        top, left = (int(generator.integers(0, room - side + 1)) for room in (height, width))
        Image.fromarray(photograph[top : top + side, left : left + side]).save(folder / f"{number:03}.png")


def _in_process(folder: Path, kind: str) -> dict[str, Any]:
    """One run in a process of its own, its tree's memory sampled from when it is ready."""
    cache = folder / "cache"
    if kind == "cold":
        shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, __file__, "--run", "forwards" if kind == "forwards" else "verify"]
    process = subprocess.Popen(
        [*command, "--folder", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "VIT_DEPLOY_CACHE": str(cache)},
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no pipes")
    with process, _sampled(process.pid) as sizes:
        process.stdout.readline()  # imported, and the tiny model verified
        before = list(sizes)
        sizes.clear()
        process.stdin.write("go\n")
        process.stdin.close()
        result: dict[str, Any] = json.loads(process.stdout.readline())
        during = list(sizes)
        process.stdout.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    # The process itself as it is when ready, and the most that its workers held for the tiny model.
    base = before[-1][0] if before else 0
    workers_base = max((others for _, others in before), default=0)
    peak = max(own - base + (max(0, others - workers_base) if others else 0) for own, others in during)
    return {**result, "peak_bytes": peak, "import_bytes": [base, workers_base]}


@contextlib.contextmanager
def _sampled(pid: int) -> Iterator[list[tuple[int, int]]]:
    """The resident bytes of a process, and of all that it started, again and again while the context lasts."""
    import psutil

    sizes: list[tuple[int, int]] = []
    process, over = psutil.Process(pid), threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_S):
            with contextlib.suppress(psutil.Error):
                own, command, others = process.memory_info().rss, process.cmdline(), 0
                for child in process.children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        # Between fork and exec, its memory is its parent's.
                        others += child.memory_info().rss if child.cmdline() != command else 0
                sizes.append((own, others))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()


def _ready() -> None:
    """Say that all is imported, and wait to be told to begin."""
    time.sleep(10 * SAMPLE_S)  # so that the last look before is at a process at rest
    print("ready", flush=True)
    sys.stdin.readline()


def run_verify(folder: Path) -> None:
    """The command on the tiny bundle, and then, timed, on the bundle."""
    verify(folder / "tiny", "--no-cache")
    _ready()
    seconds = _timed(lambda: verify(folder / "bundle", "--images", str(folder / "pictures")))
    print(json.dumps({"seconds": seconds}), flush=True)


def verify(bundle: Path, *arguments: str) -> None:
    """``vit-deploy verify`` in this process; what it prints is dropped."""
    from vit_deploy.cli import main as command_line

    command = ["verify", str(bundle), "--format", "onnx", "--max-images", "1000000", "--json", *arguments]
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(io.StringIO()) as said:
            command_line(command)
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"verify ended with {ended.code}: {said.getvalue()}") from ended


def run_forwards(folder: Path) -> None:
    """Every sample once through each of the three, their forwards alone timed."""
    import torch

    from vit_deploy import registry
    from vit_deploy.bundle import Bundle
    from vit_deploy.parity.images import find_pictures
    from vit_deploy.parity.inputs import make_samples, stacked
    from vit_deploy.parity.references import CHUNK
    from vit_deploy.protocols import SessionOptions

    bundle = Bundle.open(folder / "bundle")
    model, artefact = bundle.model(), bundle.artefact("onnx-fp32")
    samples = make_samples(model.preprocessing, model.config, images=find_pictures(folder / "pictures"))
    (pixels,) = stacked(samples)
    runtime = registry.runtime("onnxruntime")
    _ready()
    figures: dict[str, float] = {"samples": len(samples)}
    for name, dtype in (("float64", torch.float64), ("eager", torch.float32)):
        module = model.eager(dtype=dtype, outputs=artefact.spec.output_names)
        chunks = torch.split(torch.from_numpy(pixels).to(dtype), CHUNK)
        with torch.inference_mode():
            module(chunks[0])
            figures[name] = _timed(lambda: [module(chunk) for chunk in chunks])  # noqa: B023 - called at once
    with runtime.open(artefact, runtime.devices()[0], SessionOptions()) as session:
        (entry,) = artefact.spec.inputs
        size = artefact.spec.batch.maximum
        batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        session.run({entry.name: batches[0]})
        figures["artefact"] = _timed(lambda: [session.run({entry.name: batch}) for batch in batches])
    print(json.dumps(figures), flush=True)


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
