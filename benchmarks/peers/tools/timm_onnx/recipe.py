"""timm's ONNX export, as its ``onnx_export.py`` does it by default, on ONNX Runtime.

The script (https://github.com/huggingface/pytorch-image-models/blob/main/onnx_export.py) makes the model with
``exportable=True``, which spells attention out, and calls ``timm.utils.onnx.onnx_export`` at batch 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.recipe import FORMATS, PRECISION, Job, Opened, Peer, Variant

if TYPE_CHECKING:
    from benchmarks.peers.recipe import Pixels

PEER = Peer(
    title="timm ONNX export",
    command="onnx_export.py model.onnx --model NAME",
    shows=("timm", "torch", "onnxruntime"),
    variants=(Variant("timm-onnx", "timm ONNX export, ONNX Runtime", comparisons=FORMATS + PRECISION),),
)


def prepare(job: Job) -> None:
    """Export the model."""
    from benchmarks.peers.timm_model import timm_onnx_export

    timm_onnx_export(job, job.fresh("export"))


def open_model(job: Job, variant: str, pixels: Pixels, threads: int) -> Opened:  # noqa: ARG001 - it has one
    """Open the export."""
    from benchmarks.peers.ort import open_onnx

    return open_onnx(job.folder / "export" / "model.onnx", pixels, threads)
