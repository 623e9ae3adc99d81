"""A bare file of transformers' weights, given with an architecture of another family."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.specimens import by_id
from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.weights import load_model


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Load the weights alone of a specimen, with an architecture of its sizes; and the whole directory."""

    def load(specimen, arch):
        directory = by_id(specimen).save(tmp_path / "ein Modell")["reference"]
        whole = load_model(directory)
        own = {name: getattr(whole.config, name) for name in ("embed_dim", "depth", "num_heads", "mlp_dim")}
        sizes = {**own, "patch_size": whole.config.patch_size, "image_size": whole.config.image_size}
        monkeypatch.setitem(NAMED_CONFIGS, "small", replace(NAMED_CONFIGS[arch], **sizes))
        return load_model(f"{directory}/model.safetensors", arch="small", num_classes=0), whole

    return load


@pytest.mark.parametrize(
    ("specimen", "has", "kind"),
    [
        ("transformers/CLIPVisionModel", "a norm before the blocks", "'clip' (quick_gelu)"),
        ("transformers/SiglipVisionModel", "attention pooling", "'siglip' (gelu_tanh)"),
        ("transformers/Dinov2WithRegistersModel", "DINOv2 with registers", "'dinov2_with_registers' (gelu)"),
    ],
)
def test_weights_of_another_family_are_read_as_their_own_and_noted(bare, specimen, has, kind):
    model, whole = bare(specimen, "vit_base_patch16_224")
    assert model.config == whole.config
    (note,) = model.notes
    assert has in note
    assert kind in note


def test_an_activation_that_is_in_doubt_is_noted(bare):
    model, _ = bare("transformers/CLIPVisionModel", "vit_base_patch16_clip_224")
    assert model.config.activation == "gelu"
    (note,) = model.notes
    assert "no weight tells it; transformers' 'clip' has quick_gelu" in note


def test_what_is_clear_is_not_noted(bare):
    model, whole = bare("transformers/CLIPVisionModel", "vit_base_patch16_clip_quickgelu_224")
    assert model.notes == ()
    assert model.config == whole.config
