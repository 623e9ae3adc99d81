"""OpenVINO: the bare ``torch.onnx.export`` through ``ovc`` with nothing said, which rounds weights to fp16.

OpenVINO computes in bf16 by default where the processor has it, whatever the file holds. So its default is
measured and labelled with the precision that it reports, and beside it the same file told to compute in f32.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.peers.recipe import Job, Opened, Peer, Variant

if TYPE_CHECKING:
    from benchmarks.peers.recipe import Pixels

DEFAULT, F32 = "openvino-ovc", "openvino-ovc-f32"
PEER = Peer(
    title="OpenVINO ovc",
    command="torch.onnx.export(…); ovc model.onnx",
    shows=("openvino", "torch", "timm"),
    variants=(
        Variant(DEFAULT, "OpenVINO `ovc`, as it comes", arithmetic=None),
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


class _Request:
    """One inference; its outputs stay where they are."""

    def __init__(self, request: Any) -> None:
        self.request = request

    def __call__(self) -> None:
        self.request.infer(share_outputs=True)

    def synchronize(self) -> None:
        """An inference is done when its call returns."""


def open_model(job: Job, variant: str, pixels: Pixels, threads: int) -> Opened:
    """Compile the converted model; only the threads are said, and for one variant the precision."""
    # Importing it would send word to its makers; a missing telemetry package is foreseen there.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    core = openvino.Core()
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
    if variant == F32:
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = core.compile_model(core.read_model(job.folder / "ir" / "model.xml"), "CPU", settings)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(pixels, shared_memory=True))

    def result() -> Pixels:
        request.infer()
        array: Pixels = request.get_output_tensor(0).data.copy()
        return array

    told = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return Opened(
        step=_Request(request),
        output=result,
        version=str(openvino.__version__),
        threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
        arithmetic=_ARITHMETIC[told],
        details={
            "precision_hint": told,
            "streams": int(compiled.get_property("NUM_STREAMS")),
            "cpu_pinning": bool(compiled.get_property("ENABLE_CPU_PINNING")),
        },
    )
