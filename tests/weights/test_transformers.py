"""transformers checkpoints: equal to transformers' own forward, or refused with the reason."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from vit_deploy.errors import ImportFailed
from vit_deploy.weights import load_model

BOUND = 1e-10


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("ViTForImageClassification", {}),
        ("ViTForImageClassification", {"qkv_bias": False, "layer_norm_eps": 1e-3, "num_channels": 1}),
        ("ViTForImageClassification", {"image_size": [32, 48], "patch_size": [8, 8]}),
        ("DeiTForImageClassification", {}),
        ("DeiTForImageClassificationWithTeacher", {}),
    ],
)
def test_classifier_equal(save_transformers, relative_error, run64, name, kwargs):
    directory, module = save_transformers(name, **kwargs)
    model = load_model(str(directory))
    pixels = torch.randn(2, model.config.in_channels, *model.config.image_size, dtype=torch.float64)
    found = run64(model, pixels)
    with torch.inference_mode():
        theirs = _in_float64(module)(pixels, output_hidden_states=True)
        base = module.base_model(pixels).last_hidden_state
    assert relative_error(found["logits"], theirs.logits) <= BOUND
    assert relative_error(found["tokens"], base) <= BOUND
    assert relative_error(found["embedding"], base[:, 0]) <= BOUND
    assert model.source.kind == "transformers"
    assert model.labels == ()
    assert model.config.norm_eps == kwargs.get("layer_norm_eps", 1e-12)


def _in_float64(module):
    # In eager attention, transformers computes its softmax in float32 whatever the model's dtype.
    module.set_attn_implementation("sdpa")
    return module.double()


@pytest.mark.parametrize("name", ["ViTModel", "DeiTModel"])
@pytest.mark.parametrize("pooler", [True, False])
@pytest.mark.parametrize("pooler_output_size", [48, 20])
def test_base_model_equal(save_transformers, relative_error, run64, name, pooler, pooler_output_size):
    directory, module = save_transformers(
        name, options={"add_pooling_layer": pooler}, pooler_output_size=pooler_output_size
    )
    model = load_model(str(directory))
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    found = run64(model, pixels)
    with torch.inference_mode():
        theirs = _in_float64(module)(pixels)
    assert relative_error(found["tokens"], theirs.last_hidden_state) <= BOUND
    expected = theirs.pooler_output if pooler else theirs.last_hidden_state[:, 0]
    assert relative_error(found["embedding"], expected) <= BOUND
    assert model.config.representation_size == (pooler_output_size if pooler else 0)
    assert model.config.default_outputs == ("embedding", "tokens")


def _read(directory):
    # Read at once: the tests write over the files that lazy weights would read later.
    return load_model(str(directory)).weights.state_dict()


def _same_weights(one, other):
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_shards_are_one_checkpoint(save_transformers, tmp_path):
    directory, module = save_transformers("DeiTModel")
    whole = load_model(str(directory))
    module.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    sharded = load_model(str(tmp_path / "shards"))
    _same_weights(whole.weights.state_dict(), sharded.weights.state_dict())
    assert whole.source.sha256 != sharded.source.sha256 == load_model(str(tmp_path / "shards")).source.sha256


def test_pickled_weights(save_transformers):
    directory, _ = save_transformers("ViTForImageClassification")
    safe = _read(directory)
    state = safetensors.torch.load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    torch.save(state, directory / "pytorch_model.bin")
    _same_weights(safe, _read(directory))


def test_names_in_memory_are_read_too(save_transformers, tmp_path):
    """Release 5 writes the old names, and names its modules anew; both sets are read."""
    directory, module = save_transformers("ViTForImageClassification")
    on_disk = _read(directory)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    assert "vit.layers.0.attention.q_proj.weight" in state
    written = safetensors.torch.load_file(directory / "model.safetensors")
    assert "vit.encoder.layer.0.attention.attention.query.weight" in written
    safetensors.torch.save_file(state, directory / "model.safetensors")
    _same_weights(on_disk, _read(directory))


def test_labels(save_transformers):
    labels = {index: f"kind {index}" for index in range(7)}
    directory, _ = save_transformers("ViTForImageClassification", id2label=labels)
    assert load_model(str(directory)).labels == tuple(labels.values())


def test_head_of_another_size_than_the_labels(save_transformers, edit_json):
    directory, _ = save_transformers("ViTForImageClassification")
    edit_json(directory / "config.json", id2label={"0": "a", "1": "b"})
    with pytest.raises(ImportFailed, match="names 2 classes and the head has 7"):
        load_model(str(directory))


def test_without_architectures_the_weights_say(save_transformers, edit_json):
    directory, _ = save_transformers("DeiTForImageClassificationWithTeacher")
    told = load_model(str(directory))
    edit_json(directory / "config.json", architectures=None)
    assert load_model(str(directory)).config == told.config


def test_weights_without_use_are_left_out(save_transformers):
    directory, _ = save_transformers("ViTForImageClassification")
    before = _read(directory)
    state = safetensors.torch.load_file(directory / "model.safetensors")
    state["vit.pooler.dense.weight"], state["vit.pooler.dense.bias"] = torch.ones(48, 48), torch.ones(48)
    state["vit.embeddings.mask_token"] = torch.zeros(1, 1, 48)
    safetensors.torch.save_file(state, directory / "model.safetensors")
    _same_weights(before, _read(directory))


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("ViTForImageClassification", {"hidden_act": "gelu_fast"}, "hidden_act='gelu_fast'"),
        ("ViTForImageClassification", {"hidden_act": "mish"}, "mish"),
        ("ViTModel", {"pooler_act": "relu"}, "pooler_act"),
        ("ViTModel", {"model_type": "dinov2"}, "dinov2"),
        ("ViTModel", {"architectures": ["ViTForMaskedImageModeling"]}, "ViTForMaskedImageModeling"),
        ("ViTModel", {"auto_map": {"AutoModel": "code.Model"}}, "auto_map"),
        ("ViTModel", {"patch_size": [8, 4]}, "patch_size"),
        ("ViTModel", {"head_dim": 10}, "head_dim"),
        ("ViTModel", {"hidden_size": "48"}, "hidden_size"),
        ("ViTModel", {"qkv_bias": 1}, "qkv_bias"),
        ("ViTModel", {"num_attention_heads": 5}, "num_heads=5"),
        ("ViTModel", {"num_hidden_layers": 3}, "blocks.2"),
        ("ViTModel", {"num_hidden_layers": 0}, "depth=0"),
        ("ViTForImageClassification", {"image_size": 64}, "'pos_embed' has shape"),
        ("ViTForImageClassification", {"layer_norm_eps": "small"}, "layer_norm_eps"),
    ],
)
def test_refused(save_transformers, edit_json, name, changes, word):
    directory, _ = save_transformers(name)
    edit_json(directory / "config.json", **changes)
    with pytest.raises(ImportFailed, match=re.escape(word)) as caught:
        load_model(str(directory))
    assert caught.value.expected


@pytest.mark.parametrize(
    "name", ["ViTForImageClassification", "DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"]
)
def test_bare_file(save_transformers, small_arch, relative_error, run64, name):
    """transformers' names in a file with --arch are recognised by themselves."""
    directory, module = save_transformers(name)
    model = load_model(str(directory / "model.safetensors"), arch=small_arch)
    pixels = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        expected = _in_float64(module)(pixels).logits
    assert relative_error(run64(model, pixels)["logits"], expected) <= BOUND
    assert model.source.kind == "transformers"


def test_bare_file_without_head(save_transformers, small_arch):
    directory, _ = save_transformers("ViTModel")
    file = str(directory / "model.safetensors")
    with pytest.raises(ImportFailed, match="no classification head"):
        load_model(file, arch=small_arch)
    model = load_model(file, arch=small_arch, num_classes=0)
    assert (model.config.num_classes, model.config.representation_size) == (0, 48)


def test_preprocessor_comes_along(save_transformers):
    directory, _ = save_transformers("ViTForImageClassification")
    assert load_model(str(directory)).preprocessing.origin == "default"
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 3}
    Path(directory / "preprocessor_config.json").write_text(json.dumps(settings))
    preprocessing = load_model(str(directory)).preprocessing
    assert preprocessing.origin == "checkpoint"
    assert (preprocessing.resize, preprocessing.interpolation) == ("exact", "bicubic")
