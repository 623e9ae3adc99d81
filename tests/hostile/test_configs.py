"""Configs that are broken, or beyond reason, and indices of shards that lie."""

from __future__ import annotations

import json

import pytest
import safetensors.torch

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.weights import load_model


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "is no JSON"),
        ('{"architecture": ', "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[1, 2]", "holds a list"),
        ("null", "holds null"),
        ('"vit"', "holds a string"),
        ('{"architecture": 3}', "architecture=3"),
        ('{"architecture": "small_test", "pretrained_cfg": []}', "a list"),
        ('{"architecture": "small_test", "num_classes": "7"}', "num_classes"),
        ('{"architecture": "small_test", "model_args": {"depth": 1e999}}', "depth"),
        ('{"architecture": "small_test", "model_args": {"depth": -1}}', "depth=-1"),
        ('{"architecture": "small_test", "model_args": {"mlp_ratio": NaN}}', "mlp_ratio"),
        ('{"architecture": "small_test", "model_args": {"wings": 2}}', "wings=2"),
        ('{"architecture": "small_test", "pretrained_cfg": {"input_size": [3, 32]}}', "input_size"),
        ('{"model_type": "vit", "architectures": "ViTModel"}', "architectures"),
        ('{"model_type": "vit", "architectures": ["ViTModel"], "hidden_size": 0}', "embed_dim=0"),
        ('{"model_type": "vit", "architectures": ["ViTModel"], "num_attention_heads": 0}', "num_heads=0"),
        ('{"model_type": "vit", "architectures": ["ViTModel"], "patch_size": 0}', "patch_size=0"),
        ('{"model_type": "vit", "architectures": ["ViTModel"], "image_size": [1, 2, 3]}', "image_size"),
    ],
)
def test_broken_config(tmp_path, state, text, word):
    (tmp_path / "config.json").write_text(text)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ImportFailed, match=word) as caught:
        load_model(str(tmp_path))
    assert caught.value.expected


_CLASSIFIER = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}


_TIMM = {"architecture": "small_test"}


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({**_CLASSIFIER, "num_hidden_layers": 10**9}, "depth=1000000000"),
        ({**_CLASSIFIER, "hidden_size": 10**30}, "embed_dim=1000"),
        ({**_CLASSIFIER, "layer_norm_eps": -1.0}, "norm_eps=-1.0"),
        ({**_CLASSIFIER, "layer_norm_eps": 10**400}, "layer_norm_eps=1000"),
        ({**_CLASSIFIER, "id2label": 5}, "'id2label' in config.json holds a number"),
        ({**_CLASSIFIER, "id2label": True}, "'id2label' in config.json holds a truth value"),
        ({"model_type": "\ud800"}, "model_type="),
        ({**_TIMM, "num_classes": 10**30}, "num_classes=1000"),
        ({**_TIMM, "num_classes": -1}, "num_classes=-1"),
        ({**_TIMM, "pretrained_cfg": {"label_names": ["a", "\ud800"]}}, "label_names="),
        ({**_TIMM, "pretrained_cfg": {"crop_pct": 5e-324}}, "crop_pct=5e-324"),
        ({**_TIMM, "model_args": {"mlp_ratio": 1e308}}, "mlp_ratio=1e.308"),
        ({**_TIMM, "model_args": {"mlp_ratio": 1e4}}, "mlp_dim=320000"),
        ({**_TIMM, "model_args": {"mlp_ratio": 4.0, "embed_dim": 10**400}}, "embed_dim=1000"),
        ({**_TIMM, "model_args": {"mlp_ratio": 10**400}}, "mlp_ratio=1000"),
    ],
)
def test_config_beyond_reason(tmp_path, state, config, word):
    (tmp_path / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ImportFailed, match=word) as caught:
        load_model(str(tmp_path))
    assert caught.value.expected
    assert len(str(caught.value)) < 300


def test_more_classes_than_fit():
    with pytest.raises(ImportFailed, match="num_classes=1000000000000"):
        load_model("small_test", num_classes=10**12)


@pytest.fixture
def save_vit(tmp_path):
    """Save a small ViTForImageClassification as transformers does."""
    import transformers

    def write(**kwargs):
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
        config = transformers.ViTConfig(image_size=32, patch_size=8, **sizes, **kwargs)
        transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
        return tmp_path

    return write


@pytest.mark.parametrize("labels", [{"0": "a", "1": "\ud800"}, {"0": "a", "1": 7}])
def test_labels_that_cannot_be_written(save_vit, labels):
    directory = save_vit(num_labels=2)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "id2label": labels}))
    with pytest.raises(ImportFailed, match="says 1="):
        load_model(str(directory))


def test_a_classifier_of_no_classes_is_a_model_without_a_head(save_vit):
    model = load_model(str(save_vit(num_labels=0)))
    assert model.config.num_classes == 0
    assert model.config.default_outputs == ("embedding", "tokens")


def test_a_head_that_the_config_denies(save_vit):
    directory = save_vit(num_labels=2)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "id2label": {}}))
    with pytest.raises(ImportFailed, match="names 0 classes and the head has 2"):
        load_model(str(directory))


def test_config_in_another_encoding(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{\x00}\x00")
    with pytest.raises(ImportFailed, match="is no JSON"):
        load_model(str(tmp_path))


def test_config_without_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "small_test"}')
    with pytest.raises(ImportFailed, match="there are no weights") as caught:
        load_model(str(tmp_path))
    assert "model.safetensors" in caught.value.expected


@pytest.mark.parametrize(
    ("places", "kind", "word"),
    [
        ({"cls_token": "../secret.safetensors"}, HostileInput, "out of its own directory"),
        ({"cls_token": "/etc/passwd"}, HostileInput, "out of its own directory"),
        ({"cls_token": "model-00002.safetensors"}, ImportFailed, "no checkpoint file"),
        ({"cls_tok": "model-00001.safetensors"}, ImportFailed, "where the index says"),
        ({"cls_token": 3}, ImportFailed, "cls_token=3"),
        ([], ImportFailed, "a list"),
    ],
)
def test_index_of_shards_that_lies(tmp_path, state, places, kind, word):
    safetensors.torch.save_file(state, tmp_path / "model-00001.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (tmp_path / "config.json").write_text('{"architecture": "small_test"}')
    with pytest.raises(kind, match=word):
        load_model(str(tmp_path))
