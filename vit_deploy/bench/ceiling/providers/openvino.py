"""OpenVINO's matrix products on the CPU (oneDNN)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.ceiling.providers._onnx import inputs_of, runs_of, write_graphs
from vit_deploy.errors import RunFailed
from vit_deploy.runtimes.openvino import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bench.ceiling.operands import Wanted
    from vit_deploy.protocols import Step
    from vit_deploy.spec import Precision

NAME = "openvino"
COMPUTES: dict[str, frozenset[Precision]] = {"cpu": frozenset({"fp32", "bf16", "fp16", "int8"})}
"""bf16 and fp16 where the processor has instructions for them, else it refuses."""

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""The precision that floating-point products are computed in; it would choose bf16 for fp32 by itself."""


class Requests:
    """Requests with their inputs in place, each run as often as an inference has it."""

    def __init__(self, runs: Sequence[tuple[Any, int]], kept: Sequence[Any]) -> None:
        self.runs = runs
        self.kept = kept  # a request has no memory of its own for its inputs

    def __call__(self) -> None:
        """Compute every product once."""
        for request, times in self.runs:
            for _ in range(times):
                request.infer(share_outputs=True)

    def synchronize(self) -> None:
        """Nothing to wait for: an inference is done when its call returns."""


def open_products(wanted: Wanted) -> tuple[Step, str]:
    """See :mod:`vit_deploy.bench.ceiling.providers`.

    Raises:
        RunFailed: when it would compute in another precision.
    """
    openvino = load()
    core = openvino.Core()
    hint = _HINTS[wanted.precision]
    settings = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": wanted.threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": "LATENCY",
    }
    runs: list[tuple[Any, int]] = []
    kept: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        for gemm, path in write_graphs(wanted.gemms, wanted.precision, Path(folder)):
            compiled = core.compile_model(core.read_model(path), "CPU", settings)
            told = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
            if told != hint:
                raise RunFailed(f"OpenVINO was told to compute in {hint} and says that it does in {told}")
            request = compiled.create_infer_request()
            for name, array in inputs_of(gemm, wanted.precision).items():
                tensor = _tensor(openvino, array)
                request.set_tensor(name, tensor)
                kept += [array, tensor]
            runs.append((request, runs_of(gemm)))
            request.infer()  # it packs weights when they are first used, from the file that is about to go
    return Requests(runs, kept), str(openvino.__version__)


def _tensor(openvino: Any, array: Any) -> Any:
    if array.dtype.name == "bfloat16":
        # numpy has no such type: the same bits are taken as the type that they are.
        tensor = openvino.Tensor(openvino.Type.bf16, openvino.Shape(list(array.shape)))
        tensor.data.view("uint16")[:] = array.view("uint16")
        return tensor
    return openvino.Tensor(array, shared_memory=True)
