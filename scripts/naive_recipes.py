"""Lower precision as it is done where nobody looks: everything in fp16, and int8 from min to max per tensor.

    python scripts/naive_recipes.py vit_deploy/assets/digits vit_deploy/assets/outliers

prints the table of docs/precision/outliers.md. The recipes: ``.half()`` on the PyTorch model, ``.bfloat16()``,
and ONNX Runtime's ``quantize_static`` with its defaults (QDQ, min-max, one scale per tensor), calibrated on
training digits: on every operator that it can quantise, on the matrix products alone, and with a scale for
each row of the weights.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from digits_data import draw_picture, load_digits, preprocess
from torch import Tensor

from vit_deploy.weights import load_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vit_deploy.weights.imported import Model

CALIBRATION = 128
MATRIX_PRODUCTS = ["MatMul", "Gemm", "Conv"]
INT8: dict[str, dict[str, Any]] = {
    "int8, min-max, per tensor, every operator": {},
    "int8, min-max, per tensor, matrix products": {"op_types_to_quantize": MATRIX_PRODUCTS},
    "int8, min-max, weights per channel, matrix products": {
        "op_types_to_quantize": MATRIX_PRODUCTS,
        "per_channel": True,
    },
}
"""What is said to ``quantize_static`` beyond the model and its calibration."""


def split(model: Model) -> tuple[Tensor, Tensor, Tensor]:
    """The calibration digits ``(128, 3, 32, 32)``, the held-out ones, and what these are."""
    digits = load_digits()
    step = len(digits.training) // CALIBRATION
    chosen = (digits.training[::step][:CALIBRATION], digits.held_out)
    seen, held_out = (
        preprocess([draw_picture(digits.images[index]) for index in part], model.known_preprocessing)
        for part in chosen
    )
    return seen, held_out, torch.from_numpy(digits.labels[digits.held_out])


def in_pytorch(model: Model, pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """The logits where all parameters and activations are of ``dtype``, on the CPU."""
    with torch.inference_mode():
        logits: Tensor = model.eager(dtype=dtype)(pixels.to(dtype))
    return logits.float()


def export(model: Model, file: Path) -> None:
    """The model as plain ONNX, as PyTorch's exporter makes it."""
    network = model.eager()
    example = torch.zeros(2, *model.config.io_spec().inputs[0].shape[1:])
    program = torch.onnx.export(
        network,
        (example,),
        input_names=["pixel_values"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        opset_version=18,
        verbose=False,
    )
    program.save(str(file))


def quantise(source: Path, target: Path, seen: Tensor, told: dict[str, Any]) -> None:
    """Make ``target`` of ``source`` with ``quantize_static`` and what one entry of ``INT8`` says."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, Any]] = (
                {"pixel_values": batch.numpy()} for batch in seen.split(16)
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    prepared = target.with_name("prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        calibrate_method=CalibrationMethod.MinMax,
        **told,
    )


def in_onnxruntime(file: Path, pixels: Tensor) -> Tensor:
    """The logits that ONNX Runtime gives, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given = [session.run(None, {"pixel_values": batch.numpy()})[0] for batch in pixels.split(60)]
    return torch.from_numpy(np.concatenate(given))


def right(logits: Tensor, labels: Tensor) -> int:
    """How many are predicted right; one with NaN or Inf among its logits is not."""
    finite = logits.isfinite().all(dim=1)
    return int((finite & (logits.argmax(dim=1) == labels)).sum())


def evaluate(directory: Path, folder: Path) -> dict[str, tuple[int, int, int]]:
    """By recipe: held-out digits predicted right, those with NaN or Inf, and how many there are.

    Args:
        directory: of the model.
        folder: for the files that are made.
    """
    model = load_model(str(directory))
    seen, held_out, labels = split(model)
    logits = {
        name: in_pytorch(model, held_out, dtype)
        for name, dtype in (
            ("fp32", torch.float32),
            ("fp16, all of it", torch.float16),
            ("bf16, all of it", torch.bfloat16),
        )
    }
    plain = folder / "plain.onnx"
    export(model, plain)
    for place, (name, told) in enumerate(INT8.items()):
        made = folder / f"int8-{place}.onnx"
        quantise(plain, made, seen, told)
        logits[name] = in_onnxruntime(made, held_out)
    return {
        name: (right(given, labels), int((~given.isfinite()).any(dim=1).sum()), len(labels))
        for name, given in logits.items()
    }


def main() -> None:
    """The command line: a row of a Markdown table for each recipe, a column for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="directories of models")
    directories: list[Path] = parser.parse_args().models
    with tempfile.TemporaryDirectory() as folder:
        found = [evaluate(directory, Path(folder)) for directory in directories]
    print("| recipe | " + " | ".join(directory.name for directory in directories) + " |")
    print("| --- |" + " --- |" * len(directories))
    for name in found[0]:
        print(f"| {name} | " + " | ".join(_cell(*column[name]) for column in found) + " |")


def _cell(right_ones: int, broken: int, count: int) -> str:
    told = f"{100 * right_ones / count:.2f} % ({right_ones} of {count})"
    return f"{told}; {broken} with NaN or Inf" if broken else told


if __name__ == "__main__":
    main()
