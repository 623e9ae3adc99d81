"""torchvision beside a PyTorch that its compiled part was not built for.

timm, OpenCLIP and transformers' image processors import torchvision. Where its compiled operators do
not load (a CUDA build of torchvision beside a CPU build of PyTorch, most often), ``import torchvision``
fails because two of them are not declared. No Vision Transformer needs either, so they are declared
without a body: whatever called one would fail.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[Any] = []
"""The schemas live as long as the object that declared them."""


def let_torchvision_import() -> bool:
    """Declare what ``import torchvision`` stumbles over, if it does; whether that was needed.

    Any other fault of torchvision is left for its own import to tell.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            return False
    except Exception:
        # Whatever it is, the library that needs torchvision meets it again, and it is told there.
        return False
    else:
        return False
    _declare()
    return True


def _declare() -> None:
    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _kept.append(library)
