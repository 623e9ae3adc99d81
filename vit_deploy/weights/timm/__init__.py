"""timm checkpoints (https://github.com/huggingface/pytorch-image-models), and bare files of such names.

timm itself is not needed: what its constructors make of a config's arguments is in
:mod:`~vit_deploy.weights.timm.constructors`, the architectures' own arguments are a table, and the
names of weights are translated without rounding. What no ViTConfig can say is refused by name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.weights.files import CONFIG_NAME, read_directory_weights, read_json
from vit_deploy.weights.imported import Model
from vit_deploy.weights.source import Source
from vit_deploy.weights.timm.arguments import (
    config_from_arguments,
    named_architecture,
    named_arguments,
    timm_class,
)
from vit_deploy.weights.timm.looks import require_family, require_vit
from vit_deploy.weights.timm.translate import translate

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.fields import Fields
    from vit_deploy.weights.request import Request
    from vit_deploy.weights.tensors import Weights

__all__ = ["config_of", "detects", "load", "named_architecture", "translate"]


def detects(request: Request) -> bool:
    """Whether the reference is a directory with timm's ``config.json``."""
    path = request.path / CONFIG_NAME
    return path.is_file() and "architecture" in read_json(path)


def load(request: Request) -> Model:
    """The model of a directory that ``timm.models.save_for_hf`` or the hub wrote.

    Raises:
        ImportFailed: for an architecture or an argument that is not supported, for weights of
            another family, and for configs that are broken.
        HostileInput: for weights that are truncated or hold code.
    """
    entries = read_json(request.path / CONFIG_NAME)
    arch = entries.text("architecture")
    base = named_architecture(arch)
    # Before timm 0.9 the config was the pretrained_cfg itself.
    pretrained = entries.fields("pretrained_cfg") if "pretrained_cfg" in entries else entries
    raw, sha256 = read_directory_weights(request.path, use_ema=request.use_ema)
    require_vit(raw)
    args = _arguments(arch, entries, pretrained, base, raw)
    config, weights = _fitted(config_from_arguments(arch, args), raw, translate(raw))
    require_family(weights, config)
    return Model(
        config=config,
        weights=weights,
        preprocessing=Preprocessing.from_timm(pretrained.data, config),
        labels=_labels(entries, pretrained, config.num_classes),
        source=Source("timm", request.name or arch, sha256),
        notes=raw.notes,
    )


def config_of(weights: Weights, base: ViTConfig, num_classes: int | None) -> tuple[ViTConfig, Weights]:
    """The config of a bare file of timm's names, from its architecture and its weights, and those under ours.

    Read off the weights are the number of classes and of input channels, which tokens have a position,
    and a layer before the head; a ViT fine-tuned as MAE's are is known by its norm after pooling, and
    pools patches. All else is the architecture's and must fit.

    Raises:
        ImportFailed: when the weights are not those of the architecture, with what they look like.
    """
    require_vit(weights)
    translated = translate(weights)
    changes: dict[str, Any] = {}
    head, kernel = translated.get("head.weight"), translated.get("patch_embed.proj.weight")
    if head is not None and len(head.shape) == 2:
        changes["num_classes"] = head.shape[0]
    elif num_classes == 0:
        changes["num_classes"] = 0
    if kernel is not None and len(kernel.shape) == 4:
        changes["in_channels"] = kernel.shape[1]
    after_pool = "fc_norm.weight" in translated and "norm.weight" not in translated
    if after_pool and base.pool == "token" and base.final_norm and not base.distillation_token:
        changes |= {"pool": "avg", "final_norm": False, "fc_norm": True}
    config, translated = _fitted(_with_heads(base, changes), weights, translated)
    require_family(translated, config)
    return config, translated


def _with_heads(base: ViTConfig, changes: dict[str, Any]) -> ViTConfig:
    if base.distillation_token and "num_classes" in changes:
        heads = changes["num_classes"] > 0
        changes = {**changes, "distillation_head": heads, "pool": "token" if heads else "prefix_avg"}
    return replace(base, **changes)


def _fitted(config: ViTConfig, raw: Weights, weights: Weights) -> tuple[ViTConfig, Weights]:
    """What release files do otherwise than timm, and say by their weights.

    The class token of DINOv2 with registers has a position of its own, which timm adds to the token;
    DINOv3's biases are all there where timm leaves out those that are zero; a masked image model's
    norm stands before pooling where timm, for fine-tuning, puts it after.
    """
    changes: dict[str, Any] = {}
    positions, extra = weights.get("pos_embed"), config.num_prefix_tokens - config.num_registers
    if config.num_registers and positions is not None and len(positions.shape) == 3:
        scopes = {0: "patches", extra: "class", config.num_prefix_tokens: "all"}
        scope = scopes.get(positions.shape[1] - config.num_patches, config.position_scope)
        changes["position_scope"] = scope if scope != "class" or extra else config.position_scope
    if any(name.endswith("bias_mask") for name in raw) and "blocks.0.attn.qkv.bias" in weights:
        changes["qkv_bias"] = True
    if "mask_token" in raw and config.fc_norm and not config.final_norm and "fc_norm.weight" not in weights:
        weights = _renamed_norm(weights)
    top = weights.get("pre_logits.weight")
    if top is not None and len(top.shape) == 2:
        changes["representation_size"] = top.shape[0]
    return (replace(config, **changes) if changes else config), weights


def _renamed_norm(weights: Weights) -> Weights:
    return type(weights)(
        tensor.renamed(f"fc_{name}") if name in {"norm.weight", "norm.bias"} else tensor
        for name, tensor in weights.items()
    )


def _arguments(
    arch: str, entries: Fields, pretrained: Fields, base: ViTConfig, weights: Weights
) -> dict[str, Any]:
    """What timm's factory passes on: ``model_args``, then the config's own sizes where those are silent."""
    args = dict(entries.fields("model_args", {}).data)
    given = {name: value for name, value in args.items() if value is not None}
    size = _input_size(base, pretrained)
    given.setdefault("in_chans", size[0])
    # A config of before fixed_input_size was written is that of a fixed size.
    if "img_size" not in {**named_arguments(arch), **given}:
        fixed = pretrained.boolean("fixed_input_size", True)
        given["img_size"] = [*size[1:]] if fixed else 224
    classes = entries.integer("num_classes", pretrained.integer("num_classes", base.num_classes))
    given.setdefault("num_classes", classes)
    if "global_pool" in entries and "global_pool" not in given and timm_class(arch):
        # timm writes it for the reader; it describes the weights, whose names say where the norm is.
        pool = given["global_pool"] = entries.text("global_pool")
        if pool != base.pool and pool != named_arguments(arch).get("global_pool"):
            name = "fc_norm" if timm_class(arch).startswith("VisionTransformer") else "use_fc_norm"
            given.setdefault(name, "fc_norm.weight" in weights)
    return given


def _input_size(base: ViTConfig, pretrained: Fields) -> tuple[int, int, int]:
    size = pretrained.numbers("input_size", (base.in_channels, *base.image_size))
    if len(size) != 3 or any(side != int(side) for side in size):
        raise ImportFailed(f"pretrained_cfg says input_size={size}", expected="channels, height and width")
    return int(size[0]), int(size[1]), int(size[2])


def _labels(entries: Fields, pretrained: Fields, num_classes: int) -> tuple[str, ...]:
    """The description of each class where there is one, otherwise its name."""
    place = entries if "label_names" in entries else pretrained
    if "label_names" not in place:
        return ()
    names = place.data["label_names"]
    if isinstance(names, dict):
        # Ids may have gaps; a class without a name is called by its number.
        table = place.fields("label_names")
        names = [table.text(str(index), str(index)) for index in range(num_classes)]
    else:
        names = place.texts("label_names")
    described = entries if "label_descriptions" in entries else pretrained
    descriptions = described.fields("label_descriptions", {})
    return tuple(descriptions.text(name, name) for name in names)
