"""Reads timm's ``pretrained_cfg`` into :class:`Preprocessing`, as timm's transform at evaluation is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.model.fields import Fields
from vit_deploy.model.preprocess import Preprocessing, resize_of_crop_pct
from vit_deploy.model.preprocess_checks import per_channel, unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.model.kinds import Architecture

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_CROP_PCT = 0.875
"""What timm takes where a config is silent (timm/data/constants.py)."""


def preprocessing_from_timm(pretrained_cfg: Mapping[str, Any], config: Architecture) -> Preprocessing:
    """What timm's ``create_transform(**resolve_data_config(...))`` does at evaluation.

    Args:
        pretrained_cfg: as it stands in a ``config.json``, or beside a model in timm.
        config: the model's config, whose image size is what comes out.

    Raises:
        ImportFailed: for a setting that has no like here, such as ``crop_mode: border``.
    """
    entries = Fields(pretrained_cfg, "pretrained_cfg")
    mode = entries.text("crop_mode", "center")
    if mode not in {"center", "squash"}:
        raise unsupported("crop_mode", mode, "center or squash")
    if entries.data.get("crop_border_pixels"):
        raise unsupported("crop_border_pixels", entries.data["crop_border_pixels"], "none")
    crop_pct = entries.number("crop_pct", _CROP_PCT)
    if not 0 < crop_pct <= 1:
        raise unsupported("crop_pct", crop_pct, "more than 0 and at most 1")
    return Preprocessing(
        **resize_of_crop_pct(mode, config.image_size, crop_pct),
        image_size=config.image_size,
        interpolation=entries.text("interpolation", "bicubic"),
        mean=per_channel("mean", entries.numbers("mean", _IMAGENET_MEAN), config.in_channels),
        std=per_channel("std", entries.numbers("std", _IMAGENET_STD), config.in_channels),
    )
