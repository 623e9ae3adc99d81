"""The whole road on a CUDA machine: export, verify and bench of a ViT-B/16, its figures in one file per GPU.

It calls the command line as a user would, so what it records is what a user gets.

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


def run_road(bundle: Path, arch: str, batch_sizes: str) -> dict[str, Any]:
    """Export, verify and bench; stops at the first command that fails."""
    largest = max(map(int, batch_sizes.split(",")))
    side = re.search(r"_(\d+)$", arch)
    shape = f"{largest}x3x{side[1]}x{side[1]}" if side else ""
    shapes = ["--maxShapes", shape, "--optShapes", shape] if shape else []
    where = str(bundle)
    return {
        "arch": arch,
        "doctor": call("doctor"),
        "export": call("export", "-m", arch, "--format", FORMATS, "-o", where, *shapes),
        "verify": call("verify", where),
        "bench": call("bench", where, "--backend", BACKENDS, "--device", "cuda", "--batch-size", batch_sizes),
    }


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
