"""OpenVINO: the bare ``torch.onnx.export`` through ``ovc`` with nothing said, which rounds weights to fp16.

OpenVINO computes in bf16 by default where the processor has it, whatever the file holds. So its default is
measured and labelled with the precision that it reports, and beside it the same file told to compute in f32.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.peers.recipe import FORMATS, PRECISION, Job, Opened, Peer, Variant

if TYPE_CHECKING:
    from benchmarks.peers.recipe import Pixels

DEFAULT, F32 = "openvino-ovc", "openvino-ovc-f32"
PEER = Peer(
    title="OpenVINO ovc",
    command="torch.onnx.export(…); ovc model.onnx",
    shows=("openvino", "torch", "timm"),
    variants=(
        Variant(DEFAULT, "OpenVINO `ovc`, as it comes", None, FORMATS + PRECISION),
        Variant(F32, "OpenVINO `ovc`, told f32", arithmetic="fp32 on fp16 weights"),
    ),
)
_ARITHMETIC = {"f32": "fp32 on fp16 weights", "bf16": "bf16"}


def prepare(job: Job) -> None:
    """Export, then convert; the bare export is not kept."""
    from benchmarks.peers.timm_model import bare_onnx_export

    bare = bare_onnx_export(job, job.fresh("bare"))
    path = job.fresh("ir") / "model.xml"
    tool = [sys.executable, "-m", "openvino.tools.ovc"]
    command = [*tool, str(bare), "--output_model", str(path)]
    subprocess.run(command, check=True, env={**os.environ, "OPENVINO_TELEMETRY_OPT_OUT": "1"})
    shutil.rmtree(bare.parent)


def open_model(job: Job, variant: str, pixels: Pixels, threads: int) -> Opened:
    """Compile the converted model; only the threads are said, and for one variant the precision."""
    from benchmarks.peers.ov import open_openvino

    hint = "f32" if variant == F32 else ""
    return open_openvino(job.folder / "ir" / "model.xml", pixels, threads, _ARITHMETIC, hint)
