"""torchvision's own ``VisionTransformer`` of a bare state dict (https://github.com/pytorch/vision).

Its builders take sizes that the state dict shows; how many heads there are does not show, and is the
builder's that was named.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.proof.references import EMBED, Reference, Tap, require_library

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from vit_deploy.weights.imported import Model
    from vit_deploy.weights.request import Request

INSTALL = "pip install torchvision"


def build(request: Request, model: Model) -> Reference:
    """torchvision's model of the checkpoint.

    Raises:
        BackendMissing: when torchvision is not installed.
    """
    version = require_library("torchvision", "torchvision", INSTALL)
    from vit_deploy.weights.files import read_checkpoint_file

    # Where in a file the weights are nested, and whether it holds code, is our reader's affair.
    path = Path(request.weights or request.reference)
    state = {
        name: tensor.read() for name, tensor in read_checkpoint_file(path, use_ema=request.use_ema).items()
    }
    module = _module(state, (request.arch or request.reference).partition(".")[0], model)
    depth = len(module.encoder.layers)
    layers = [f"encoder.layers.encoder_layer_{index}" for index in range(depth)]
    taps = {EMBED: Tap(layers[0], "input")}
    taps |= {f"blocks.{index}": Tap(layer) for index, layer in enumerate(layers)}
    taps["tokens"] = Tap("encoder.ln")
    taps["embedding"] = Tap("heads.head", "input")

    def run(pixel_values: Tensor) -> Mapping[str, Tensor]:
        logits = module(pixel_values)
        return {"logits": logits} if model.vit_config.num_classes else {}

    return Reference("torchvision", version, module, taps, run)


def _module(state: dict[str, Any], arch: str, model: Model) -> Any:
    import torch
    from torch import nn
    from torchvision import models

    width, _, patch, _ = state["conv_proj.weight"].shape
    side = round((state["encoder.pos_embedding"].shape[1] - 1) ** 0.5) * patch
    blocks = {name.split(".")[2] for name in state if name.startswith("encoder.layers.")}
    top, pre = state.get("heads.head.weight"), state.get("heads.pre_logits.weight")
    first = "encoder.layers.encoder_layer_0.mlp."
    wide = state.get(f"{first}0.weight", state.get(f"{first}linear_1.weight"))
    heads = model.vit_config.num_heads
    if arch in models.list_models(module=models):
        with torch.device("meta"):
            heads = models.get_model(arch).encoder.layers[0].num_heads
    module: Any = models.VisionTransformer(
        image_size=side,
        patch_size=patch,
        num_layers=len(blocks),
        num_heads=heads,
        hidden_dim=width,
        mlp_dim=len(wide),  # type: ignore[arg-type]
        num_classes=1 if top is None else len(top),
        representation_size=None if pre is None else len(pre),
    )
    if top is None:
        module.heads.head = nn.Identity()
    _one_channel_fits(module, state)
    module.load_state_dict(state)
    return module


def _one_channel_fits(module: nn.Module, state: Mapping[str, Any]) -> None:
    """The class itself is made for three channels; a user's own stem has another number."""
    from torch import nn

    kernel = state["conv_proj.weight"]
    if kernel.shape[1] != 3:
        module.conv_proj = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2:], kernel.shape[2:])
