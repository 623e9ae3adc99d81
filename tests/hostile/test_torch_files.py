"""Files of torch.save that are broken, hold code, or nest without end."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import zipfile

import pytest
import torch

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.weights import load_model


def test_a_zip_of_something(refused, tmp_path):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday/photo.txt", "hello")
    assert "no whole PyTorch checkpoint" in refused(path, HostileInput)


class _Code:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch '{self.marker}'",))


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "protocol5"])
def test_code_in_a_pickle_is_never_run(refused, tmp_path, state, form):
    marker, path = tmp_path / "marker", tmp_path / "w.pth"
    payload = {"model": state, "extra": _Code(marker)}
    if form == "zip":
        torch.save(payload, path)
    elif form == "legacy":
        torch.save(payload, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"extra": _Code(marker)}, protocol=2 if form == "pickle" else 5))
    message = refused(path, HostileInput)
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
def test_no_state_dict(refused, tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    assert "no state dict" in refused(tmp_path / "w.pth", ImportFailed)


@pytest.mark.parametrize(
    "tensor", [torch.ones(2, device="meta"), torch.eye(2).to_sparse()], ids=["meta", "sparse"]
)
def test_tensors_without_plain_data(refused, tmp_path, state, tensor):
    torch.save({**state, "extra": tensor}, tmp_path / "w.pth")
    assert "'extra'" in refused(tmp_path / "w.pth", ImportFailed)


def test_a_dict_that_holds_itself(refused, tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "w.pth")
    assert "or in itself" in refused(tmp_path / "w.pth", HostileInput)


@pytest.mark.parametrize(("raw", "average"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_the_moving_average_is_read_only_where_it_stands_alone(tmp_path, state, raw, average):
    averaged = {name: value + 1 for name, value in state.items()}
    for content, expected in [({average: averaged, raw: state}, state), ({average: averaged}, averaged)]:
        torch.save(content, tmp_path / "w.pth")
        model = load_model(str(tmp_path / "w.pth"), arch="small_test")
        assert torch.equal(model.weights["cls_token"].read(), expected["cls_token"])


def test_two_names_of_one_storage_are_fine(tmp_path, state):
    state["norm.bias"] = state["blocks.0.norm1.bias"]
    state["norm.weight"] = state["blocks.0.norm1.weight"].view(-1)
    torch.save(state, tmp_path / "w.pth")
    model = load_model(str(tmp_path / "w.pth"), arch="small_test")
    assert torch.equal(model.weights["norm.bias"].read(), state["norm.bias"])


def test_a_slice_of_a_larger_storage_is_read_as_it_stands(tmp_path, state):
    """Strided, and not from the beginning: what torch.save keeps of a view."""
    wide = torch.randn(64, 32)
    state["blocks.0.mlp.fc2.weight"] = wide.T
    state["norm.bias"] = wide[3]
    torch.save(state, tmp_path / "w.pth")
    weights = load_model(str(tmp_path / "w.pth"), arch="small_test").weights
    assert torch.equal(weights["blocks.0.mlp.fc2.weight"].read(), wide.T)
    assert weights["blocks.0.mlp.fc2.weight"].read().is_contiguous()
    assert torch.equal(weights["norm.bias"].read(), wide[3])


def test_two_names_for_one_weight(tmp_path, state, refused):
    """Separate and fused query, key and value, which disagree."""
    state["blocks.0.attn.q_proj.weight"] = torch.ones(32, 32)
    state["blocks.0.attn.k_proj.weight"] = torch.ones(32, 32)
    state["blocks.0.attn.v_proj.weight"] = torch.ones(32, 32)
    torch.save(state, tmp_path / "w.pth")
    assert "'blocks.0.attn.qkv.weight' twice, with different values" in refused(
        tmp_path / "w.pth", HostileInput
    )


def test_arguments_of_a_training_script_are_data(tmp_path, state):
    """MAE, DINO, DeiT and timm save theirs; nothing in them is run, whatever they hold."""
    content = {"model": state, "args": argparse.Namespace(lr=1e-3, data_path="/data"), "epoch": 3}
    torch.save(content, tmp_path / "w.pth")
    assert load_model(str(tmp_path / "w.pth"), arch="small_test").config.depth == 2


def test_code_among_the_arguments_is_never_run(tmp_path, state, refused):
    marker = tmp_path / "marker"
    torch.save({"model": state, "args": argparse.Namespace(lr=_Code(marker))}, tmp_path / "w.pth")
    assert "holds more than tensors" in refused(tmp_path / "w.pth", HostileInput)
    assert not marker.exists()
