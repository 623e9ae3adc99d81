"""A file in OpenVINO's defaults, but for the threads: what several peers run on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from benchmarks.peers.recipe import Opened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.peers.recipe import Pixels

PLAIN = {"f32": "fp32", "bf16": "bf16"}
"""What it computes in, by its precision hint."""
INT8 = {"f32": "int8", "bf16": "int8 with bf16"}
"""The same of a graph whose products are quantised; the hint is for all else."""
_PRODUCTS = ("FullyConnected", "Convolution", "MatMul")


class Request:
    """One inference; its outputs stay where they are."""

    def __init__(self, request: Any) -> None:
        self.request = request

    def __call__(self) -> None:
        """Make one inference."""
        self.request.infer(share_outputs=True)

    def synchronize(self) -> None:
        """An inference is done when its call returns."""


def let_openvino_import() -> None:
    """Leave its telemetry out: it would send word to its makers; that it is missing is foreseen there."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def open_openvino(
    path: Path, pixels: Pixels, threads: int, arithmetic: Mapping[str, str] = PLAIN, hint: str = ""
) -> Opened:
    """Compile a model; only the threads are said, and the precision where there is a hint.

    Args:
        path: an IR or an ONNX file.
        pixels: float32 of shape ``(b, c, h, w)``.
        threads: of the inference.
        arithmetic: what it computes in, by the precision hint that is read back.
        hint: the precision of what is not quantised; OpenVINO's own choice when empty.
    """
    let_openvino_import()
    import openvino

    core = openvino.Core()
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
    if hint:
        settings["INFERENCE_PRECISION_HINT"] = hint
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(pixels, shared_memory=True))

    def result() -> Pixels:
        request.infer()
        array: Pixels = request.get_output_tensor(0).data.copy()
        return array

    told = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    products = _products(compiled.get_runtime_model())
    small = products.get("i8", 0) + products.get("u8", 0)
    if arithmetic is INT8 and small * 2 < sum(products.values()):
        arithmetic = PLAIN  # what was to be computed in 8 bits is not
    return Opened(
        step=Request(request),
        output=result,
        version=str(openvino.__version__),
        threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
        arithmetic=arithmetic[told],
        details={
            "precision_hint": told,
            "products": products,
            "streams": int(compiled.get_property("NUM_STREAMS")),
            "cpu_pinning": bool(compiled.get_property("ENABLE_CPU_PINNING")),
        },
    )


def _products(runtime_model: Any) -> dict[str, int]:
    """How many products of the compiled model compute in what; attention has no layer of that name."""
    counted: dict[str, int] = {}
    for node in runtime_model.get_ordered_ops():
        told = node.get_rt_info()
        if str(told["layerType"].astype(str)) in _PRODUCTS:
            precision = str(told["runtimePrecision"].astype(str))
            counted[precision] = counted.get(precision, 0) + 1
    return dict(sorted(counted.items()))
