"""ONNX Runtime's own static quantiser on timm's ONNX export, by the recipe of our int8 artefacts.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html. Signed 8-bit activations for a
whole tensor and weights for each channel, all symmetric; biases in fp32; products with a weight alone, the
patch embedding and the head left as they are; the same pictures, ranges by min-max. What is left of the
difference is the graph. The same file runs in ONNX Runtime and in OpenVINO.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from benchmarks.peers.recipe import PRECISION, Job, Opened, Peer, PreparationFailed, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from benchmarks.peers.recipe import Pixels

ORT, WIDE, OPENVINO = "ort-quantizer", "ort-quantizer-wide", "ort-quantizer-openvino"
FOLDERS = {ORT: "export", WIDE: "wide", OPENVINO: "export"}
PEER = Peer(
    title="ONNX Runtime quantiser",
    command="onnx_export.py …; quant_pre_process(…); quantize_static(…, QDQ, QInt8, QInt8, per_channel, …)",
    shows=("onnxruntime", "timm", "torch", "openvino"),
    variants=(
        Variant(ORT, "timm ONNX, ONNX Runtime's quantiser, ONNX Runtime", "int8", PRECISION),
        Variant(
            WIDE, "timm ONNX, ONNX Runtime's quantiser, products not rounded, ONNX Runtime", "int8", PRECISION
        ),
        Variant(OPENVINO, "timm ONNX, ONNX Runtime's quantiser, OpenVINO as it comes", "int8", PRECISION),
    ),
)
SETTINGS: dict[str, Any] = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
}
_BATCH = 1


class Pictures:
    """The calibration pictures one by one, as ``CalibrationDataReader`` gives them."""

    def __init__(self, pictures: Pixels, name: str) -> None:
        self._left: Iterator[dict[str, Any]] = (
            {name: pictures[at : at + _BATCH]} for at in range(0, len(pictures), _BATCH)
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next input, or ``None``."""
        return next(self._left, None)


def prepare(job: Job) -> None:
    """Export, pre-process, quantise twice, count what came out; what is in fp32 is not kept.

    The quantiser also rounds what a product gives, as it is; the other file is without that, as ours are.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from benchmarks.peers.timm_model import timm_onnx_export

    exported = timm_onnx_export(job, job.fresh("plain"))
    plain = exported.with_name("preprocessed.onnx")
    quant_pre_process(str(exported), str(plain))
    _quantise(job, plain, "export", {})
    _quantise(job, plain, "wide", {"OpTypesToExcludeOutputQuantization": ["MatMul"]})
    shutil.rmtree(plain.parent)


def _quantise(job: Job, plain: Any, folder: str, more: dict[str, Any]) -> None:
    import numpy as np
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    path = job.fresh(folder) / "model.onnx"
    graph = onnx.load(plain, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    # Its switch for that, MatMulConstBOnly, does nothing in the QDQ form.
    attention = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] not in weights]
    quantize_static(
        str(plain),
        str(path),
        Pictures(np.load(job.calibration), graph.input[0].name),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=attention,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={**SETTINGS, **more},
    )
    counted: dict[str, int] = {}
    for node in onnx.load(path, load_external_data=False).graph.node:
        counted[node.op_type] = counted.get(node.op_type, 0) + 1
    if not counted.get("DequantizeLinear"):
        raise PreparationFailed("the quantiser has quantised nothing")
    (path.parent / "operators.json").write_text(json.dumps(counted) + "\n", encoding="utf-8")


def open_model(job: Job, variant: str, pixels: Pixels, threads: int) -> Opened:
    """Open a quantised file."""
    from benchmarks.peers.ort import open_onnx
    from benchmarks.peers.ov import INT8, open_openvino

    folder = job.folder / FOLDERS[variant]
    if variant == OPENVINO:
        return open_openvino(folder / "model.onnx", pixels, threads, INT8)
    opened = open_onnx(folder / "model.onnx", pixels, threads)
    opened.arithmetic = "int8"
    operators = json.loads((folder / "operators.json").read_text(encoding="utf-8"))
    opened.details = {**opened.details, "operators": operators}
    return opened
