"""Optimum: ``optimum-cli export onnx`` with nothing but the task, on ONNX Runtime.

The task has to be said, since it cannot tell it from a folder. It starts from a transformers checkpoint, so the
same weights are given transformers' names first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.peers.recipe import Job, Opened, Peer, Variant

if TYPE_CHECKING:
    from benchmarks.peers.recipe import Pixels

PEER = Peer(
    title="optimum-onnx",
    command="optimum-cli export onnx --model FOLDER --task TASK OUT",
    shows=("optimum-onnx", "optimum", "transformers", "torch", "onnxruntime"),
    variants=(Variant("optimum-onnx", "optimum-onnx, ONNX Runtime"),),
)
OUTPUTS: dict[str, tuple[str, str, int | None]] = {
    "vit": ("image-classification", "logits", None),
    "dinov2": ("feature-extraction", "last_hidden_state", 0),
    "clip_vision_model": ("feature-extraction", "pooler_output", None),
}
"""By model type: the task, the output that is compared with eager's, and which token of it."""


def prepare(job: Job) -> None:
    """Write the weights as a transformers checkpoint, export that; the checkpoint is not kept."""
    from benchmarks.peers.tools.optimum_onnx.translate import write_transformers

    folder = job.fresh("transformers")
    write_transformers(job, folder)
    tool = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "onnx"]
    task = OUTPUTS[job.model.transformers][0]
    command = [*tool, "--model", str(folder), "--task", task, str(job.fresh("export"))]
    subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    shutil.rmtree(folder)


def open_model(job: Job, variant: str, pixels: Pixels, threads: int) -> Opened:  # noqa: ARG001 - it has one
    """Open the export."""
    from benchmarks.peers.ort import open_onnx

    _, output, token = OUTPUTS[job.model.transformers]
    return open_onnx(job.folder / "export" / "model.onnx", pixels, threads, output, token)
