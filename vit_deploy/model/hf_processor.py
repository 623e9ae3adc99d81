"""Reads transformers' ``preprocessor_config.json`` into :class:`Preprocessing`.

Read are the image processors that resize, crop, rescale and normalise, under all the names they have
had (with and without ``Fast`` or ``Pil``, and ``…FeatureExtractor`` before them). Their defaults, for
what an older file leaves out, are those of ``transformers.models.*.image_processing_*``.

DINOv3's rescales before it resizes, so that no grey level is rounded in between; here, as in all the
others, the resized picture has whole grey levels, which differ by at most half a level from its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed
from vit_deploy.model.fields import Fields
from vit_deploy.model.preprocess import Preprocessing, Resize
from vit_deploy.model.preprocess_checks import INTERPOLATIONS, per_channel, require, unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.model.config import ViTConfig

_HALVES = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_CLIP = {
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
_SQUARE = {"height": 224, "width": 224}
_BILINEAR, _BICUBIC = 2, 3
_SHORTEST_THEN_CROP: dict[str, Any] = {
    "resample": _BICUBIC,
    "size": {"shortest_edge": 224},
    "do_center_crop": True,
    "crop_size": _SQUARE,
    **_CLIP,
}
_EXACT: dict[str, Any] = {"resample": _BILINEAR, "size": _SQUARE, "do_center_crop": False, "crop_size": _SQUARE}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": {**_EXACT, **_HALVES},
    "DeiT": {
        **_EXACT,
        **_HALVES,
        "resample": _BICUBIC,
        "size": {"height": 256, "width": 256},
        "do_center_crop": True,
    },
    "CLIP": _SHORTEST_THEN_CROP,
    "ChineseCLIP": _SHORTEST_THEN_CROP,
    "Bit": _SHORTEST_THEN_CROP,
    "Siglip": {**_EXACT, **_HALVES, "resample": _BICUBIC},
    "Beit": {**_EXACT, **_HALVES, "resample": _BICUBIC},
    "DINOv3ViT": {**_EXACT, **_IMAGENET},
}
"""The settings that each image processor has where a file leaves them out."""

_SHORTEST_WHEN_ONE_NUMBER = {"CLIP", "ChineseCLIP", "Bit", "Siglip"}
"""Those to which one number for ``size`` is the shortest edge (``default_to_square = False``)."""

_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_reduce_labels"}
"""The steps that are known; any other ``do_…`` that is on is refused. Labels are those of masks."""


def preprocessing_from_transformers(data: Mapping[str, Any], config: ViTConfig) -> Preprocessing:
    """What transformers' image processor does with a picture (PIL backend).

    Args:
        data: the content of ``preprocessor_config.json``.
        config: the model's config, whose picture size must be what comes out.

    Raises:
        ImportFailed: for another processor, a setting that has no like here, or another size.
    """
    entries = _with_defaults(data)
    for name, value in data.items():
        if name.startswith("do_") and name not in _STEPS and value:
            raise unsupported(name, value, f"{name}=false")
    for name in ("rescale_offset", "use_square_size"):
        if entries.data.get(name):
            raise unsupported(name, entries.data[name], f"no {name}")
    resize, resize_size = _resize(entries)
    image_size = _crop(entries, resize, resize_size)
    require(
        image_size == config.image_size,
        f"that pictures become {image_size[0]}x{image_size[1]} pixels",
        f"the model's own {config.image_size[0]}x{config.image_size[1]}",
    )
    rescales, normalises = entries.boolean("do_rescale", True), entries.boolean("do_normalize", True)
    return Preprocessing(
        image_size=image_size,
        resize=resize,
        resize_size=resize_size,
        interpolation=_interpolation(entries),
        rescale_factor=entries.number("rescale_factor", 1 / 255) if rescales else 1.0,
        mean=_channels(entries, "image_mean", config) if normalises else (0.0,) * config.in_channels,
        std=_channels(entries, "image_std", config) if normalises else (1.0,) * config.in_channels,
        crop_rounding="down",
    )


def output_size(data: Mapping[str, Any]) -> tuple[int, int]:
    """``(height, width)`` of what an image processor gives.

    Raises:
        ImportFailed: for another processor, or a size that has no like here.
    """
    entries = _with_defaults(data)
    return _crop(entries, *_resize(entries))


def _with_defaults(data: Mapping[str, Any]) -> Fields:
    """The settings, with those that the image processor has where the file leaves them out."""
    family = _family(Fields(data, "preprocessor_config.json"))
    chosen = {name: value for name, value in data.items() if value is not None}
    square = {"default_to_square": family not in _SHORTEST_WHEN_ONE_NUMBER}
    return Fields({**square, **_DEFAULTS[family], **chosen}, "preprocessor_config.json")


def _family(entries: Fields) -> str:
    """Whose defaults hold: a key of :data:`_DEFAULTS`."""
    name = entries.text("image_processor_type", "") or entries.text("feature_extractor_type", "")
    if not name:
        return "ViT"
    match = re.fullmatch(rf"({'|'.join(_DEFAULTS)})(ImageProcessor(Fast|Pil)?|FeatureExtractor)", name)
    if match is None:
        raise ImportFailed(
            f"preprocessor_config.json is for {name}",
            expected=f"the image processor of one of {', '.join(_DEFAULTS)}",
            next_command="save the same settings with transformers.ViTImageProcessor(...).save_pretrained(...)",
        )
    return match[1]


def _resize(entries: Fields) -> tuple[Resize, tuple[int, int]]:
    if not entries.boolean("do_resize", True):
        raise unsupported("do_resize", value=False, expected="do_resize=true: pictures come in any size")
    size = entries.data["size"]
    if isinstance(size, int) and not isinstance(size, bool):
        return ("exact" if entries.boolean("default_to_square") else "shortest_edge"), (size, size)
    sides = entries.fields("size")
    names = {name for name, value in sides.data.items() if value is not None}
    if names == {"height", "width"}:
        return "exact", (sides.integer("height"), sides.integer("width"))
    if names == {"shortest_edge"}:
        return "shortest_edge", (sides.integer("shortest_edge"),) * 2
    raise unsupported("size", size, "height and width, or shortest_edge")


def _crop(entries: Fields, resize: Resize, resize_size: tuple[int, int]) -> tuple[int, int]:
    if entries.boolean("do_center_crop"):
        size = entries.data.get("crop_size")
        if isinstance(size, int) and not isinstance(size, bool):
            return size, size
        sides = entries.fields("crop_size")
        return sides.integer("height"), sides.integer("width")
    if resize != "exact":
        raise unsupported("size", entries.data["size"], "do_center_crop=true with a shortest_edge")
    return resize_size


def _interpolation(entries: Fields) -> str:
    number = entries.integer("resample")
    if not 0 <= number < len(INTERPOLATIONS):
        raise unsupported("resample", number, f"0 to {len(INTERPOLATIONS) - 1}, Pillow's filters")
    return INTERPOLATIONS[number]


def _channels(entries: Fields, name: str, config: ViTConfig) -> tuple[float, ...]:
    return per_channel(name, entries.numbers(name), config.in_channels)
