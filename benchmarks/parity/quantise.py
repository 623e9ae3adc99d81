"""An honest int8 artefact: ONNX Runtime's static quantisation of the digits model, in Q/DQ form."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.parity.case import Case
from benchmarks.parity.digits import training_pictures
from vit_deploy.spec import artefact_name

if TYPE_CHECKING:
    from benchmarks.parity.workbench import Workbench

_CALIBRATION = 64


class _Reader:
    """Hands the calibration pictures out, one by one; what onnxruntime calls a data reader."""

    def __init__(self, feeds: list[dict[str, Any]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def int8_digits(bench: Workbench) -> Case:
    """The digits model in int8, calibrated on pictures that it was trained on."""
    import logging

    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    from vit_deploy.model.images import load_image

    case = bench.honest("digits", opset=18)
    recipe = case.subject.model.known_preprocessing
    folder = bench.folder()
    pictures = training_pictures(folder / "calibration", _CALIBRATION)
    feeds = [{"pixel_values": recipe(load_image(path, channels=3))[None]} for path in pictures]
    path = folder / "model.onnx"
    logging.disable(logging.WARNING)  # it advises its own preprocessing of graphs, which ours do not need
    quantize_static(
        case.artefact.path,
        path,
        _Reader(feeds),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Conv", "Gemm"],
        extra_options={"QuantizeBias": False},
    )
    logging.disable(logging.NOTSET)
    artefact = replace(case.artefact, name=artefact_name("onnx", "int8"), precision="int8", path=path)
    return replace(case, artefact=artefact)
