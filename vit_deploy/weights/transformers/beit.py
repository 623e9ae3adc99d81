"""BEiT and Data2Vec: a bias by relative position on attention, and no bias of the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.weights.transformers import settings as s
from vit_deploy.weights.transformers.family import Family, ModelClass, Rule
from vit_deploy.weights.transformers.names import AFFINE
from vit_deploy.weights.transformers.vit import BLOCK, CLASSIFIER, EMBEDDINGS, INNER, MASK, SETTINGS, TOLD

if TYPE_CHECKING:
    from vit_deploy.weights.tensors import Weights
    from vit_deploy.weights.transformers.family import Reading

_TABLE = r"relative_position_bias_table"
_mean_pooling = s.boolean("use_mean_pooling", True)


def _relative_positions(reading: Reading) -> str:
    tower = reading.tower
    each = tower.boolean("use_relative_position_bias", False)
    shared = tower.boolean("use_shared_relative_position_bias", False)
    s.require(
        not (each and shared), tower, "use_shared_relative_position_bias", "a table per block or a shared one"
    )
    if not (each or shared):
        return "none"
    height, width = tower.pair("image_size", (224, 224))
    # BeitRelativePositionBias.forward reads the table of an oblong grid with its sides exchanged.
    s.require(height == width, tower, "image_size", "a square picture beside relative positions")
    return "block" if each else "shared"


def _positions(reading: Reading) -> str:
    if not reading.tower.boolean("use_absolute_position_embeddings", False):
        return "none"
    s.square(reading.tower, 224)
    return "learned"


def _normalised_tokens(reading: Reading) -> bool:
    s.require(_mean_pooling(reading), reading.tower, "use_mean_pooling", "true: one norm after the last block")
    return True


_SETTINGS = {
    **{name: setting for name, setting in SETTINGS.items() if name != "qkv_bias"},
    "positions": _positions,
    "relative_positions": _relative_positions,
    "relative_position_resampling": s.constant("bilinear"),
    "layer_scale": lambda reading: reading.tower.number("layer_scale_init_value", 0.1) > 0,
    # With mean pooling the tokens are not normalised, and the pooler has a norm of its own.
    "final_norm": lambda reading: not _mean_pooling(reading),
    "pool": lambda reading: "avg" if _mean_pooling(reading) else "token",
    "fc_norm": lambda reading: _mean_pooling(reading) and "fc_norm.weight" in reading.weights,
}
_CLASSIFIER_SETTINGS = {"fc_norm": _mean_pooling}
_PRETRAINING = {
    "final_norm": _normalised_tokens,
    "pool": s.constant("token"),
    "fc_norm": s.constant(False),
}


def _has_shared(weights: Weights) -> bool:
    return s.ends(weights, f"encoder.relative_position_bias.{_TABLE}") or s.ends(
        weights, f"shared_position_bias.{_TABLE}"
    )


def _pools_by_mean(weights: Weights) -> bool:
    """The norm of the tokens is there without mean pooling, and in the head for pre-training."""
    normed = any(name.endswith("layernorm.weight") and "pooler" not in name for name in weights)
    return not normed or s.ends(weights, "lm_head.weight")


_TOLD = {
    **{name: tell for name, tell in TOLD.items() if name != "qkv_bias"},
    "use_absolute_position_embeddings": lambda weights: s.ends(weights, "position_embeddings"),
    "use_shared_relative_position_bias": _has_shared,
    "use_relative_position_bias": lambda weights: s.ends(weights, _TABLE) and not _has_shared(weights),
    "layer_scale_init_value": lambda weights: float(s.ends(weights, "lambda_1")),
    "use_mean_pooling": _pools_by_mean,
}


def _family(model_type: str, stem: str, prefix: str, classes: dict[str, ModelClass]) -> Family:
    return Family(
        model_types=(model_type,),
        classes={
            f"{stem}ForImageClassification": ModelClass(CLASSIFIER, _CLASSIFIER_SETTINGS),
            f"{stem}Model": ModelClass(),
            **classes,
        },
        settings=_SETTINGS,
        prefix=prefix,
        outer=(
            *EMBEDDINGS,
            Rule(rf"pooler\.layernorm{AFFINE}", r"fc_norm.\1"),
            Rule(
                rf"(?:encoder\.relative_position_bias|shared_position_bias)\.({_TABLE})",
                r"rel_pos_bias.\1",
            ),
        ),
        block=BLOCK,
        inner=(
            *INNER,
            Rule(r"lambda_([12])", r"ls\1.gamma"),
            Rule(rf"(?:attention\.attention\.)?relative_position_bias\.({_TABLE})", r"attn.rel_pos.\1"),
        ),
        marks=(rf"{BLOCK}lambda_1|.*{_TABLE}|pooler\.layernorm\.weight", r"embeddings\.cls_token"),
        unused=(MASK, r".*relative_position_index"),
        without_bias=lambda _: frozenset("k"),
        told=_TOLD,
        processor="BeitImageProcessor",
    )


BEIT = _family(
    "beit",
    "Beit",
    r"beit\.",
    {"BeitForMaskedImageModeling": ModelClass(settings=_PRETRAINING, unused=(r"lm_head\..*",))},
)
"""Of a model for pre-training the encoder is taken, with the norm of its head; the head is left out."""

DATA2VEC = _family("data2vec-vision", "Data2VecVision", r"data2vec_vision\.", {})

FAMILIES = (BEIT, DATA2VEC)
