"""timm's model of one of Google's ``.npz`` files, read by timm's own loader of them.

``VisionTransformer.load_pretrained`` (``_load_weights`` in timm/models/vision_transformer.py) fills a
model of the architecture that was named, made with the sizes that the arrays show.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.proof.references import Reference, require_library
from vit_deploy.proof.references.timm import reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.weights.imported import Model
    from vit_deploy.weights.request import Request

INSTALL = "pip install 'vit-deploy[timm]'"


def build(request: Request, model: Model) -> Reference:
    """timm's model of the checkpoint.

    Raises:
        BackendMissing: when timm is not installed.
    """
    version = require_library("timm", "JAX", INSTALL)
    import numpy as np
    import timm

    path = Path(request.weights or request.reference)
    with np.load(path, allow_pickle=False) as arrays:
        sizes = _sizes(arrays)
    arch = (request.arch or request.reference).partition(".")[0]
    module: Any = timm.create_model(arch, **sizes)
    module.load_pretrained(str(path))
    return reference(module, model.vit_config, version)


def _sizes(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of timm's ``VisionTransformer`` that the arrays show."""
    prefix = next(name for name in arrays if name.endswith("embedding/kernel")).removesuffix("embedding/kernel")
    shapes = {name.removeprefix(prefix): arrays[name].shape for name in arrays if name.startswith(prefix)}
    stacked = "Transformer/encoderblock/LayerNorm_0/scale" in shapes
    first = "Transformer/encoderblock/" if stacked else "Transformer/encoderblock_0/"
    inner = {
        name.removeprefix(first): shape[1:] if stacked else shape
        for name, shape in shapes.items()
        if name.startswith(first)
    }
    blocks = {name.split("/")[1] for name in shapes if name.startswith("Transformer/encoderblock_")}
    patch, _, channels, width = shapes["embedding/kernel"]
    count = next(shape[1] for name, shape in shapes.items() if name.endswith("pos_embedding"))
    side = int(count**0.5)  # a class token's own position does not make it one more
    args: dict[str, Any] = {
        "img_size": side * patch,
        "patch_size": patch,
        "in_chans": channels,
        "embed_dim": width,
        "depth": shapes["Transformer/encoderblock/LayerNorm_0/scale"][0] if stacked else len(blocks),
        "num_heads": next(shape[1] for name, shape in inner.items() if name.endswith("query/kernel")),
        "mlp_ratio": (next(shape[1] for name, shape in inner.items() if name.endswith("Dense_0/kernel")) + 0.5)
        / width,
        "num_classes": shapes["head/bias"][0] if "head/bias" in shapes else 0,
    }
    if "cls" in shapes and count == side * side:
        args["no_embed_class"] = True
    return args
