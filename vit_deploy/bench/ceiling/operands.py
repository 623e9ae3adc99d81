"""What the products of a ceiling multiply: noise, as many distinct weights as the model has.

A model's weights are many times as large as the caches, so that each inference reads them from memory;
a ceiling that multiplied by the same few again and again would be one of another machine. All are cut
from one block of noise, each from another place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from vit_deploy.facts import Device
    from vit_deploy.model.counts import Gemm
    from vit_deploy.spec import Precision

STRIDE_BYTES = 4096
"""Two weights begin so far apart in the block: a page, which files can be mapped at."""

SCALE = 0.02
"""The noise's standard deviation, which is that of a ViT's weights: sums stay within range of fp16."""


@dataclass(frozen=True)
class Wanted:
    """The products that a library is asked for.

    Attributes:
        gemms: each of them once.
        precision: of the operands.
        device: where.
        threads: on a CPU.
    """

    gemms: tuple[Gemm, ...]
    precision: Precision
    device: Device
    threads: int


def numpy_dtype(precision: Precision) -> np.dtype[Any]:
    """The dtype that operands of a precision are held in; ml_dtypes' for bf16."""
    import numpy as np

    if precision == "bf16":
        import ml_dtypes

        held: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return held
    return np.dtype({"fp32": "float32", "fp16": "float16", "int8": "int8"}[precision])


@dataclass(frozen=True)
class Noise:
    """One block of noise that operands are cut from.

    Attributes:
        block: 1-D, of the operands' dtype.
    """

    block: np.ndarray[Any, Any]

    @classmethod
    def for_gemms(cls, gemms: Sequence[Gemm], dtype: np.dtype[Any]) -> Noise:
        """Large enough for each weight of ``gemms`` to begin at a place of its own."""
        import numpy as np

        largest = max((gemm.k * gemm.n for gemm in gemms if gemm.weights), default=0)
        size = largest + count_weights(gemms) * STRIDE_BYTES // dtype.itemsize
        generator = np.random.default_rng(0)
        if dtype == np.int8:
            return cls(generator.integers(-127, 128, size=size, dtype=np.int8))
        return cls((generator.standard_normal(size, dtype=np.float32) * np.float32(SCALE)).astype(dtype))

    def weight(self, place: int, gemm: Gemm) -> np.ndarray[Any, Any]:
        """Weight number ``place`` of all, ``(k, n)``; a view into the block, to be copied."""
        begin = place * STRIDE_BYTES // self.block.dtype.itemsize
        return self.block[begin : begin + gemm.k * gemm.n].reshape(gemm.k, gemm.n)


def count_weights(gemms: Sequence[Gemm]) -> int:
    """How many weights the products of ``gemms`` have between them."""
    return sum(gemm.times for gemm in gemms if gemm.weights)


def activation(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Noise of ``shape``: an operand that is computed, and so likely to be in a cache."""
    import numpy as np

    generator = np.random.default_rng(1)
    if dtype == np.int8:
        return generator.integers(-127, 128, size=shape, dtype=np.int8)
    return generator.standard_normal(shape, dtype=np.float32).astype(dtype)
