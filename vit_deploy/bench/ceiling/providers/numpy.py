"""numpy's matrix products, which are those of the BLAS that it was built with (OpenBLAS in its wheels)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.bench.ceiling.operands import Noise, activation, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bench.ceiling.operands import Wanted
    from vit_deploy.protocols import Step
    from vit_deploy.spec import Precision

NAME = "numpy"
COMPUTES: dict[str, frozenset[Precision]] = {"cpu": frozenset({"fp32"})}
"""What BLAS has; the rest is computed element by element."""


class Products:
    """``left @ right`` into ``result``, one after the other."""

    def __init__(self, runs: Sequence[tuple[Any, Any, Any]]) -> None:
        import numpy as np

        self.multiply = np.matmul
        self.runs = runs

    def __call__(self) -> None:
        """Compute every product once."""
        for left, right, result in self.runs:
            self.multiply(left, right, out=result)

    def synchronize(self) -> None:
        """Nothing to wait for on the CPU."""


def open_products(wanted: Wanted) -> tuple[Step, str]:
    """See :mod:`vit_deploy.bench.ceiling.providers`; threads are those of the process's environment."""
    import numpy as np

    dtype = numpy_dtype(wanted.precision)
    noise = Noise.for_gemms(wanted.gemms, dtype)
    runs: list[tuple[Any, Any, Any]] = []
    place = 0
    for gemm in wanted.gemms:
        batch = () if gemm.weights else (gemm.batch,)
        left = activation((*batch, gemm.m, gemm.k), dtype)
        result = np.empty((*batch, gemm.m, gemm.n), dtype)
        if gemm.weights:
            rights = [noise.weight(place + index, gemm).copy() for index in range(gemm.times)]
            place += gemm.times
        else:
            rights = [activation((*batch, gemm.k, gemm.n), dtype)] * gemm.times
        runs += [(left, right, result) for right in rights]
    return Products(runs), np.__version__
