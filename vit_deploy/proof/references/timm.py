"""timm's own model of a checkpoint (https://github.com/huggingface/pytorch-image-models).

A directory is loaded by ``timm.create_model("local-dir:…", pretrained=True)``, which reads the config
and the weights by itself. Where a training script wrapped the weights in something that timm does not
take off, timm is given what is inside. A bare file has no config: the architecture is the one that was
named, with the sizes that show in the weights. All names are translated by timm's own filter.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.model.architectures import named_config
from vit_deploy.proof.references import Reference, Tap, block_taps, require_library

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.weights.imported import Model
    from vit_deploy.weights.request import Request
    from vit_deploy.weights.tensors import Weights

INSTALL = "pip install 'vit-deploy[timm]'"


def build(request: Request, model: Model) -> Reference:
    """timm's model of the checkpoint.

    Raises:
        BackendMissing: when timm is not installed.
    """
    version = require_library("timm", "timm", INSTALL)
    import timm

    from vit_deploy.weights.files import read_checkpoint_file, read_directory_weights

    with _weights_only():
        if request.path.is_dir():
            weights, _ = read_directory_weights(request.path)
            wrapped = {"source": "", **_state(weights)} if weights.notes else {}
            module = timm.create_model(
                f"local-dir:{request.path}", pretrained=True, pretrained_cfg_overlay=wrapped
            )
        else:
            path = Path(request.weights or request.reference)
            weights = read_checkpoint_file(path, use_ema=request.use_ema)
            module = _from_file(request.arch or request.reference, weights, model.vit_config)
    return reference(module, model.vit_config, version)


def reference(module: nn.Module, config: ViTConfig, version: str) -> Reference:
    """A timm model of any source as a reference; its attention is made the plain one.

    A fused kernel would be shared by both sides, and what is shared is not compared.
    """
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False  # type: ignore[assignment]
    taps = block_taps("blocks", config.depth)
    has_head = _is_linear(module)
    if has_head:
        # A distilled model's own pre-logits are the mean of both tokens; each head sees its own.
        taps["embedding"] = Tap("head", "input")

    def run(pixel_values: Tensor) -> Mapping[str, Tensor]:
        net: Any = module
        tokens = net.forward_features(pixel_values)
        found = {"tokens": tokens}
        if not has_head:
            found["embedding"] = net.forward_head(tokens, pre_logits=True)
        last = "logits" if config.num_classes else "image_embeds"
        if last in config.output_names:
            found[last] = net.forward_head(tokens)
        return found

    return Reference("timm", version, module, taps, run)


def _is_linear(module: nn.Module) -> bool:
    from torch import nn as modules

    return isinstance(getattr(module, "head", None), modules.Linear)


def _state(weights: Weights) -> dict[str, Any]:
    """What gives timm a state dict in place of a file."""
    return {"state_dict": {name: tensor.read() for name, tensor in weights.items()}, "custom_load": False}


def _from_file(arch: str, weights: Weights, config: ViTConfig) -> nn.Module:
    """The named architecture with a file's weights."""
    import timm

    base = named_config(arch)
    sizes: dict[str, Any] = {"num_classes": config.num_classes, "in_chans": config.in_channels}
    if config.image_size != base.image_size:
        sizes["img_size"] = config.image_size
    for name in ("embed_dim", "depth", "patch_size"):
        if getattr(config, name) != getattr(base, name):
            sizes[name] = getattr(config, name)
    if config.mlp_dim * base.embed_dim != base.mlp_dim * config.embed_dim:
        sizes["mlp_ratio"] = config.mlp_dim / config.embed_dim
    overlay = {
        **_state(weights),
        "num_classes": config.num_classes,
        "input_size": (config.in_channels, *config.image_size),
    }
    module: nn.Module = timm.create_model(arch, pretrained=True, pretrained_cfg_overlay=overlay, **sizes)
    return module


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Whatever timm asks of ``torch.load``, no code in a pickle is run."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
