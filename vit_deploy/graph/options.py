"""What can be chosen about an ONNX graph: the exporter offers it, and the passes heed it."""

from __future__ import annotations

from dataclasses import dataclass

from vit_deploy.protocols import option

OPSETS = (17, 18, 19, 20, 21, 22, 23)
IO_DTYPES = ("float32", "float16")
RANGES = ("minmax", "percentile", "entropy", "mse")


@dataclass(frozen=True)
class OnnxOptions:
    """What can be chosen about an ONNX file."""

    opset: int = option(23, "ONNX operator set; 23 has Attention as one operator.", choices=OPSETS)
    external_data: bool = option(
        False, "Write the weights to a file beside the graph; past 2 GB that is always so."
    )
    io_dtype: str = option(
        "float32", "dtype of float inputs and outputs, whatever lies between.", choices=IO_DTYPES
    )
    keep_fp32: str = option(
        "", "Layers to keep in fp32, by comma, as `vit-deploy inspect` names them: blocks.3.mlp, head."
    )
    calibrate: str = option(
        "", "Folder of pictures that int8 and fp8 are calibrated on.  [default: synthetic ones]", recorded=False
    )
    calibration_images: int = option(128, "How many pictures to calibrate on, at most.")
    ranges: str = option("mse", "How the range of an activation is chosen.", choices=RANGES)
    max_drop: float = option(
        100.0,
        "Points of top-1 agreement with fp32 that int8 and fp8 may lose on the calibration pictures: the worst "
        "layers stay in fp32 until it holds. 100 keeps none.",
    )
    smooth_quant: float = option(
        0.5, "SmoothQuant's strength from 0 to 1: how much of the activations' outliers the weights take over."
    )
