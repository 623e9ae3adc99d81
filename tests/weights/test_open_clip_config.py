"""OpenCLIP's configs and preprocessing: what can be said is said right, the rest is refused by name."""

from __future__ import annotations

import json

import pytest
import torch

from vit_deploy.errors import ImportFailed
from vit_deploy.model.architectures import named_config
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.fields import Fields
from vit_deploy.weights import load_model
from vit_deploy.weights.open_clip.config import preprocessing_of, tower_config

OWN = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16}
TEXT = {"context_length": 8, "vocab_size": 99, "width": 32, "heads": 2, "layers": 1}


@pytest.mark.parametrize(
    ("vision", "word"),
    [
        ({**OWN, "attentional_pool": True}, "CoCa's attentional pooler"),
        ({**OWN, "scaled_cosine_attn": True}, "scaled cosine attention"),
        ({**OWN, "scale_heads": True}, "a scale on each head"),
        ({**OWN, "scale_attn": True}, "a norm after attention"),
        ({**OWN, "pool_type": "none"}, "gives all its tokens"),
        ({**OWN, "patch_size": [8, 16]}, "patches of 8x16"),
        ({**OWN, "wings": 2}, "wings=2"),
        ({**OWN, "act_kwargs": {"inplace": True}}, "act_kwargs"),
        ({**OWN, "norm_kwargs": {"bias": False}}, "norm_kwargs"),
        ({**OWN, "width": 10**400, "mlp_ratio": 4.5}, "width=1000"),
        ({**OWN, "head_width": 0}, "head_width=0"),
        ({**OWN, "layers": [3, 4, 6, 3]}, "is a ResNet"),
        (
            {"timm_model_name": "convnext_base", "timm_proj": "linear"},
            "'convnext_base', which has stages of convolutions",
        ),
        ({"timm_model_name": "vitamin_base_224", "timm_proj": "linear"}, "convolutional stages"),
        ({"timm_model_name": "vit_tiny_patch16_224", "timm_proj": "mlp"}, "an MLP as projection"),
        ({"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "abs_attn"}, "attention pooling over"),
        ({"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": ""}, "gives all its tokens"),
        ({"timm_model_name": "no_such_model", "timm_proj": "linear"}, "no ViT that is known"),
    ],
)
def test_towers_that_cannot_be_said(tmp_path, vision, word):
    document = {"model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    with pytest.raises(ImportFailed, match=word) as caught:
        load_model(str(tmp_path))
    assert caught.value.expected


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"model_cfg": {}}', '{"model_cfg": {"vision_cfg": {"layers": "two"}}}']
)
def test_broken_configs(tmp_path, text):
    (tmp_path / "open_clip_config.json").write_text(text)
    with pytest.raises(ImportFailed):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"resize_mode": "squash"},
        {"interpolation": "bilinear"},
        {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "random"},
        {"mean": 0.5, "std": 0.25},
    ],
)
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_preprocessing_is_open_clips(settings, size):
    from open_clip.transform import image_transform
    from PIL import Image

    transform = image_transform(size, is_train=False, **settings)
    recipe = preprocessing_of(Fields(settings, "preprocess_cfg"), ViTConfig(image_size=size, patch_size=8))
    pixels = torch.randint(0, 256, (90, 141, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    picture = Image.fromarray(pixels.numpy())
    assert torch.allclose(torch.from_numpy(recipe(picture)), transform(picture), rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [{"resize_mode": "longest"}, {"interpolation": "lanczos"}])
def test_preprocessing_that_has_no_like(settings):
    with pytest.raises(ImportFailed, match=next(iter(settings))):
        preprocessing_of(Fields(settings, "preprocess_cfg"), ViTConfig())


def test_the_table_of_names_is_open_clips():
    """`python scripts/other_architectures.py` writes it anew where this fails."""
    import open_clip

    for name in (
        "ViT-B-32",
        "ViT-L-14-336-quickgelu",
        "ViT-bigG-14-CLIPA",
        "ViT-S-16-alt",
        "ViT-SO400M-14-SigLIP",
    ):
        described = Fields(open_clip.get_model_config(name), name)
        assert named_config(name) == tower_config(described), name
