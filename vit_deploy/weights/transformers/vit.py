"""ViT and those that share its names: DeiT, MAE, MSN, I-JEPA and Pixio.

Two sets of names are read: that which every release so far writes to disk
(``vit.encoder.layer.0.attention.attention.query.weight``) and that which release 5 uses in memory
(``vit.layers.0.attention.q_proj.weight``).
"""

from __future__ import annotations

from vit_deploy.weights.transformers import settings as s
from vit_deploy.weights.transformers.family import Family, ModelClass, Rule
from vit_deploy.weights.transformers.names import AFFINE, NUMBER, first_and_rest

EMBEDDINGS = (
    Rule(r"embeddings\.cls_token", "cls_token"),
    Rule(r"embeddings\.position_embeddings", "pos_embed"),
    Rule(rf"embeddings\.patch_embeddings\.projection{AFFINE}", r"patch_embed.proj.\1"),
    Rule(rf"layernorm{AFFINE}", r"norm.\1"),
)
BLOCK = rf"(?:encoder\.layer|layers)\.{NUMBER}\."
ATTENTION = (
    Rule(rf"attention\.(?:output\.dense|o_proj){AFFINE}", r"attn.proj.\1"),
    Rule(rf"attention\.(?:attention\.query|q_proj){AFFINE}", r"attn.q.\1"),
    Rule(rf"attention\.(?:attention\.key|k_proj){AFFINE}", r"attn.k.\1"),
    Rule(rf"attention\.(?:attention\.value|v_proj){AFFINE}", r"attn.v.\1"),
)
INNER = (
    *ATTENTION,
    Rule(rf"layernorm_before{AFFINE}", r"norm1.\1"),
    Rule(rf"layernorm_after{AFFINE}", r"norm2.\1"),
    Rule(rf"(?:intermediate\.dense|mlp\.fc1){AFFINE}", r"mlp.fc1.\1"),
    Rule(rf"(?:output\.dense|mlp\.fc2){AFFINE}", r"mlp.fc2.\1"),
)
_POOLER = Rule(rf"pooler\.dense{AFFINE}", r"pre_logits.\1")

SETTINGS = {
    "image_size": s.pair("image_size", 224),
    "patch_size": s.patch_size(16),
    "in_channels": s.integer("num_channels", 3),
    "embed_dim": s.integer("hidden_size", 768),
    "depth": s.integer("num_hidden_layers", 12),
    "num_heads": s.num_heads(12),
    "mlp_dim": s.integer("intermediate_size", 3072),
    "num_classes": s.num_classes,
    "qkv_bias": s.boolean("qkv_bias", True),
    "norm_eps": s.number("layer_norm_eps", 1e-12),
    "position_resampling": s.constant("bicubic"),
    "activation": s.activation("hidden_act", "gelu"),
}

TOLD = {
    "num_channels": lambda weights: s.size_of(weights, "patch_embeddings.projection.weight", 1, 3),
    "qkv_bias": lambda weights: s.ends(weights, ("attention.query.bias", "q_proj.bias")),
}

MASK = r"embeddings\.mask_token"
CLASSIFIER = {"classifier": "head"}
_NO_POOLER = (r"pooler\.dense\..*",)
_POOLED = {"representation_size": s.pooler_size}
_PATCHES = {"class_token": s.constant(False), "pool": s.constant("avg")}

VIT = Family(
    model_types=("vit",),
    classes={
        "ViTForImageClassification": ModelClass(CLASSIFIER, unused=_NO_POOLER),
        "ViTModel": ModelClass(settings=_POOLED),
    },
    settings=SETTINGS,
    prefix=r"vit\.",
    outer=(*EMBEDDINGS, _POOLER),
    block=BLOCK,
    inner=INNER,
    marks=(r"embeddings\.cls_token",),
    unused=(MASK,),
    told={**TOLD, "pooler_output_size": lambda weights: s.size_of(weights, "pooler.dense.weight", 0)},
)

_DISTILLED = {"distillation_token": s.present("dist_token", "distillation token")}
_TEACHER = {"cls_classifier": "head", "distillation_classifier": "head_dist"}

DEIT = Family(
    model_types=("deit",),
    classes={
        "DeiTForImageClassificationWithTeacher": ModelClass(
            _TEACHER,
            {
                **_DISTILLED,
                "distillation_head": lambda reading: s.num_classes(reading) > 0,
            },
            _NO_POOLER,
        ),
        "DeiTForImageClassification": ModelClass(CLASSIFIER, _DISTILLED, _NO_POOLER),
        "DeiTModel": ModelClass(settings={**_DISTILLED, **_POOLED}),
    },
    settings=SETTINGS,
    prefix=r"deit\.",
    outer=(*EMBEDDINGS, _POOLER, Rule(r"embeddings\.distillation_token", "dist_token")),
    block=BLOCK,
    inner=INNER,
    marks=(r"embeddings\.distillation_token",),
    unused=(MASK,),
    told=VIT.told,
    processor="DeiTImageProcessor",
)

MAE = Family(
    model_types=("vit_mae",),
    classes={
        "ViTMAEModel": ModelClass(),
        "ViTMAEForPreTraining": ModelClass(unused=(r"decoder\..*",)),
    },
    settings=SETTINGS,
    prefix=r"vit\.",
    outer=EMBEDDINGS,
    block=BLOCK,
    inner=INNER,
    marks=(r"embeddings\.cls_token",),
    told=TOLD,
)
"""The encoder at a ``mask_ratio`` of 0: all patches, in their order. The decoder is left out."""

MSN = Family(
    model_types=("vit_msn",),
    classes={
        "ViTMSNForImageClassification": ModelClass(CLASSIFIER),
        "ViTMSNModel": ModelClass(),
    },
    settings={**SETTINGS, "norm_eps": s.number("layer_norm_eps", 1e-6)},
    prefix=r"vit\.",
    outer=EMBEDDINGS,
    block=BLOCK,
    inner=INNER,
    marks=(r"embeddings\.cls_token",),
    unused=(MASK,),
    told=TOLD,
)

IJEPA = Family(
    model_types=("ijepa",),
    classes={
        "IJepaForImageClassification": ModelClass(CLASSIFIER),
        "IJepaModel": ModelClass(),
    },
    settings={**SETTINGS, **_PATCHES},
    prefix=r"ijepa\.",
    outer=EMBEDDINGS[1:],
    block=BLOCK,
    inner=INNER,
    marks=(r"embeddings\.position_embeddings", rf"layernorm{AFFINE}"),
    # The pooler that early releases made takes the first patch; from_pretrained makes none.
    unused=(MASK, *_NO_POOLER),
    told=TOLD,
)

PIXIO = Family(
    model_types=("pixio",),
    classes={"PixioModel": ModelClass()},
    settings={
        **SETTINGS,
        "image_size": s.square_image(256),
        "embed_dim": s.integer("hidden_size", 1280),
        "depth": s.integer("num_hidden_layers", 32),
        "num_heads": s.num_heads(16),
        "mlp_dim": lambda reading: int(
            reading.tower.integer("hidden_size", 1280) * reading.tower.number("mlp_ratio", 4)
        ),
        "norm_eps": s.number("layer_norm_eps", 1e-6),
        "num_registers": lambda reading: reading.tower.integer("n_cls_tokens", 8) - 1,
        "pool": s.constant("prefix_avg"),
    },
    prefix=r"pixio\.",
    outer=(*EMBEDDINGS[1:], Rule(r"embeddings\.cls_token", "cls_token", first_and_rest)),
    block=BLOCK,
    inner=(*INNER, Rule(rf"norm([12]){AFFINE}", r"norm\1.\2")),
    marks=(rf"(?:encoder\.layer|layers)\.0\.norm1{AFFINE}", r"embeddings\.cls_token"),
    unused=(MASK,),
    told={
        **TOLD,
        "n_cls_tokens": lambda weights: s.size_of(weights, "embeddings.cls_token", 1, 1),
    },
    processor="BitImageProcessor",
    any_size=True,
)

FAMILIES = (VIT, DEIT, MAE, MSN, IJEPA, PIXIO)
