"""Weights that do not fit, are not finite, or are not there."""

from __future__ import annotations

import os

import pytest
import torch

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.weights import load_model


def test_the_whole_file_is_accepted(small, save, state):
    """What the others break."""
    assert load_model(str(save(state)), arch="small_test").config == small


def test_missing_file(refused, tmp_path):
    for name in ("none.safetensors", "none.pth"):
        assert "no checkpoint file" in refused(tmp_path / name, ImportFailed)


def test_another_ending(refused, tmp_path):
    (tmp_path / "w.h5").write_bytes(b"\x89HDF")
    assert "does not end like a checkpoint" in refused(tmp_path / "w.h5", ImportFailed)


def test_a_folder_named_like_a_file(tmp_path):
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(ImportFailed, match="it holds nothing"):
        load_model(str(tmp_path / "w.safetensors"))
    with pytest.raises(ImportFailed, match="a folder"):
        load_model("small_test", weights=tmp_path / "w.safetensors")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything: run the tests as another user")
def test_unreadable(refused, save, state):
    path = save(state)
    path.chmod(0)
    assert "may not be read" in refused(path, ImportFailed)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_no_floating_weights(refused, save, state, dtype):
    state["blocks.0.attn.qkv.weight"] = state["blocks.0.attn.qkv.weight"].to(dtype)
    message = refused(save(state), ImportFailed)
    assert "'blocks.0.attn.qkv.weight'" in message
    assert "float32" in message


def test_missing_and_unexpected_keys_show_the_nearest(refused, save, state):
    state["blocks.1.mlp.fc_2.weight"] = state.pop("blocks.1.mlp.fc2.weight")
    message = refused(save(state), ImportFailed)
    assert "1 missing ('blocks.1.mlp.fc2.weight', nearest: 'blocks.1.mlp.fc_2.weight')" in message
    assert "1 unexpected ('blocks.1.mlp.fc_2.weight', nearest: 'blocks.1.mlp.fc2.weight')" in message


def test_no_head(refused, save, state):
    del state["head.weight"], state["head.bias"]
    path = save(state)
    assert "'head.weight'" in refused(path, ImportFailed)
    assert load_model(str(path), arch="small_test", num_classes=0).config.num_classes == 0


def test_weights_of_something_else(refused, save):
    message = refused(save({"conv1.weight": torch.ones(3, 3), "fc.bias": torch.ones(3)}), ImportFailed)
    assert "unexpected ('conv1.weight'" in message
    assert "missing" in message


def test_wrong_number_of_classes(refused, save, state):
    message = refused(save(state), ImportFailed, num_classes=1000)
    assert "has 7 classes" in message
    assert "expected: 1000" in message


def test_head_and_bias_that_disagree(refused, save, state):
    state["head.bias"] = torch.zeros(6)
    assert "'head.bias' has shape (6,)" in refused(save(state), ImportFailed)


def test_positions_that_do_not_fit(refused, save, state):
    state["pos_embed"] = torch.zeros(1, 26, 32)
    message = refused(save(state), ImportFailed)
    assert "'pos_embed' has shape (1, 26, 32)" in message
    assert "(1, 17, 32)" in message
    assert "--image-size resamples it" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_not_finite(refused, save, state, value, dtype):
    state["norm.bias"] = state["norm.bias"].to(dtype)
    state["norm.bias"][3] = value
    path = save(state)
    message = refused(path, HostileInput)
    assert "'norm.bias' holds 1 NaN or Inf of 32" in message
    assert "--allow-nonfinite" in message
    model = load_model(str(path), arch="small_test", allow_nonfinite=True)
    assert not model.weights["norm.bias"].read().isfinite().all()


def test_opposite_infinities_do_not_cancel(refused, save, state):
    state["norm.bias"][0], state["norm.bias"][1] = float("inf"), -float("inf")
    assert "holds 2 NaN or Inf" in refused(save(state), HostileInput)


def test_large_finite_weights_whose_sum_overflows_are_fine(small, save, state):
    state["norm.bias"][:] = 3e38
    assert load_model(str(save(state)), arch="small_test").config == small


def test_float64_beyond_float32(refused, save, state):
    state["norm.bias"] = torch.full((32,), 1e300, dtype=torch.float64)
    assert "holds 32 NaN or Inf" in refused(save(state), HostileInput)
