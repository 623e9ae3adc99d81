"""ONNX Runtime's transformers optimiser, on the bare ``torch.onnx.export``.

https://onnxruntime.ai/docs/performance/transformers-optimization.html: the command line with nothing said but
the model's type; heads and hidden size are found by the tool.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.peers.recipe import Job, Opened, Peer, Variant

if TYPE_CHECKING:
    from benchmarks.peers.recipe import Pixels

PEER = Peer(
    title="ONNX Runtime transformers optimiser",
    command="torch.onnx.export(…); python -m onnxruntime.transformers.optimizer --model_type vit",
    shows=("onnxruntime", "torch", "timm"),
    variants=(Variant("ort-optimizer", "ONNX Runtime transformers optimiser"),),
)


def prepare(job: Job) -> None:
    """Export, then optimise; the bare export is not kept, how many nodes of each kind came out is."""
    import onnx

    from benchmarks.peers.timm_model import bare_onnx_export

    bare = bare_onnx_export(job, job.fresh("bare"))
    path = job.fresh("export") / "model.onnx"
    tool = [sys.executable, "-m", "onnxruntime.transformers.optimizer"]
    subprocess.run([*tool, "--input", str(bare), "--output", str(path), "--model_type", "vit"], check=True)
    shutil.rmtree(bare.parent)
    counted: dict[str, int] = {}
    for node in onnx.load(path, load_external_data=False).graph.node:
        counted[node.op_type] = counted.get(node.op_type, 0) + 1
    (job.folder / "operators.json").write_text(json.dumps(counted) + "\n", encoding="utf-8")


def open_model(job: Job, variant: str, pixels: Pixels, threads: int) -> Opened:  # noqa: ARG001 - it has one
    """Open the optimised file."""
    from benchmarks.peers.ort import open_onnx

    opened = open_onnx(job.folder / "export" / "model.onnx", pixels, threads)
    operators = json.loads((job.folder / "operators.json").read_text(encoding="utf-8"))
    opened.details = {**opened.details, "operators": operators}
    return opened
