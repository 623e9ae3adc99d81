"""timm's own module with the weights of a checkpoint, and its bare ONNX export; for peers' environments."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.peers.models import IMAGE_SIZE
from vit_deploy.torchvision_schemas import let_torchvision_import

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.peers.recipe import Job


def load_timm(checkpoint: Path, **arguments: Any) -> Any:
    """timm's module in eval mode, with the checkpoint's weights.

    Args:
        checkpoint: a folder in timm's layout.
        arguments: more for ``timm.create_model``.
    """
    let_torchvision_import()
    import timm
    from safetensors.torch import load_file

    told = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    model = timm.create_model(told["architecture"], pretrained=False, **told["model_args"], **arguments)
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    return model.eval()


def timm_onnx_export(job: Job, folder: Path) -> Path:
    """timm's own ONNX export as its script makes it: attention spelled out, a batch of any size."""
    model = load_timm(job.checkpoint, exportable=True)
    from timm.utils.onnx import onnx_export  # after torchvision was let import

    path = folder / "model.onnx"
    onnx_export(model, str(path), batch_size=1, input_size=(3, IMAGE_SIZE, IMAGE_SIZE))
    return path


def bare_onnx_export(job: Job, folder: Path) -> Path:
    """``torch.onnx.export`` as it is by default, with a batch of any size."""
    import torch

    path = folder / "model.onnx"
    model = load_timm(job.checkpoint)
    pixels = torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    with torch.inference_mode():
        torch.onnx.export(model, (pixels,), str(path), dynamic_shapes=({0: "batch"},), verbose=False)
    return path
