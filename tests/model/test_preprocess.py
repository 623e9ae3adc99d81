"""Preprocessing: equal to timm's evaluation transform and transformers' image processors."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.preprocess import Preprocessing

BOUND = 1e-6
"""After normalisation; float32 has about 3e-7 of rounding at these magnitudes."""


def _photographs():
    from skimage import data

    images = {
        name: Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket")
    }
    # Odd sizes, in both directions, bring out how halves are rounded.
    images["tall"] = images["coffee"].rotate(90, expand=True).crop((0, 0, 301, 447))
    images["small"] = images["chelsea"].crop((3, 5, 98, 66))
    return images


@pytest.fixture(scope="module")
def photographs():
    """Natural photographs of many sizes."""
    return _photographs()


def _config(size, channels=3):
    return ViTConfig(image_size=size, patch_size=1, in_channels=channels)


@pytest.mark.parametrize(
    ("size", "cfg"),
    [
        ((224, 224), {}),
        ((224, 224), {"crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}),
        ((224, 224), {"crop_pct": 1.0, "interpolation": "bilinear"}),
        ((384, 384), {"crop_pct": 0.95, "interpolation": "lanczos"}),
        ((97, 97), {"crop_pct": 0.875, "interpolation": "nearest"}),
        ((224, 224), {"crop_pct": 0.9, "crop_mode": "squash"}),
        ((160, 208), {"crop_pct": 0.9, "crop_mode": "center"}),
        ((209, 161), {"crop_pct": 0.8, "crop_mode": "squash"}),
    ],
)
def test_equals_timm(photographs, size, cfg):
    from timm.data import create_transform, resolve_data_config

    resolved = resolve_data_config(pretrained_cfg={"input_size": (3, *size), **cfg})
    transform = create_transform(**resolved, is_training=False)
    ours = Preprocessing.from_timm(cfg, _config(size))
    for name, image in photographs.items():
        expected, found = transform(image).numpy(), ours(image)
        assert found.shape == expected.shape == (3, *size)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        assert np.abs(found - expected).max() <= BOUND, name


def test_equals_timm_in_grey(photographs):
    from timm.data import create_transform, resolve_data_config

    cfg = {"input_size": (1, 64, 64), "mean": [0.4], "std": [0.3], "crop_pct": 0.9}
    transform = create_transform(**resolve_data_config(pretrained_cfg=cfg), is_training=False)
    ours = Preprocessing.from_timm(cfg, _config((64, 64), channels=1))
    for image in photographs.values():
        assert np.abs(ours(image) - transform(image.convert("L")).numpy()).max() <= BOUND


def test_default_is_timms_default_for_vit(photographs):
    import timm
    from timm.data import create_transform, resolve_data_config

    cfg = timm.create_model("vit_base_patch16_224", depth=1).pretrained_cfg
    transform = create_transform(**resolve_data_config(pretrained_cfg=cfg), is_training=False)
    ours = Preprocessing.default(ViTConfig())
    assert replace(ours, origin="checkpoint") == Preprocessing.from_timm(cfg, ViTConfig())
    assert ours.origin == "default"
    image = photographs["astronaut"]
    assert np.abs(ours(image) - transform(image).numpy()).max() <= BOUND


@pytest.mark.parametrize(
    ("processor", "size", "settings"),
    [
        ("ViTImageProcessorPil", (224, 224), {}),
        ("ViTImageProcessorPil", (97, 64), {"size": {"height": 97, "width": 64}, "resample": 3}),
        ("ViTImageProcessorPil", (33, 33), {"size": {"height": 33, "width": 33}, "resample": 1}),
        ("DeiTImageProcessorPil", (224, 224), {}),
        ("DeiTImageProcessorPil", (224, 224), {"size": {"shortest_edge": 235}}),
        (
            "DeiTImageProcessorPil",
            (33, 50),
            {"size": {"shortest_edge": 60}, "crop_size": {"height": 33, "width": 50}},
        ),
        ("CLIPImageProcessorPil", (224, 224), {}),
        ("CLIPImageProcessorPil", (336, 336), {"size": {"shortest_edge": 336}, "crop_size": 336}),
        ("ChineseCLIPImageProcessorPil", (224, 224), {}),
        ("BitImageProcessorPil", (224, 224), {"size": {"shortest_edge": 256}}),
        ("SiglipImageProcessorPil", (256, 256), {"size": {"height": 256, "width": 256}}),
        ("BeitImageProcessorPil", (224, 224), {}),
        ("BeitImageProcessorPil", (224, 224), {"size": {"height": 256, "width": 256}, "do_center_crop": True}),
        ("ViTImageProcessorPil", (224, 224), {"do_normalize": False}),
        ("ViTImageProcessorPil", (224, 224), {"do_rescale": False, "image_mean": [10.0] * 3}),
        ("ViTImageProcessorPil", (224, 224), {"rescale_factor": 1 / 127.5, "image_std": [0.2, 0.3, 0.4]}),
    ],
)
def test_equals_transformers(photographs, tmp_path, processor, size, settings):
    import transformers

    theirs = getattr(transformers, processor)(**settings)
    theirs.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "preprocessor_config.json").read_text())
    ours = Preprocessing.from_transformers(written, _config(size))
    for name, image in photographs.items():
        expected, found = theirs(images=image, return_tensors="np")["pixel_values"][0], ours(image)
        assert found.shape == expected.shape == (3, *size)
        scale = max(1.0, float(np.abs(expected).max()) / 4)
        assert np.abs(found - expected).max() <= BOUND * scale, name


def test_equals_transformers_with_the_old_short_form(photographs):
    """As google/vit-base-patch16-224 wrote it before image processors had sides by name."""
    import transformers

    old = {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "image_mean": [0.5] * 3, "resample": 2}
    ours = Preprocessing.from_transformers(old, ViTConfig())
    theirs = transformers.ViTImageProcessorPil()
    image = photographs["coffee"]
    assert np.abs(ours(image) - theirs(images=image, return_tensors="np")["pixel_values"][0]).max() <= BOUND


def test_transformers_torchvision_backend_is_near(photographs):
    """It resamples tensors, not PIL images: within two grey levels, hence not equal."""
    import transformers

    theirs = transformers.ViTImageProcessor(resample=3)
    ours = Preprocessing.from_transformers({"resample": 3}, ViTConfig())
    image = photographs["astronaut"]
    gap = np.abs(ours(image) - theirs(images=image, return_tensors="np")["pixel_values"][0]).max()
    assert gap <= 2 / 127.5 + BOUND


def test_transformers_that_rescales_first_is_within_half_a_level(photographs):
    """DINOv3's processor resizes what it has rescaled: no whole grey levels in between."""
    import transformers

    theirs = transformers.DINOv3ViTImageProcessor()
    ours = Preprocessing.from_transformers({"image_processor_type": "DINOv3ViTImageProcessorFast"}, ViTConfig())
    for image in photographs.values():
        gap = np.abs(ours(image) - theirs(images=image, return_tensors="np")["pixel_values"][0]).max()
        assert gap <= 1.001 / 255 / 0.224


@pytest.mark.parametrize("name", ["CLIP", "Bit"])
def test_one_number_is_the_shortest_edge(name):
    old = {"feature_extractor_type": f"{name}FeatureExtractor", "size": 256, "crop_size": 224}
    ours = Preprocessing.from_transformers(old, ViTConfig())
    assert (ours.resize, ours.resize_size, ours.image_size) == ("shortest_edge", (256, 256), (224, 224))


@pytest.mark.parametrize(
    ("cfg", "word"),
    [
        ({"crop_mode": "border"}, "crop_mode='border'"),
        ({"crop_mode": "diagonal"}, "crop_mode"),
        ({"crop_border_pixels": 4}, "crop_border_pixels"),
        ({"crop_pct": 1.25}, "crop_pct"),
        ({"crop_pct": 0}, "crop_pct"),
        ({"crop_pct": "0.9"}, "crop_pct"),
        ({"crop_pct": 5e-324}, "crop_pct=5e-324"),
        ({"crop_pct": 1e-9}, "crop_pct=1e-09"),
        ({"crop_pct": 0.01}, "resize_size=.22400, 22400"),
        ({"crop_pct": 10**400}, "crop_pct=1000"),
        ({"interpolation": "\ud800"}, "interpolation"),
        ({"interpolation": "random"}, "interpolation"),
        ({"mean": [0.1, 0.2]}, "mean"),
        ({"std": [0.5, 0.5, 0.0]}, "std"),
        ({"mean": [0.5, float("nan"), 0.5]}, "mean"),
    ],
)
def test_refused_of_timm(cfg, word):
    with pytest.raises(ImportFailed, match=word):
        Preprocessing.from_timm(cfg, ViTConfig())


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"do_pad": True}, "do_pad"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"do_resize": False}, "do_resize"),
        ({"rescale_offset": True}, "rescale_offset"),
        ({"size": {"longest_edge": 224}}, "longest_edge"),
        ({"size": {"shortest_edge": 224}}, "do_center_crop"),
        ({"size": {"shortest_edge": 200}, "do_center_crop": True, "crop_size": 224}, "a crop of"),
        ({"size": {"height": 256, "width": 256}}, "256x256"),
        ({"size": {"shortest_edge": 10**400}, "do_center_crop": True, "crop_size": 224}, "resize_size=.1000"),
        ({"size": {"shortest_edge": 9_460}, "do_center_crop": True, "crop_size": 224}, "resize_size=.9460"),
        ({"rescale_factor": 10**400}, "rescale_factor"),
        ({"resample": 9}, "resample"),
        ({"image_processor_type": "ConvNextImageProcessor"}, "ConvNextImageProcessor"),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"size": "big"}, "'size'"),
    ],
)
def test_refused_of_transformers(settings, word):
    with pytest.raises(ImportFailed, match=word):
        Preprocessing.from_transformers(settings, ViTConfig())


def test_grey_takes_equal_numbers_for_three_channels():
    ours = Preprocessing.from_timm({"mean": [0.5] * 3, "std": [0.25] * 3}, _config((8, 8), channels=1))
    assert (ours.mean, ours.std, ours.channels) == ((0.5,), (0.25,), 1)
    with pytest.raises(ImportFailed, match="for 1 channels"):
        Preprocessing.from_timm({}, _config((8, 8), channels=1))


def test_normalise_is_the_last_step(photographs):
    ours = Preprocessing.default(ViTConfig())
    image = photographs["coffee"]
    pixels = np.asarray(ours.cut(image))
    assert pixels.shape == (224, 224, 3)
    assert np.array_equal(ours.normalise(pixels), ours(image))
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = Preprocessing.default(_config((16, 16), channels=1)).normalise(values)
    assert grey.shape == (1, 16, 16)
    assert np.abs(grey[0] - (values / 255 - 0.5) / 0.5).max() <= BOUND


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 1), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)],
    ids=["float", "grey", "batch"],
)
def test_normalise_refuses(pixels):
    with pytest.raises(ImportFailed, match="the pixels are"):
        Preprocessing.default(ViTConfig()).normalise(pixels)


def test_a_sliver_is_not_blown_up():
    with pytest.raises(HostileInput, match="would be resized"):
        Preprocessing.default(ViTConfig())(Image.new("RGB", (60_000, 1)))


def test_a_long_picture_is_not_blown_up_to_an_area_beyond_memory():
    wide = {"size": {"shortest_edge": 9_000}, "do_center_crop": True, "crop_size": 224}
    with pytest.raises(HostileInput, match="resized to 9000x63000"):
        Preprocessing.from_transformers(wide, ViTConfig())(Image.new("RGB", (7, 1)))


def test_unknown_fields_are_refused():
    data = Preprocessing.default(ViTConfig()).to_dict()
    with pytest.raises(ImportFailed, match="gamma"):
        Preprocessing.from_dict({**data, "gamma": 2})
    del data["resize"]
    with pytest.raises(ImportFailed, match="resize"):
        Preprocessing.from_dict(data)


_sides = st.integers(1, 600)
_finite = st.floats(-10, 10)


@st.composite
def _preprocessings(draw):
    height, width = draw(_sides), draw(_sides)
    resize = draw(st.sampled_from(["exact", "shortest_edge", "cover"]))
    spare = draw(st.integers(0, 50))
    outer = (height + spare, width + spare) if resize != "shortest_edge" else (max(height, width) + spare,) * 2
    channels = draw(st.sampled_from([1, 3]))
    return Preprocessing(
        image_size=(height, width),
        resize=resize,
        resize_size=outer,
        interpolation=draw(st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"])),
        mean=tuple(draw(st.lists(_finite, min_size=channels, max_size=channels))),
        std=tuple(draw(st.lists(st.floats(0.01, 5), min_size=channels, max_size=channels))),
        rescale_factor=draw(st.floats(1e-4, 2)),
        crop_rounding=draw(st.sampled_from(["even", "down"])),
        origin=draw(st.sampled_from(["checkpoint", "default"])),
    )


@given(_preprocessings())
def test_to_dict_and_back(preprocessing):
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@given(_preprocessings(), st.integers(1, 90), st.integers(1, 90))
def test_any_picture_comes_out_at_the_size(preprocessing, height, width):
    """No padding is ever needed, whatever the aspect ratio."""
    resized = preprocessing.resized(height, width)
    assert all(outer >= inner for outer, inner in zip(resized, preprocessing.image_size, strict=True))
