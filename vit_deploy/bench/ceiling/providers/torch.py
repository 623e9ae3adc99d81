"""PyTorch's matrix products: oneDNN or MKL on the CPU, cuBLAS on CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.bench.ceiling.operands import Noise, activation, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from vit_deploy.bench.ceiling.operands import Wanted
    from vit_deploy.facts import Device
    from vit_deploy.protocols import Step
    from vit_deploy.spec import Precision

NAME = "torch"
COMPUTES: dict[str, frozenset[Precision]] = {
    "cpu": frozenset({"fp32", "bf16", "fp16"}),
    "cuda": frozenset({"fp32", "bf16", "fp16"}),
}
"""``torch.matmul`` has no 8-bit types."""


class Products:
    """``left @ right`` into ``result``, one after the other."""

    def __init__(self, runs: Sequence[tuple[Any, Any, Any]], device: Device) -> None:
        self.runs = runs
        self.device = device

    def __call__(self) -> None:
        """Start every product once."""
        import torch

        with torch.inference_mode():
            for left, right, result in self.runs:
                torch.matmul(left, right, out=result)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.kind == "cuda":
            import torch

            torch.cuda.synchronize(self.device.index)


def open_products(wanted: Wanted) -> tuple[Step, str]:
    """See :mod:`vit_deploy.bench.ceiling.providers`; on CUDA, fp32 is not TF32."""
    import torch

    torch.set_float32_matmul_precision("highest")
    if wanted.device.kind == "cpu":
        torch.set_num_threads(wanted.threads)
    # numpy's bf16 is not torch's; both are fp32 first.
    host = numpy_dtype("fp32" if wanted.precision == "bf16" else wanted.precision)
    noise = Noise.for_gemms(wanted.gemms, host)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted.precision]

    def put(array: Any) -> torch.Tensor:
        return torch.tensor(array, dtype=dtype, device=str(wanted.device))

    runs: list[tuple[Any, Any, Any]] = []
    place = 0
    with torch.inference_mode():
        for gemm in wanted.gemms:
            batch = () if gemm.weights else (gemm.batch,)
            left = put(activation((*batch, gemm.m, gemm.k), host))
            result = left.new_empty((*batch, gemm.m, gemm.n))
            if gemm.weights:
                # As a linear layer holds it: (n, k), multiplied by its transpose.
                weights = [noise.weight(place + index, gemm) for index in range(gemm.times)]
                rights = [put(weight.reshape(gemm.n, gemm.k)).t() for weight in weights]
                place += gemm.times
            else:
                rights = [put(activation((*batch, gemm.k, gemm.n), host))] * gemm.times
            runs += [(left, right, result) for right in rights]
    return Products(runs, wanted.device), str(torch.__version__)
