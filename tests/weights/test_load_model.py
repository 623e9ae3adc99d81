"""Which source a reference goes to, and what does not go together."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.weights import load_model


def test_unknown_name_lists_the_nearest():
    with pytest.raises(UsageFailed, match="did you mean 'vit_base_patch16_224'"):
        load_model("vit_base_patch16_2244")


@pytest.mark.parametrize(
    ("reference", "word"),
    [
        ("/no/such/place", "nothing at"),
        ("./nothing", "nothing at"),
        ("google/vit-base-patch16-224", "hf-hub:google/vit-base-patch16-224"),
        ("weights.pth", "no checkpoint file"),
    ],
)
def test_nothing_there(reference, word):
    with pytest.raises(ImportFailed, match=word):
        load_model(reference, arch="vit_tiny_patch16_224" if reference.endswith("pth") else "")


def test_a_bare_file_needs_its_architecture(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, path)
    with pytest.raises(UsageFailed, match="--arch"):
        load_model(str(path))
    with pytest.raises(UsageFailed, match="unknown architecture"):
        load_model(str(path), arch="vit_enormous")
    with pytest.raises(UsageFailed, match="one architecture"):
        load_model("vit_tiny_patch16_224", arch="vit_base_patch16_224", weights=path)
    with pytest.raises(UsageFailed, match="one architecture"):
        load_model("vit_tiny_patch16_224", arch="vit_base_patch16_224")


@pytest.mark.parametrize("flags", [{"arch": "vit_tiny_patch16_224"}, {"weights": "x.safetensors"}])
def test_a_directory_describes_itself(save_timm, flags):
    directory, _ = save_timm()
    with pytest.raises(UsageFailed, match=f"--{next(iter(flags))}"):
        load_model(str(directory), **flags)


def test_a_directory_without_a_checkpoint(tmp_path):
    with pytest.raises(ImportFailed, match="it holds nothing"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ImportFailed, match="names neither an architecture nor a model_type"):
        load_model(str(tmp_path))


def test_a_directory_named_like_an_architecture_is_the_directory(tmp_path, monkeypatch):
    (tmp_path / "vit_tiny_patch16_224").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImportFailed, match="it holds nothing"):
        load_model("vit_tiny_patch16_224")


def test_number_of_classes_is_the_checkpoints(save_timm):
    directory, _ = save_timm()
    assert load_model(str(directory), num_classes=7).config.num_classes == 7
    with pytest.raises(ImportFailed, match="has 7 classes"):
        load_model(str(directory), num_classes=10)


def test_nothing_named():
    with pytest.raises(UsageFailed, match="no model is named"):
        load_model("")


def test_paths_with_spaces_and_unicode(save_timm, tmp_path):
    directory, _ = save_timm()
    moved = directory.rename(tmp_path / "modèles à moi ☃")
    model = load_model(str(moved))
    assert model.config.num_classes == 7
    assert str(tmp_path) not in repr(model.source)


def test_a_file_and_its_architecture_are_enough(tmp_path):
    from safetensors.torch import save_file

    from vit_deploy.weights.random import random_model

    config = load_model("vit_tiny_patch16_224").config
    save_file(random_model(config, "tiny", seed=4).eager().state_dict(), tmp_path / "w.safetensors")
    model = load_model("", arch="vit_tiny_patch16_224", weights=tmp_path / "w.safetensors")
    assert model.config == config
    assert model.source.kind == "timm"
