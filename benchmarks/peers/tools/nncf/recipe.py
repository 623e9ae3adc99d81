"""NNCF: post-training quantisation of timm's model with its defaults for transformers, on OpenVINO.

https://docs.openvino.ai, "Quantizing Models Post-training": ``nncf.quantize`` with the calibration set, and
``model_type=TRANSFORMER``, which is what it asks to be told of such a model. It adds SmoothQuant and asymmetric
activations by itself. OpenVINO computes what is not quantised in bf16 where the processor has it; told f32, as
our artefacts are, the same file is measured beside it.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from benchmarks.peers.recipe import PRECISION, Job, Opened, Peer, Variant

if TYPE_CHECKING:
    from benchmarks.peers.recipe import Pixels

DEFAULT, F32 = "nncf", "nncf-f32"
PEER = Peer(
    title="NNCF",
    command="nncf.quantize(model, nncf.Dataset(…), model_type=nncf.ModelType.TRANSFORMER)",
    shows=("nncf", "openvino", "torch", "timm"),
    variants=(
        Variant(DEFAULT, "NNCF, OpenVINO as it comes", "int8", PRECISION),
        Variant(F32, "NNCF, OpenVINO told f32", "int8", PRECISION),
    ),
)


def prepare(job: Job) -> None:
    """Export, quantise, write; the bare export is not kept."""
    from benchmarks.peers.ov import let_openvino_import
    from benchmarks.peers.timm_model import bare_onnx_export

    let_openvino_import()
    import nncf  # type: ignore[import-not-found]
    import numpy as np
    import openvino

    bare = bare_onnx_export(job, job.fresh("bare"))
    pictures = np.load(job.calibration)
    # As a loader of one picture at a time, which is what NNCF's own examples have.
    dataset = nncf.Dataset([pictures[index : index + 1] for index in range(len(pictures))])
    model = openvino.Core().read_model(bare)
    quantised = nncf.quantize(model, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(pictures))
    openvino.save_model(quantised, job.fresh("ir") / "model.xml")
    shutil.rmtree(bare.parent)


def open_model(job: Job, variant: str, pixels: Pixels, threads: int) -> Opened:
    """Compile the quantised model."""
    from benchmarks.peers.ov import INT8, open_openvino

    hint = "f32" if variant == F32 else ""
    return open_openvino(job.folder / "ir" / "model.xml", pixels, threads, INT8, hint)
