"""transformers' own model of a checkpoint (https://github.com/huggingface/transformers).

The class that the checkpoint names loads it with ``from_pretrained``. Nothing is known here of any
family: the trunk is found by its patch convolution, the blocks by their list, and what comes out by the
names that transformers gives its outputs. Attention is its plain one ("eager"), so that a fused kernel
is not shared by both sides.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.proof.references import Reference, Tap, block_taps, cannot_be_imported, require_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.weights.imported import Model
    from vit_deploy.weights.request import Request

INSTALL = "pip install 'vit-deploy[hf]'"

_UNUSED = ("mask_token",)
"""Weights that change nothing at inference, so that a checkpoint may lack them."""


def build(request: Request, model: Model) -> Reference:
    """transformers' model of the checkpoint.

    Raises:
        BackendMissing: when transformers is not installed.
        UsageFailed: for a bare file, which transformers cannot load.
        ImportFailed: when transformers would fill weights with random numbers.
    """
    version = require_library("transformers", "transformers", INSTALL)
    if not request.path.is_dir():
        raise UsageFailed(
            "a bare file with transformers' names has no config, and transformers loads none without",
            expected="a directory with the checkpoint's own config.json",
            next_command="put the file into a directory as model.safetensors, with its config.json beside it",
        )
    module = _loaded(request, has_head=model.vit_config.num_classes > 0)
    trunk_name = _trunk(module)
    prefix = f"{trunk_name}." if trunk_name else ""
    trunk = module.get_submodule(trunk_name)
    taps = {
        **block_taps(f"{prefix}{_blocks(trunk)}", model.vit_config.depth),
        "tokens": Tap(trunk_name, "output", _tokens(module, trunk, model.vit_config)),
    }
    head = _head(module)
    if head:
        taps["embedding"] = Tap(head, "input")
    return Reference("transformers", version, module, taps, _outputs(module, trunk, model.vit_config))


@contextlib.contextmanager
def _without_progress_bar() -> Iterator[None]:
    """A bar of transformers' own would stand between what the command says."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _loaded(request: Request, *, has_head: bool) -> nn.Module:
    import torch
    import transformers

    directory = str(request.path)
    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
    fallback = "AutoModelForImageClassification" if has_head else "AutoModel"
    name = (config.architectures or [fallback])[0]
    try:
        factory = getattr(transformers, name)
    except ImportError as error:  # its classes are imported when they are first named
        raise cannot_be_imported("transformers", error, name) from error

    def load(**options: Any) -> tuple[nn.Module, list[str]]:
        module, told = factory.from_pretrained(
            directory,
            dtype=torch.float64,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
        return module, [name for name in told["missing_keys"] if not name.endswith(_UNUSED)]

    with _without_progress_bar():
        module, missing = load()
        if missing and all(name.startswith("pooler.") for name in missing):
            module, missing = load(add_pooling_layer=False)
    if missing:
        raise ImportFailed(
            f"transformers finds no {sorted(missing)[0]!r} in the checkpoint and would make it up",
            expected=f"every weight of a {type(module).__name__}",
            next_command="name the class that the weights are of under architectures in config.json",
        )
    return module


def _trunk(module: nn.Module) -> str:
    """The name of the outermost module with an embedding of patches."""
    from torch import nn as modules

    for name, child in module.named_modules():
        embeddings = getattr(child, "embeddings", None)
        parts = embeddings.modules() if isinstance(embeddings, modules.Module) else ()
        if any(isinstance(part, modules.Conv2d) for part in parts):
            return str(name)
    raise ImportFailed(
        f"transformers' {type(module).__name__} has no embedding of patches", expected="a Vision Transformer"
    )


def _blocks(trunk: nn.Module) -> str:
    from torch import nn as modules

    for name, child in trunk.named_modules():
        if isinstance(child, modules.ModuleList) and name.rpartition(".")[2] in {"layer", "layers"}:
            return str(name)
    raise ImportFailed(
        f"transformers' {type(trunk).__name__} has no list of blocks", expected="a Vision Transformer"
    )


def _head(module: nn.Module) -> str:
    """The name of the layer that classifies, or of the first of two; empty where there is none."""
    from torch import nn as modules

    names = ("classifier", "cls_classifier")
    return next((name for name in names if isinstance(getattr(module, name, None), modules.Linear)), "")


def _tokens(module: Any, trunk: Any, config: ViTConfig) -> Callable[[Any], Tensor]:
    """How the tokens are read where the trunk gives them as the last block left them.

    Towers with a norm before the blocks put the last one on what is pooled alone, and a class for masked
    images has a norm of its own. Both are part of what we call tokens.
    """
    norm: Any = None
    if hasattr(trunk, "pre_layrnorm") and config.final_norm:
        norm = trunk.post_layernorm
    elif module is not trunk:
        norm = getattr(module, "layernorm", None)
    return lambda output: output.last_hidden_state if norm is None else norm(output.last_hidden_state)


def _outputs(module: Any, trunk: Any, config: ViTConfig) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """Runs as little as gives all there is to compare: a text tower or a decoder is left alone."""
    if config.num_classes:
        return lambda pixel_values: {"logits": module(pixel_values=pixel_values).logits}
    if hasattr(trunk.config, "mask_ratio"):
        return lambda pixel_values: _unmasked(trunk, pixel_values)

    def run(pixel_values: Tensor) -> Mapping[str, Tensor]:
        pooled = getattr(trunk(pixel_values=pixel_values), "pooler_output", None)
        if pooled is None:
            return {}
        projection = getattr(module, "visual_projection", None)
        embeds = {"image_embeds": pooled if projection is None else projection(pooled)}
        return {"embedding": pooled, **(embeds if config.image_embeds_dim else {})}

    return run


def _unmasked(trunk: Any, pixel_values: Tensor) -> Mapping[str, Tensor]:
    """A masked autoencoder's encoder hides and shuffles patches even at inference: none, and in order."""
    import torch

    trunk.config.mask_ratio = 0.0
    patches = trunk.embeddings.patch_embeddings.num_patches
    trunk(pixel_values=pixel_values, noise=torch.arange(patches).expand(pixel_values.shape[0], -1))
    return {}
