"""Checkpoints of well-known networks, given with the name of a ViT: they are told by name."""

from __future__ import annotations

import re

import pytest
import torch

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.weights import load_model
from vit_deploy.weights.strangers import STRANGERS
from vit_deploy.weights.torchvision import our_name


@pytest.fixture
def save_state(tmp_path):
    def save(module):
        # Numbers are not looked at before the refusal; one stands for all of a tensor's.
        state = {name: torch.zeros(()).expand(value.shape) for name, value in module.state_dict().items()}
        torch.save({"state_dict": state}, tmp_path / "w.pth")
        return tmp_path / "w.pth"

    return save


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("resnet18", "a ResNet"),
        ("resnext50_32x4d", "a ResNet"),
        ("swin_t", "a Swin Transformer"),
        ("swin_v2_t", "a Swin Transformer"),
        ("convnext_tiny", "a ConvNeXt"),
        ("efficientnet_b0", "an EfficientNet"),
        ("vgg11", "a convolutional network"),
        ("mobilenet_v3_small", "a convolutional network"),
    ],
)
def test_networks_of_torchvisions(save_state, refused, name, word):
    from torchvision import models

    with torch.device("meta"):
        module = models.get_model(name)
    assert f"looks like {word}" in refused(save_state(module), ImportFailed)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("swin_tiny_patch4_window7_224", "a Swin Transformer"),
        ("resnet26d", "a ResNet"),
        ("convnext_atto", "a ConvNeXt"),
        ("efficientnet_b0", "an EfficientNet"),
        ("mixer_s32_224", "an MLP-Mixer"),
        ("cait_xxs24_224", "a CaiT"),
        ("xcit_nano_12_p16_224", "an XCiT"),
        ("pvt_v2_b0", "a pyramid of transformers"),
    ],
)
def test_networks_of_timms(save_state, refused, name, word):
    import timm

    with torch.device("meta"):
        module = timm.create_model(name)
    message = refused(save_state(module), ImportFailed)
    assert word in message


@pytest.mark.parametrize("name", ["BertModel", "GPT2Model", "LlamaModel"])
def test_text_models_of_transformers(save_state, refused, name):
    import transformers

    config = getattr(transformers, name.replace("Model", "Config"))(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=99
    )
    with torch.device("meta"):
        module = getattr(transformers, name)(config)
    assert "looks like a" in refused(save_state(module), ImportFailed)


def test_no_vits_weight_is_a_strangers(state):
    names = [*state, *map(our_name, state), "conv1.weight", "class_embedding", "neck.weight"]
    for pattern, called in STRANGERS:
        assert not any(re.fullmatch(pattern, name) for name in names), called


def test_two_copies_of_a_weight_that_differ(tmp_path, refused):
    """torchvision's old and new names of one layer."""
    from torchvision.models import VisionTransformer

    state = VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=7
    ).state_dict()
    block = "encoder.layers.encoder_layer_0.mlp"
    state[f"{block}.linear_1.weight"] = state[f"{block}.0.weight"] + 1
    torch.save(state, tmp_path / "w.pth")
    assert "'blocks.0.mlp.fc1.weight' twice, with different values" in refused(tmp_path / "w.pth", HostileInput)


def test_two_copies_of_a_weight_that_agree(tmp_path):
    from torchvision.models import VisionTransformer

    state = VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=7
    ).state_dict()
    block = "encoder.layers.encoder_layer_0.mlp"
    state[f"{block}.linear_1.weight"] = state[f"{block}.0.weight"]
    torch.save(state, tmp_path / "w.pth")
    assert load_model(str(tmp_path / "w.pth"), arch="small_test").config.depth == 1
