"""A small architecture, weights that fit it, and what every refusal must be."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from vit_deploy.errors import VitDeployError
from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.model.config import ViTConfig
from vit_deploy.weights import load_model
from vit_deploy.weights.random import random_model

SMALL = ViTConfig(
    image_size=(32, 32), patch_size=8, embed_dim=32, depth=2, num_heads=4, mlp_dim=64, num_classes=7
)


@pytest.fixture(autouse=True)
def arch(monkeypatch):
    """The name of a small architecture."""
    monkeypatch.setitem(NAMED_CONFIGS, "small_test", SMALL)
    return "small_test"


@pytest.fixture
def small():
    """Its config."""
    return SMALL


@pytest.fixture
def state():
    """A state dict that fits it."""
    return {name: value.clone() for name, value in random_model(SMALL, "small").weights.state_dict().items()}


@pytest.fixture(params=["safetensors", "pth"])
def save(request, tmp_path):
    """Save a state dict in either kind of file."""

    def write(state):
        path = tmp_path / f"w.{request.param}"
        if request.param == "safetensors":
            safetensors.torch.save_file(state, path)
        else:
            torch.save(state, path)
        return path

    return write


@pytest.fixture
def refused():
    """Load a file that must be refused, and give the message."""

    def load(path, kind=VitDeployError, **kwargs):
        with pytest.raises(kind) as caught:
            load_model(str(path), **{"arch": "small_test", **kwargs})
        assert caught.value.exit_code == 6
        assert caught.value.expected
        return str(caught.value)

    return load
