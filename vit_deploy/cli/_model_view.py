"""What ``inspect`` shows of a model: our own ViT, or a user's module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.model.module_config import ModuleConfig

if TYPE_CHECKING:
    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.model.summary import LayerRow
    from vit_deploy.weights.imported import Model


def layers(model: Model, batch_size: int) -> list[LayerRow]:
    """The layer table at a batch size.

    Raises:
        UsageFailed: for a batch that a module does not take.
    """
    from vit_deploy.spec import BatchRange
    from vit_deploy.weights.module.model import ModuleModel

    if isinstance(model, ModuleModel):
        from vit_deploy.model.module_summary import module_table

        # A module whose batch is baked in says so here.
        model.config.io_spec(batch=BatchRange(batch_size, batch_size, batch_size))
        return module_table(model.live, model.example.at(batch_size), model.example.keywords)
    import torch

    from vit_deploy.model.summary import layer_table
    from vit_deploy.model.vit import ViT

    # The table says nothing of the values, so they are never read.
    with torch.device("meta"):
        module = ViT(model.vit_config)
    return layer_table(module, model.vit_config, batch_size)


def describe(model: Model) -> list[str]:
    """The model in a few lines for people."""
    source = f"source         {model.source.kind}: {model.source.name} (sha256 {model.source.sha256[:12]})"
    own = _module if isinstance(model.config, ModuleConfig) else _vit
    silent = "module" if isinstance(model.config, ModuleConfig) else "checkpoint"
    return [source, *own(model), f"preprocessing  {_recipe(model.preprocessing, silent)}"]


def _vit(model: Model) -> list[str]:
    config = model.vit_config
    height, width = config.image_size
    return [
        f"input          {height}x{width}, {config.in_channels} channels, patches of {config.patch_size}: "
        f"{config.num_tokens} tokens",
        f"size           dim {config.embed_dim}, depth {config.depth}, {config.num_heads} heads, "
        f"mlp {config.mlp_dim}, eps {config.norm_eps:g}",
        f"outputs        {', '.join(config.default_outputs)}" + _classes(model),
    ]


def _module(model: Model) -> list[str]:
    spec = model.config.io_spec()
    named = [
        [f"{entry.name} {'x'.join(map(str, entry.shape))}" for entry in entries]
        for entries in (spec.inputs, spec.outputs)
    ]
    return [
        f"inputs         {', '.join(named[0])}",
        f"outputs        {', '.join(named[1])}" + _classes(model),
        f"size           about as deep as {model.config.depth} blocks of a ViT, by its matrix products",
    ]


def _classes(model: Model) -> str:
    classes = model.config.num_classes
    return f" ({classes} classes, {len(model.labels)} labels)" if classes else ""


def _recipe(recipe: Preprocessing | None, silent: str) -> str:
    if recipe is None:
        return "none: the input is no picture"
    origin = "" if recipe.origin == "checkpoint" else f" (a default: the {silent} says nothing)"
    return (
        f"{recipe.resize} {recipe.resize_size[0]}x{recipe.resize_size[1]} {recipe.interpolation}, "
        f"crop {recipe.image_size[0]}x{recipe.image_size[1]}, "
        f"mean {_numbers(recipe.mean)}, std {_numbers(recipe.std)}{origin}"
    )


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:.4g}" for value in values)
