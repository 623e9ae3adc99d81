"""ONNX Runtime's matrix products on the CPU (MLAS)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.ceiling.providers._onnx import KEPT, inputs_of, runs_of, write_graphs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bench.ceiling.operands import Wanted
    from vit_deploy.protocols import Step
    from vit_deploy.spec import Precision

NAME = "onnxruntime"
COMPUTES: dict[str, frozenset[Precision]] = {"cpu": frozenset({"fp32", "fp16", "int8"})}
"""It has no kernels for bf16 there, and computes fp16 as fp32."""

_QUIET = 3


class BoundRuns:
    """Runs with their inputs and outputs bound, each as often as an inference has it."""

    def __init__(self, runs: Sequence[tuple[Any, Any, int]]) -> None:
        self.runs = runs

    def __call__(self) -> None:
        """Compute every product once."""
        for session, binding, times in self.runs:
            for _ in range(times):
                session.run_with_iobinding(binding)

    def synchronize(self) -> None:
        """Nothing to wait for on the CPU."""


def open_products(wanted: Wanted) -> tuple[Step, str]:
    """See :mod:`vit_deploy.bench.ceiling.providers`."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = wanted.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for gemm, path in write_graphs(wanted.gemms, wanted.precision, Path(folder)):
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            binding = session.io_binding()
            for name, array in inputs_of(gemm, wanted.precision).items():
                binding.bind_ortvalue_input(name, _value(array))
            binding.bind_output(KEPT)
            runs.append((session, binding, runs_of(gemm)))
    return BoundRuns(runs), str(ort.__version__)


def _value(array: Any) -> Any:
    import onnxruntime as ort

    return ort.OrtValue.ortvalue_from_numpy(array)
