"""Checkpoints that are broken, or that mean harm: refused in words, with exit code 6."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile

import pytest
import safetensors.torch
import torch

from vit_deploy.errors import HostileInput, ImportFailed, VitDeployError
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


def _refused(path, kind=VitDeployError, **kwargs):
    with pytest.raises(kind) as caught:
        load_model(str(path), arch="small_test", **kwargs)
    assert caught.value.exit_code == 6
    assert caught.value.expected
    return str(caught.value)


def test_the_whole_file_is_accepted(save, state):
    """What the others break."""
    assert load_model(str(save(state)), arch="small_test").config == SMALL


def test_missing_file(tmp_path):
    for name in ("none.safetensors", "none.pth"):
        assert "no checkpoint file" in _refused(tmp_path / name, ImportFailed)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, 0.3, 0.7, 0.99, -1])
def test_truncated(save, state, keep):
    path = save(state)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)] if isinstance(keep, float) else data[:keep])
    message = _refused(path, HostileInput)
    assert str(path) in message
    assert "copy or download" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.safetensors", b"these are not the weights you are looking for"),
        ("w.pth", b"these are not the weights you are looking for"),
        ("w.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 346284714\n"),
        ("w.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 346284714\n"),
        ("w.pt", b"\x80\x02}q\x00."),
        ("w.safetensors", struct.pack("<Q", 2**63 - 1) + b"{}"),
        ("w.safetensors", struct.pack("<Q", 100_000_000) + b"{" * 64),
        ("w.safetensors", struct.pack("<Q", 2) + b"[]"),
        ("w.safetensors", struct.pack("<Q", 8) + b"\xff" * 8),
    ],
    ids=["text", "text.pth", "lfs.bin", "lfs", "emptydict", "hugeheader", "longheader", "list", "noutf8"],
)
def test_wrong_content(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    _refused(path)


def _safetensors(header, data=b""):
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]},
        {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
    ],
)
def test_header_that_lies(tmp_path, entry):
    path = tmp_path / "w.safetensors"
    path.write_bytes(_safetensors({"cls_token": entry}, b"\0" * 8))
    assert "no whole safetensors file" in _refused(path, HostileInput)


def test_a_zip_of_something(tmp_path):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday/photo.txt", "hello")
    assert "no whole PyTorch checkpoint" in _refused(path, HostileInput)


class _Code:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch '{self.marker}'",))


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "protocol5"])
def test_code_in_a_pickle_is_never_run(tmp_path, state, form):
    marker, path = tmp_path / "marker", tmp_path / "w.pth"
    payload = {"model": state, "extra": _Code(marker)}
    if form == "zip":
        torch.save(payload, path)
    elif form == "legacy":
        torch.save(payload, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"extra": _Code(marker)}, protocol=2 if form == "pickle" else 5))
    message = _refused(path, HostileInput)
    assert not marker.exists()
    if form != "protocol5":  # torch does not read that protocol far enough to say what is in it
        assert "holds more than tensors" in message
    # The payload itself works: without the guard, the marker would have appeared.
    pickle.loads(pickle.dumps(_Code(marker)))
    assert marker.exists()


def test_code_in_a_directory_is_never_run(tmp_path, state):
    marker = tmp_path / "marker"
    torch.save({**state, "extra": _Code(marker)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "small_test", "num_classes": 7}))
    with pytest.raises(HostileInput, match="holds more than tensors"):
        load_model(str(tmp_path))
    assert not marker.exists()


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, torch.ones(2), {"model": {}}])
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    assert "no state dict" in _refused(tmp_path / "w.pth", ImportFailed)


@pytest.mark.parametrize(
    "tensor", [torch.ones(2, device="meta"), torch.eye(2).to_sparse()], ids=["meta", "sparse"]
)
def test_tensors_without_plain_data(tmp_path, state, tensor):
    torch.save({**state, "extra": tensor}, tmp_path / "w.pth")
    assert "'extra'" in _refused(tmp_path / "w.pth", ImportFailed)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_no_floating_weights(save, state, dtype):
    state["blocks.0.attn.qkv.weight"] = state["blocks.0.attn.qkv.weight"].to(dtype)
    message = _refused(save(state), ImportFailed)
    assert "'blocks.0.attn.qkv.weight'" in message
    assert "float32" in message


def test_missing_and_unexpected_keys_show_the_nearest(save, state):
    state["blocks.1.mlp.fc_2.weight"] = state.pop("blocks.1.mlp.fc2.weight")
    message = _refused(save(state), ImportFailed)
    assert "1 missing ('blocks.1.mlp.fc2.weight', nearest: 'blocks.1.mlp.fc_2.weight')" in message
    assert "1 unexpected ('blocks.1.mlp.fc_2.weight', nearest: 'blocks.1.mlp.fc2.weight')" in message


def test_no_head(save, state):
    del state["head.weight"], state["head.bias"]
    path = save(state)
    assert "'head.weight'" in _refused(path, ImportFailed)
    assert load_model(str(path), arch="small_test", num_classes=0).config.num_classes == 0


def test_weights_of_something_else(save):
    message = _refused(save({"conv1.weight": torch.ones(3, 3), "fc.bias": torch.ones(3)}), ImportFailed)
    assert "unexpected ('conv1.weight'" in message
    assert "missing" in message


def test_wrong_number_of_classes(save, state):
    message = _refused(save(state), ImportFailed, num_classes=1000)
    assert "has 7 classes" in message
    assert "expected: 1000" in message


def test_head_and_bias_that_disagree(save, state):
    state["head.bias"] = torch.zeros(6)
    assert "'head.bias' has shape (6,)" in _refused(save(state), ImportFailed)


def test_positions_that_do_not_fit(save, state):
    state["pos_embed"] = torch.zeros(1, 26, 32)
    message = _refused(save(state), ImportFailed)
    assert "'pos_embed' has shape (1, 26, 32)" in message
    assert "(1, 17, 32)" in message
    assert "not resampled" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_not_finite(save, state, value, dtype):
    state["norm.bias"] = state["norm.bias"].to(dtype)
    state["norm.bias"][3] = value
    path = save(state)
    message = _refused(path, HostileInput)
    assert "'norm.bias' holds 1 NaN or Inf of 32" in message
    assert "--allow-nonfinite" in message
    model = load_model(str(path), arch="small_test", allow_nonfinite=True)
    assert not model.weights["norm.bias"].read().isfinite().all()


def test_opposite_infinities_do_not_cancel(save, state):
    state["norm.bias"][0], state["norm.bias"][1] = float("inf"), -float("inf")
    assert "holds 2 NaN or Inf" in _refused(save(state), HostileInput)


def test_large_finite_weights_whose_sum_overflows_are_fine(save, state):
    state["norm.bias"][:] = 3e38
    assert load_model(str(save(state)), arch="small_test").config == SMALL


def test_float64_beyond_float32(save, state):
    state["norm.bias"] = torch.full((32,), 1e300, dtype=torch.float64)
    assert "holds 32 NaN or Inf" in _refused(save(state), HostileInput)


def test_another_ending(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"\x89HDF")
    assert "does not end like a checkpoint" in _refused(tmp_path / "w.h5", ImportFailed)


def test_a_folder_named_like_a_file(tmp_path):
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(ImportFailed, match="it holds nothing"):
        load_model(str(tmp_path / "w.safetensors"))
    with pytest.raises(ImportFailed, match="a folder"):
        load_model("small_test", weights=tmp_path / "w.safetensors")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything: run the tests as another user")
def test_unreadable(save, state):
    path = save(state)
    path.chmod(0)
    assert "may not be read" in _refused(path, ImportFailed)


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


@pytest.mark.parametrize("labels", [{"0": "a", "1": "\ud800"}, {"0": "a", "1": 7}])
def test_labels_that_cannot_be_written(save_vit, labels):
    directory = save_vit(num_labels=2)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "id2label": labels}))
    with pytest.raises(ImportFailed, match="says 1="):
        load_model(str(directory))


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


def test_a_dict_that_holds_itself(tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "w.pth")
    assert "or in itself" in _refused(tmp_path / "w.pth", HostileInput)


@pytest.mark.parametrize(("raw", "average"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_the_moving_average_is_read_only_where_it_stands_alone(tmp_path, state, raw, average):
    averaged = {name: value + 1 for name, value in state.items()}
    for content, expected in [({average: averaged, raw: state}, state), ({average: averaged}, averaged)]:
        torch.save(content, tmp_path / "w.pth")
        model = load_model(str(tmp_path / "w.pth"), arch="small_test")
        assert torch.equal(model.weights["cls_token"].read(), expected["cls_token"])


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
