"""The image towers of CLIP and of those that copy it (MetaCLIP 2, AltCLIP, Chinese-CLIP), and of SigLIP.

Of a model of both towers the image tower is taken, with its projection; text weights are left out.
``image_embeds`` is what ``get_image_features`` gives, before it is divided by its length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.weights.transformers import settings as s
from vit_deploy.weights.transformers.family import Family, ModelClass, Rule
from vit_deploy.weights.transformers.names import AFFINE, NUMBER, as_sequence, query_and_rest
from vit_deploy.weights.transformers.vit import CLASSIFIER, SETTINGS

if TYPE_CHECKING:
    from vit_deploy.weights.transformers.family import Reading, Setting

_TEXT = (r"text_model\..*", r"text_projection\..*", r"logit_scale", r"logit_bias")
_BUFFERS = (r"embeddings\.position_ids",)
"""Of integers, in checkpoints of older releases."""

_BLOCK = rf"encoder\.layers?\.{NUMBER}\."
_INNER = (
    Rule(rf"layer_norm([12]){AFFINE}", r"norm\1.\2"),
    Rule(rf"self_attn\.([qkv])_proj{AFFINE}", r"attn.\1.\2"),
    Rule(rf"self_attn\.out_proj{AFFINE}", r"attn.proj.\1"),
    Rule(rf"mlp\.(fc[12]){AFFINE}", r"mlp.\1.\2"),
)
_EMBEDDINGS = (
    Rule(rf"embeddings\.patch_embedding{AFFINE}", r"patch_embed.proj.\1"),
    Rule(r"embeddings\.position_embedding\.weight", "pos_embed", as_sequence),
)
_CLIP_OUTER = (
    *_EMBEDDINGS,
    Rule(r"embeddings\.class_embedding", "cls_token", as_sequence),
    Rule(rf"pre_layrnorm{AFFINE}", r"norm_pre.\1"),
    Rule(rf"post_layernorm{AFFINE}", r"fc_norm.\1"),
)
_TOWER_SETTINGS = {
    **{name: setting for name, setting in SETTINGS.items() if name != "qkv_bias"},
    "activation": s.activation("hidden_act", "quick_gelu"),
    "norm_eps": s.number("layer_norm_eps", 1e-5),
    "patch_size": s.patch_size(32),
}
# last_hidden_state is not normalised: post_layernorm is for the pooled class token alone.
_CLIP_SETTINGS = {
    **_TOWER_SETTINGS,
    "patch_bias": s.constant(False),
    "pre_norm": s.constant(True),
    "final_norm": s.constant(False),
    "fc_norm": s.constant(True),
}
_CHANNELS = {"num_channels": lambda weights: s.size_of(weights, "embeddings.patch_embedding.weight", 1, 3)}


def _whole_projection(default: int) -> dict[str, Setting]:
    return {"projection_dim": lambda reading: reading.top.integer("projection_dim", default)}


def _classes(projection_dim: int) -> dict[str, ModelClass]:
    """CLIP's classes, by what follows their stem."""
    own = {"projection_dim": s.integer("projection_dim", 512)}
    # The head stands on the mean of the patches, before the norm of the class token.
    classifier = {"pool": s.constant("avg"), "fc_norm": s.constant(False)}
    projection = {"visual_projection": "projection"}
    return {
        "VisionModelWithProjection": ModelClass(projection, own, _TEXT),
        "Model": ModelClass(projection, _whole_projection(projection_dim), _TEXT),
        "ForImageClassification": ModelClass(
            CLASSIFIER, classifier, (*_TEXT, r"visual_projection\..*", r"post_layernorm\..*")
        ),
        "VisionModel": ModelClass(unused=(*_TEXT, r"visual_projection\..*")),
    }


def _clip(model_type: str, stem: str, projection_dim: int, *, only: tuple[str, ...] = ()) -> Family:
    """A family of CLIP's tower: its names and config are CLIP's, its classes have a stem of their own.

    Args:
        model_type: of the model of both towers; the image tower's own has ``_vision_model`` after it.
        stem: what its classes begin with.
        projection_dim: its default in the config of both towers.
        only: the classes that it has; all of CLIP's when empty.
    """
    classes = _classes(projection_dim)
    return Family(
        model_types=(model_type, f"{model_type}_vision_model"),
        classes={stem + name: kind for name, kind in classes.items() if name in only or not only},
        settings=_CLIP_SETTINGS,
        prefix=r"vision_model\.",
        outer=_CLIP_OUTER,
        block=_BLOCK,
        inner=_INNER,
        marks=(r"embeddings\.class_embedding", rf"pre_layrnorm{AFFINE}"),
        unused=_BUFFERS,
        tower="vision_config",
        told={**_CHANNELS, "projection_dim": lambda weights: s.size_of(weights, "visual_projection.weight", 0)},
        processor="CLIPImageProcessor",
    )


_TWO = ("Model", "VisionModel")

CLIP = _clip("clip", "CLIP", 512)
METACLIP_2 = _clip("metaclip_2", "MetaClip2", 512)
ALTCLIP = _clip("altclip", "AltCLIP", 768, only=_TWO)
CHINESE_CLIP = _clip("chinese_clip", "ChineseCLIP", 512, only=_TWO)


def _pool(reading: Reading) -> str:
    return "map" if reading.tower.boolean("vision_use_head", True) else "avg"


SIGLIP = Family(
    model_types=("siglip", "siglip_vision_model"),
    classes={
        "SiglipVisionModel": ModelClass(unused=_TEXT),
        "SiglipModel": ModelClass(unused=_TEXT),
        # It takes the mean of the tokens, whatever pooling head the tower has.
        "SiglipForImageClassification": ModelClass(
            CLASSIFIER, {"pool": s.constant("avg")}, (*_TEXT, r"head\..*")
        ),
    },
    settings={
        **_TOWER_SETTINGS,
        "patch_size": s.patch_size(16),
        "class_token": s.constant(False),
        "activation": s.activation("hidden_act", "gelu_pytorch_tanh"),
        "norm_eps": s.number("layer_norm_eps", 1e-6),
        "pool": _pool,
        "pool_activation": s.activation("hidden_act", "gelu_pytorch_tanh"),
    },
    prefix=r"vision_model\.",
    outer=(
        *_EMBEDDINGS,
        Rule(rf"post_layernorm{AFFINE}", r"norm.\1"),
        Rule(r"head\.probe", "attn_pool.latent"),
        Rule(r"head\.attention\.in_proj_(weight|bias)", r"attn_pool.q.\1", query_and_rest),
        Rule(rf"head\.attention\.out_proj{AFFINE}", r"attn_pool.proj.\1"),
        Rule(rf"head\.layernorm{AFFINE}", r"attn_pool.norm.\1"),
        Rule(rf"head\.mlp\.(fc[12]){AFFINE}", r"attn_pool.mlp.\1.\2"),
    ),
    block=_BLOCK,
    inner=_INNER,
    marks=(r"embeddings\.patch_embedding\.bias", rf"post_layernorm{AFFINE}"),
    unused=_BUFFERS,
    tower="vision_config",
    told={**_CHANNELS, "vision_use_head": lambda weights: s.ends(weights, "head.probe")},
    processor="SiglipImageProcessor",
)
"""SigLIP, and SigLIP 2 at a fixed size, whose checkpoints are of this family too."""

FAMILIES = (CLIP, METACLIP_2, ALTCLIP, CHINESE_CLIP, SIGLIP)
