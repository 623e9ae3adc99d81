"""A bundle as a source, read through its manifest."""

from __future__ import annotations

import json

import pytest
import torch

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.weights import load_model
from vit_deploy.weights.tensors import write_safetensors


@pytest.fixture
def bundle(tmp_path, small_model):
    """A directory with what a manifest says of a model."""
    directory = tmp_path / "bündle with spaces"
    (directory / "weights").mkdir(parents=True)
    with (directory / "weights" / "w.safetensors").open("wb") as file:
        sha256 = write_safetensors(small_model.weights, file)
    record = {
        "config": small_model.config.to_dict(),
        "preprocessing": small_model.preprocessing.to_dict(),
        "labels": [f"kind {index}" for index in range(7)],
        "source": {"kind": "timm", "name": "of/somebody", "sha256": "0" * 64},
        "weights": {"name": "weights/w.safetensors", "sha256": sha256, "bytes": 1},
    }
    (directory / "manifest.json").write_text(json.dumps({"schema_version": 1, "model": record}))
    return directory


def _edit(bundle, path, value):
    data = json.loads((bundle / "manifest.json").read_text())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (bundle / "manifest.json").write_text(json.dumps(data))


def test_bundle_is_the_model(bundle, small_model):
    model = load_model(str(bundle))
    assert model.config == small_model.config
    assert model.preprocessing == small_model.preprocessing
    assert model.labels[2] == "kind 2"
    assert (model.source.kind, model.source.name) == ("timm", "of/somebody")
    for name, tensor in small_model.weights.items():
        assert torch.equal(model.weights[name].read(), tensor.read())


def test_changed_weights_are_refused(bundle):
    path = bundle / "weights" / "w.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(HostileInput, match="was changed"):
        load_model(str(bundle))


@pytest.mark.parametrize("name", ["../w.safetensors", "/etc/passwd", "", "a\\b", "weights/../../w.safetensors"])
def test_weights_outside_are_refused(bundle, name):
    _edit(bundle, ("model", "weights", "name"), name)
    with pytest.raises(HostileInput, match="inside the bundle"):
        load_model(str(bundle))


def test_missing_weights(bundle):
    (bundle / "weights" / "w.safetensors").unlink()
    with pytest.raises(HostileInput, match="missing"):
        load_model(str(bundle))


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("model",), None, "'model'"),
        (("model", "config"), [], "a list"),
        (("model", "config", "depth"), "three", "wrong type"),
        (("model", "config", "wings"), 2, "wings"),
        (("model", "preprocessing", "mean"), "grey", "mean"),
        (("model", "source"), {"kind": "timm"}, "'name'"),
        (("model", "weights"), {}, "'name'"),
        (("model", "labels"), [1, 2], "labels"),
        (("model", "labels"), ["a"], "1 labels for 7"),
    ],
)
def test_broken_manifest(bundle, path, value, word):
    _edit(bundle, path, value)
    with pytest.raises((ImportFailed, HostileInput), match=word):
        load_model(str(bundle))
