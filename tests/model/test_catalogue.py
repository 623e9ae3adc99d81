from __future__ import annotations

import json

import pytest

from vit_deploy.model import catalogue
from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.model.catalogue import PRETRAINED_FILE
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.describe import parts_in_words
from vit_deploy.model.rotary_config import RotaryConfig


def test_weights_are_of_architectures_that_are_named():
    table = json.loads(PRETRAINED_FILE.read_text(encoding="utf-8"))
    assert set(table) <= set(NAMED_CONFIGS)
    assert all(hub.count("/") == 1 for tags in table.values() for hub in tags.values())


def test_the_table_of_weights_is_timms():
    """What timm has added since is a reason to run scripts/pretrained_names.py again, not to fail."""
    import timm

    known = set(timm.list_pretrained())
    for entry in catalogue.search(""):
        if entry.source == "timm":
            assert {f"{entry.name}.{tag}" for tag in entry.pretrained} <= known


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ViTConfig(), ()),
        (ViTConfig(num_registers=4, layer_scale=True), ("4 registers", "LayerScale")),
        (ViTConfig(gated_mlp=True, activation="silu"), ("SwiGLU",)),
        (ViTConfig(gated_mlp=True), ("gated GELU",)),
        (ViTConfig(activation="quick_gelu", pre_norm=True), ("pre-norm", "QuickGELU")),
        (ViTConfig(class_token=False, pool="map", num_classes=0), ("attention pooling",)),
        (ViTConfig(class_token=False, pool="avg"), ("no class token", "mean pooling")),
        (ViTConfig(rotary=RotaryConfig(), positions="none"), ("no learned positions", "RoPE")),
        (ViTConfig(rotary=RotaryConfig(learned=True)), ("learned RoPE",)),
        (ViTConfig(projection_dim=512), ("projection to 512",)),
    ],
)
def test_parts_are_said_in_words(config: ViTConfig, words: tuple[str, ...]):
    assert parts_in_words(config) == words
