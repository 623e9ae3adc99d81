"""Hugging Face transformers checkpoints: ViT and DeiT, as models or image classifiers.

Two sets of parameter names are read: that which every release so far writes to disk
(``vit.encoder.layer.0.attention.attention.query.weight``) and that which release 5 uses in memory
(``vit.layers.0.attention.q_proj.weight``). Query, key and value become one ``qkv``.

As transformers does, weights that a class has no use for at inference are left out: a mask token,
and the pooler of an image classifier.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.weights.files import CONFIG_NAME, PROCESSOR_NAME, read_directory_weights, read_json
from vit_deploy.weights.imported import Model, Source
from vit_deploy.weights.tensors import Weights, WeightTensor, concatenate

if TYPE_CHECKING:
    from vit_deploy.model.fields import Fields
    from vit_deploy.weights.request import Request

NORM_EPS = 1e-12
"""transformers' epsilon, for a file that comes without a config."""

_KERNEL = "embeddings.patch_embeddings.projection.weight"


@dataclass(frozen=True)
class _Class:
    """What sets one of transformers' model classes apart.

    Attributes:
        heads: our name of each of its heads, by transformers' name.
        distilled: whether there is a distillation token.
    """

    heads: dict[str, str]
    distilled: bool = False


_TEACHER = {"cls_classifier": "head", "distillation_classifier": "head_dist"}
CLASSES = {
    "ViTForImageClassification": _Class({"classifier": "head"}),
    "ViTModel": _Class({}),
    "DeiTForImageClassification": _Class({"classifier": "head"}, distilled=True),
    "DeiTForImageClassificationWithTeacher": _Class(_TEACHER, distilled=True),
    "DeiTModel": _Class({}, distilled=True),
}
"""The classes that are read."""

_OUTER = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"layernorm\.(weight|bias)", r"norm.\1"),
    (r"pooler\.dense\.(weight|bias)", r"pre_logits.\1"),
)
_BLOCK = r"(?:encoder\.layer|layers)\.(\d+)\."
_INNER = (
    (r"layernorm_before\.(weight|bias)", r"norm1.\1"),
    (r"layernorm_after\.(weight|bias)", r"norm2.\1"),
    (r"attention\.(?:output\.dense|o_proj)\.(weight|bias)", r"attn.proj.\1"),
    (r"(?:intermediate\.dense|mlp\.fc1)\.(weight|bias)", r"mlp.fc1.\1"),
    (r"(?:output\.dense|mlp\.fc2)\.(weight|bias)", r"mlp.fc2.\1"),
    (r"attention\.(?:attention\.query|q_proj)\.(weight|bias)", r"attn.q.\1"),
    (r"attention\.(?:attention\.key|k_proj)\.(weight|bias)", r"attn.k.\1"),
    (r"attention\.(?:attention\.value|v_proj)\.(weight|bias)", r"attn.v.\1"),
)


def detects(request: Request) -> bool:
    """Whether the reference is a directory with transformers' ``config.json``."""
    path = request.path / CONFIG_NAME
    return path.is_file() and "model_type" in read_json(path)


def load(request: Request) -> Model:
    """The model of a directory that ``save_pretrained`` or the hub wrote.

    Raises:
        ImportFailed: for another kind of model, and for configs that are broken.
        HostileInput: for weights that are truncated or hold code.
    """
    entries = read_json(request.path / CONFIG_NAME)
    model_type = entries.text("model_type")
    if model_type not in {"vit", "deit"}:
        raise ImportFailed(f"the checkpoint is a {model_type!r} model", expected="model_type 'vit' or 'deit'")
    raw, sha256 = read_directory_weights(request.path)
    name = _class_name(entries, raw)
    weights = translate(raw, name)
    config = _config(entries, weights, CLASSES[name])
    processor = request.path / PROCESSOR_NAME
    return Model(
        config=config,
        weights=weights,
        preprocessing=(
            Preprocessing.from_transformers(read_json(processor).data, config)
            if processor.is_file()
            else Preprocessing.default(config)
        ),
        labels=_labels(entries, config.num_classes),
        source=Source("transformers", request.name or name, sha256),
    )


def speaks(weights: Weights) -> bool:
    """Whether the weights have transformers' names."""
    return any(name.endswith(_KERNEL) for name in weights)


def config_of(weights: Weights, base: ViTConfig, num_classes: int | None) -> tuple[ViTConfig, Weights]:
    """The config of a bare file with transformers' names, and its weights under ours.

    Class, heads, distillation token, pooler and channels are read off the weights, the epsilon is
    transformers' own; all else is the architecture's and must fit.

    Raises:
        ImportFailed: when the names are not those of a class that is read.
    """
    name = _class_of(weights)
    translated = translate(weights, name)
    heads = CLASSES[name].heads
    if not heads and num_classes != 0:
        raise ImportFailed(
            "the checkpoint has no classification head",
            expected="weights named 'classifier' or 'cls_classifier'",
            next_command="add --num-classes 0 to take it as a model without a head",
        )
    pooler = translated.get("pre_logits.weight")
    config = replace(
        base,
        in_channels=_dimension(translated, "patch_embed.proj.weight", 1, base.in_channels),
        num_classes=_dimension(translated, "head.weight", 0, 0),
        norm_eps=NORM_EPS,
        distillation_token=CLASSES[name].distilled,
        distillation_head="head_dist" in heads.values(),
        representation_size=0 if pooler is None else pooler.shape[0],
    )
    return config, translated


def translate(weights: Weights, class_name: str) -> Weights:
    """The weights of a transformers class under our names, still unread.

    A name that is not known stays as it is, for the check of names to show.

    Raises:
        ImportFailed: for a tensor of integers, or query, key and value of different shapes.
    """
    heads = CLASSES[class_name].heads
    renamed: dict[str, WeightTensor] = {}
    for original, tensor in weights.as_float32().items():
        name = re.sub(r"^(vit|deit)\.", "", original)
        if name == "embeddings.mask_token" or (heads and name.startswith("pooler.")):
            continue
        ours = _renamed(name, heads) or original
        renamed[ours] = tensor.renamed(ours)
    return Weights(_with_fused_qkv(renamed))


def _renamed(name: str, heads: dict[str, str]) -> str | None:
    head, _, rest = name.partition(".")
    if head in heads:
        return f"{heads[head]}.{rest}"
    block = re.match(_BLOCK, name)
    table = _INNER if block else _OUTER
    tail = name[block.end() :] if block else name
    for pattern, ours in table:
        found = re.fullmatch(pattern, tail)
        if found:
            return (f"blocks.{block[1]}." if block else "") + found.expand(ours)
    return None


def _with_fused_qkv(weights: dict[str, WeightTensor]) -> list[WeightTensor]:
    fused = []
    for name, tensor in weights.items():
        match = re.fullmatch(r"(blocks\.\d+\.attn\.)[qkv]\.(weight|bias)", name)
        parts = [weights.get(f"{match[1]}{letter}.{match[2]}") for letter in "qkv"] if match else []
        whole = [part for part in parts if part is not None]
        if match is None or len(whole) < 3:
            fused.append(tensor)
        elif tensor is whole[0]:
            fused.append(_fused(f"{match[1]}qkv.{match[2]}", whole))
    return fused


def _fused(name: str, parts: list[WeightTensor]) -> WeightTensor:
    shapes = [part.shape for part in parts]
    if len(set(shapes)) > 1 or not shapes[0]:
        raise ImportFailed(
            f"query, key and value of {name!r} have shapes {', '.join(map(str, shapes))}",
            expected="three of one shape",
        )
    return concatenate(name, parts)


def _class_name(entries: Fields, weights: Weights) -> str:
    names = entries.texts("architectures", ())
    if not names:
        return _class_of(weights)
    if "auto_map" in entries:
        raise ImportFailed(
            "the checkpoint comes with code of its own (auto_map), which is not run",
            expected="one of transformers' own classes",
        )
    if names[0] not in CLASSES:
        raise ImportFailed(f"the checkpoint is a {names[0]}", expected=f"one of {', '.join(CLASSES)}")
    return names[0]


def _class_of(weights: Weights) -> str:
    """The class whose weights these are, by their names."""
    tops = {name.partition(".")[0] for name in weights}
    family = "DeiT" if any(name.endswith("embeddings.distillation_token") for name in weights) else "ViT"
    if "cls_classifier" in tops:
        return "DeiTForImageClassificationWithTeacher"
    return f"{family}ForImageClassification" if "classifier" in tops else f"{family}Model"


def _dimension(weights: Weights, name: str, axis: int, default: int) -> int:
    tensor = weights.get(name)
    return default if tensor is None or len(tensor.shape) <= axis else tensor.shape[axis]


def _config(entries: Fields, weights: Weights, kind: _Class) -> ViTConfig:
    # The defaults are those of transformers' ViTConfig, for what an older config leaves out.
    hidden = entries.integer("hidden_size", 768)
    heads = entries.integer("num_attention_heads", 12)
    patch = entries.pair("patch_size", (16, 16))
    pooled = "pre_logits.weight" in weights
    num_classes = _num_classes(entries, weights, kind)
    _require(entries.text("hidden_act", "gelu") in {"gelu", "gelu_python"}, entries, "hidden_act", "'gelu'")
    _require(not pooled or entries.text("pooler_act", "tanh") == "tanh", entries, "pooler_act", "'tanh'")
    _require(patch[0] == patch[1], entries, "patch_size", "square patches")
    if "head_dim" in entries:
        _require(entries.integer("head_dim") * heads == hidden, entries, "head_dim", "hidden_size / heads")
    return ViTConfig(
        image_size=entries.pair("image_size", (224, 224)),
        patch_size=patch[0],
        in_channels=entries.integer("num_channels", 3),
        embed_dim=hidden,
        depth=entries.integer("num_hidden_layers", 12),
        num_heads=heads,
        mlp_dim=entries.integer("intermediate_size", 3072),
        num_classes=num_classes,
        qkv_bias=entries.boolean("qkv_bias", True),
        norm_eps=entries.number("layer_norm_eps", NORM_EPS),
        distillation_token=kind.distilled,
        distillation_head=num_classes > 0 and "head_dist" in kind.heads.values(),
        representation_size=entries.integer("pooler_output_size", hidden) if pooled else 0,
    )


def _require(holds: bool, entries: Fields, name: str, expected: str) -> None:
    if not holds:
        raise ImportFailed(
            f"config.json says {name}={entries.data.get(name)!r}, which is not supported", expected=expected
        )


def _num_classes(entries: Fields, weights: Weights, kind: _Class) -> int:
    if not kind.heads:
        return 0
    # Two is transformers' default. Of no classes (num_labels=0) it makes a model without a head.
    named = len(entries.fields("id2label").data) if "id2label" in entries else None
    rows = _dimension(weights, "head.weight", 0, 2 if named is None else named)
    if named is not None and named != rows:
        raise ImportFailed(
            f"config.json names {named} classes and the head has {rows}",
            expected="as many in id2label as the head has rows",
        )
    return rows


def _labels(entries: Fields, num_classes: int) -> tuple[str, ...]:
    """The names in ``id2label``, or none where they are just LABEL_0, LABEL_1, …."""
    if not num_classes or "id2label" not in entries:
        return ()
    table = entries.fields("id2label")
    labels = tuple(table.text(str(index)) for index in range(num_classes))
    generic = all(label == f"LABEL_{index}" for index, label in enumerate(labels))
    return () if generic else labels
