"""PyTorch's dtype for each precision that eager PyTorch computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.errors import RunFailed
from vit_deploy.spec import EAGER_PRECISIONS

if TYPE_CHECKING:
    import torch

    from vit_deploy.spec import Precision


def eager_dtype(precision: Precision) -> torch.dtype:
    """The dtype of parameters and activations of eager PyTorch at a precision.

    Raises:
        RunFailed: for int8 and fp8, in which eager PyTorch computes nothing.
    """
    import torch

    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision not in dtypes:
        raise RunFailed(
            f"eager PyTorch has no {precision}", expected=f"a precision of {', '.join(EAGER_PRECISIONS)}"
        )
    return dtypes[precision]
