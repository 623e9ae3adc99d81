"""transformers checkpoints as they come: names of all releases, sizes of processors, and refusals."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from tests.weights.transformers_classes import CASES, FLOAT32_TABLES, agree, save
from vit_deploy.errors import ImportFailed
from vit_deploy.weights import load_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The directory of each case and its module, made once."""
    made = {}

    def make(case):
        if case.id not in made:
            directory = tmp_path_factory.mktemp("saved")
            made[case.id] = directory, save(case, directory)
        return made[case.id]

    return make


def _case_of(name):
    return next(case for case in CASES if case.name == name)


@pytest.fixture
def copied(saved, tmp_path):
    """A directory of a case's checkpoint that a test may change."""

    def copy(name):
        directory, module = saved(_case_of(name))
        for file in directory.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        return tmp_path, module

    return copy


@pytest.fixture
def change_weights():
    """Change the names or tensors of a directory's weights."""

    def change(directory, how):
        state = safetensors.torch.load_file(directory / "model.safetensors")
        safetensors.torch.save_file(how(state), directory / "model.safetensors")

    return change


def _same_weights(one, other):
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def _read(directory):
    return load_model(str(directory)).weights.state_dict()


@pytest.mark.parametrize(
    ("name", "buffers"),
    [
        ("CLIPModel", {"vision_model.embeddings.position_ids": torch.arange(17).unsqueeze(0)}),
        ("SiglipVisionModel", {"vision_model.embeddings.position_ids": torch.arange(16).unsqueeze(0)}),
        (
            "BeitForImageClassification",
            {"beit.encoder.layer.0.attention.attention.relative_position_index": torch.zeros(17, 17).long()},
        ),
    ],
)
def test_buffers_of_older_releases(copied, change_weights, name, buffers):
    directory, _ = copied(name)
    before = _read(directory)
    change_weights(directory, lambda state: {**state, **buffers})
    _same_weights(before, _read(directory))


@pytest.mark.parametrize("name", ["CLIPVisionModel", "SiglipVisionModel"])
@pytest.mark.parametrize("prefix", ["", "vision_model."])
def test_tower_with_and_without_its_prefix(copied, change_weights, name, prefix):
    """Release 5 has the tower at the top; before, it stood in ``vision_model``."""
    directory, _ = copied(name)
    before = _read(directory)
    change_weights(
        directory,
        lambda state: {prefix + key.removeprefix("vision_model."): value for key, value in state.items()},
    )
    _same_weights(before, _read(directory))


def test_early_config_of_clip(copied, edit_json):
    """``vision_config_dict`` holds before ``vision_config``."""
    directory, _ = copied("CLIPModel")
    told = load_model(str(directory)).config
    tower = json.loads((directory / "config.json").read_text())["vision_config"]
    edit_json(directory / "config.json", vision_config_dict=tower, vision_config={"hidden_size": 1})
    assert load_model(str(directory)).config == told


def _with_processor(directory, **settings):
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("name", ["Dinov2Model", "Dinov2WithRegistersModel", "DINOv3ViTModel", "PixioModel"])
@pytest.mark.parametrize("size", [(24, 24), (48, 40)])
def test_size_of_the_image_processor(copied, name, size):
    """transformers resamples the positions to what the processor gives; so is the import."""
    directory, module = copied(name)
    sides = {"height": size[0], "width": size[1]}
    _with_processor(directory, image_processor_type="ViTImageProcessor", size=sides)
    model = load_model(str(directory))
    assert model.config.image_size == model.preprocessing.image_size == size
    assert f"gives {size[0]}x{size[1]}" in model.notes[-1]
    # The positions are resampled in float32 by both.
    agree(model, replace(_case_of(name), bound=FLOAT32_TABLES), module)


def test_size_of_the_image_processor_elsewhere(copied):
    """CLIP's classes do not resample by themselves: what does not fit is refused."""
    directory, _ = copied("CLIPVisionModel")
    _with_processor(directory, image_processor_type="CLIPImageProcessor")
    with pytest.raises(ImportFailed, match="224x224"):
        load_model(str(directory))


def test_processor_of_both_towers(copied):
    directory, _ = copied("CLIPModel")
    processor = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    (directory / "processor_config.json").write_text(json.dumps({"image_processor": processor}))
    preprocessing = load_model(str(directory)).preprocessing
    assert (preprocessing.origin, preprocessing.resize) == ("checkpoint", "shortest_edge")
    assert preprocessing.mean == (0.48145466, 0.4578275, 0.40821073)


def test_labels_stand_at_the_top(copied, edit_json):
    directory, _ = copied("SiglipForImageClassification")
    labels = {str(index): f"kind {index}" for index in range(7)}
    edit_json(directory / "config.json", id2label=labels)
    assert load_model(str(directory)).labels == tuple(labels.values())


def test_siglip_has_image_embeds_and_no_projection(saved):
    config = load_model(str(saved(_case_of("SiglipModel"))[0])).config
    assert (config.image_embeds_dim, config.projection_dim, config.pool) == (64, 0, "map")


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("Dinov2Model", {"hidden_act": "gelu_fast"}, "hidden_act='gelu_fast'"),
        ("Dinov2Model", {"image_size": [32, 48]}, "image_size=[32, 48]"),
        ("Dinov2Model", {"model_type": "vit", "architectures": ["ViTModel"]}, "look like those of 'dinov2'"),
        ("Dinov2Model", {"model_type": "dinov2_with_registers", "architectures": None}, "no register tokens"),
        ("ViTMSNModel", {"model_type": "deit", "architectures": ["DeiTModel"]}, "no distillation token"),
        ("ViTMSNModel", {"model_type": "clip", "architectures": ["CLIPModel"]}, "look like those of 'vit'"),
        ("ViTMSNModel", {"architectures": ["ViTMSNForImageClassification"]}, "no classification head"),
        ("Dinov2Backbone", {"out_features": ["stage1", "stage2"]}, "out_features"),
        ("Dinov2Backbone", {"apply_layernorm": False}, "apply_layernorm=False"),
        ("Dinov2Model", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("ViTMSNModel", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ("DINOv3ViTModel", {"num_register_tokens": 4}, "no register tokens"),
        ("DINOv3ViTModel", {"key_bias": True}, "blocks.0.attn.qkv.bias"),
        ("DINOv3ViTModel", {"rope_theta": 0.0}, "theta"),
        ("Dinov2WithRegistersModel", {"num_register_tokens": 5}, "'reg_token' has shape (1, 3, 64)"),
        ("CLIPModel", {"architectures": ["CLIPTextModel"]}, "CLIPTextModel"),
        ("CLIPModel", {"projection_dim": 24}, "'projection.weight' has shape (20, 64)"),
        ("BeitModel", {"use_shared_relative_position_bias": True}, "use_shared_relative_position_bias"),
        ("BeitModel", {"image_size": [32, 48]}, "image_size=[32, 48]"),
        ("BeitModel", {"layer_scale_init_value": 0}, "ls1.gamma"),
        ("BeitForMaskedImageModeling", {"use_mean_pooling": False}, "use_mean_pooling=False"),
        ("BeitForImageClassification", {"architectures": ["BeitForSemanticSegmentation"]}, "BeitForSemantic"),
        ("SiglipVisionModel", {"vision_use_head": False}, "attn_pool"),
        ("ViTMAEModel", {"model_type": "swin"}, "windowed attention"),
        ("ViTMAEModel", {"model_type": "sam_vision_model"}, "decomposed relative positions"),
        ("ViTMAEModel", {"model_type": "siglip2"}, "NaFlex"),
        ("ViTMAEModel", {"model_type": "videomae"}, "several frames"),
        ("ViTMAEModel", {"model_type": "vitt"}, "nearest: 'vit'"),
    ],
)
def test_refused(copied, edit_json, name, changes, word):
    directory, _ = copied(name)
    edit_json(directory / "config.json", **changes)
    with pytest.raises(ImportFailed, match=re.escape(word)) as caught:
        load_model(str(directory))
    assert caught.value.expected


def test_two_tensors_for_one_place(copied, change_weights):
    directory, _ = copied("IJepaForImageClassification")
    change_weights(directory, lambda state: {**state, "layernorm.weight": torch.ones(64)})
    with pytest.raises(ImportFailed, match=r"are both 'norm\.weight'"):
        load_model(str(directory))


def test_parts_of_different_shapes(copied, change_weights):
    directory, _ = copied("IJepaModel")
    name = "encoder.layer.1.attention.attention.key.weight"
    change_weights(directory, lambda state: {**state, name: torch.ones(60, 64)})
    with pytest.raises(ImportFailed, match=r"query, key and value of 'blocks\.1"):
        load_model(str(directory))
