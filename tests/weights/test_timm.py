"""timm checkpoints: equal to timm's own forward, or refused with the reason."""

from __future__ import annotations

import json
import re

import pytest
import safetensors.torch
import torch

from vit_deploy.errors import ImportFailed
from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.weights import load_model

BOUND = 1e-10
"""Largest relative error in float64: both sides compute the same sums in another order."""


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"in_chans": 1, "mlp_ratio": 3, "qkv_bias": False}),
        ("vit_base_patch32_224", {"img_size": (32, 48)}),
        ("vit_giant_patch14_224", {"mlp_ratio": 48 / 11, "embed_dim": 88}),
        ("deit_tiny_patch16_224", {}),
        ("deit_small_distilled_patch16_224", {}),
    ],
)
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_timm_equal(save_timm, relative_error, run64, name, kwargs, safe):
    directory, module = save_timm(name, safe=safe, **kwargs)
    model = load_model(str(directory))
    pixels = torch.randn(2, model.config.in_channels, *model.config.image_size, dtype=torch.float64)
    found = run64(model, pixels)
    with torch.inference_mode():
        module = module.double()
        assert relative_error(found["logits"], module(pixels)) <= BOUND
        tokens = module.forward_features(pixels)
        assert relative_error(found["tokens"], tokens) <= BOUND
        assert relative_error(found["embedding"], tokens[:, 0]) <= BOUND
    assert model.source.kind == "timm"
    assert model.source.name == name
    assert len(model.source.sha256) == 64


def test_timm_real_size_without_model_args(tmp_path, move_weights, relative_error, run64):
    """A config as on the hub: no model_args, everything follows from the architecture's name."""
    import timm

    module = move_weights(timm.create_model("deit_tiny_distilled_patch16_224"), 1)
    safetensors.torch.save_file(module.state_dict(), tmp_path / "model.safetensors")
    cfg = {
        name: module.pretrained_cfg[name] for name in ("input_size", "crop_pct", "mean", "std", "num_classes")
    }
    document = {"architecture": "deit_tiny_distilled_patch16_224", "num_classes": 1000, "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(document))
    model = load_model(str(tmp_path))
    assert model.config == NAMED_CONFIGS["deit_tiny_distilled_patch16_224"]
    pixels = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    with torch.inference_mode():
        assert relative_error(run64(model, pixels)["logits"], module.double()(pixels)) <= BOUND


def test_timm_headless(save_timm, relative_error, run64):
    directory, module = save_timm(num_classes=0)
    model = load_model(str(directory))
    assert model.config.num_classes == 0
    assert model.config.default_outputs == ("embedding", "tokens")
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        assert relative_error(run64(model, pixels)["embedding"], module.double()(pixels)) <= BOUND


def test_timm_another_resolution_than_the_name_says(save_timm, edit_json):
    directory, _ = save_timm(img_size=64)
    edit_json(
        directory / "config.json", model_args={"embed_dim": 48, "depth": 2, "num_heads": 4, "patch_size": 8}
    )
    assert load_model(str(directory)).config.image_size == (64, 64)
    config = json.loads((directory / "config.json").read_text())
    edit_json(directory / "config.json", pretrained_cfg={**config["pretrained_cfg"], "input_size": [3, 32, 32]})
    with pytest.raises(ImportFailed, match=r"'pos_embed' has shape \(1, 65, 48\)"):
        load_model(str(directory))


def test_timm_half_precision_becomes_float32(save_timm):
    directory, module = save_timm()
    safetensors.torch.save_file(module.half().state_dict(), directory / "model.safetensors")
    model = load_model(str(directory))
    assert {tensor.dtype for tensor in model.weights.values()} == {"float32"}
    assert torch.equal(model.weights["head.weight"].read(), module.head.weight.detach().float())


def test_timm_labels(save_timm):
    names = [f"n{index}" for index in range(7)]
    directory, _ = save_timm(model_config={"label_names": names, "label_descriptions": {"n1": "tench, Tinca"}})
    assert load_model(str(directory)).labels == ("n0", "tench, Tinca", "n2", "n3", "n4", "n5", "n6")


def test_timm_labels_with_gaps(save_timm):
    directory, _ = save_timm(model_config={"label_names": {"0": "cat", "5": "dog"}})
    assert load_model(str(directory)).labels == ("cat", "1", "2", "3", "4", "dog", "6")


def test_timm_wrong_number_of_labels(save_timm):
    directory, _ = save_timm(model_config={"label_names": ["a", "b"]})
    with pytest.raises(ImportFailed, match="2 labels for 7 classes"):
        load_model(str(directory))


@pytest.mark.parametrize(
    ("kwargs", "part"),
    [
        ({"init_values": 1e-5}, "it has LayerScale$"),
        ({"reg_tokens": 2}, "it has 2 register tokens$"),
        ({"reg_tokens": 1}, "it has 1 register token$"),
        ({"pre_norm": True}, "it has a norm before the blocks$"),
        ({"global_pool": "avg"}, "a norm after pooling .fc_norm., and it has no norm after the blocks$"),
        ({"class_token": False, "global_pool": "map"}, "attention pooling, and it has no class token$"),
        ({"qk_norm": True}, "norms on queries and keys"),
        ({"class_token": False, "global_pool": "avg", "fc_norm": False}, "no class token"),
        ({"qkv_bias": False}, "it has no biases of queries, keys and values"),
        ({"act_layer": "silu", "scale_mlp_norm": True}, "it has a norm inside the MLP$"),
    ],
)
def test_timm_weights_with_other_parts_than_the_config_says(save_timm, edit_json, kwargs, part):
    directory, _ = save_timm(**kwargs)
    sizes = {"embed_dim": 48, "depth": 2, "num_heads": 4, "patch_size": 8, "img_size": 32}
    edit_json(directory / "config.json", model_args=sizes, global_pool=None)
    with pytest.raises(ImportFailed) as caught:
        load_model(str(directory))
    assert re.search(part, caught.value.found)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"wings": 2}, "wings=2"),
        ({"use_naflex": True}, "use_naflex=True"),
        ({"patch_size": [8, 4]}, r"patch_size=\[8, 4\]"),
        ({"class_token": 3}, "class_token=3"),
        ({"norm_layer": ["layernorm"]}, "norm_layer="),
        ({"norm_layer": "layernorm(eps=e)"}, "norm_layer="),
        ({"act_layer": {}}, "act_layer="),
        ({"global_pool": "sum"}, "global_pool='sum'"),
        ({"mlp_ratio": 1e308, "embed_dim": 4000}, "mlp_ratio=1e"),
    ],
)
def test_timm_broken_arguments(save_timm, edit_json, args, said):
    directory, _ = save_timm()
    edit_json(directory / "config.json", model_args=args)
    with pytest.raises(ImportFailed, match=said):
        load_model(str(directory))


@pytest.mark.parametrize("after_reset", [False, True], ids=["made", "reset"])
def test_timm_pooling_that_the_config_says_only_for_the_reader(
    save_timm, edit_json, relative_error, run64, after_reset
):
    """Before model_args were written, global_pool alone said how the weights are pooled."""
    directory, module = save_timm(**({} if after_reset else {"global_pool": "avg"}))
    if after_reset:
        module.reset_classifier(7, "avg")
        safetensors.torch.save_file(module.state_dict(), directory / "model.safetensors")
    sizes = {"embed_dim": 48, "depth": 2, "num_heads": 4, "patch_size": 8, "img_size": 32}
    edit_json(directory / "config.json", model_args=sizes, global_pool="avg")
    model = load_model(str(directory))
    assert (model.config.pool, model.config.fc_norm) == ("avg", not after_reset)
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        assert relative_error(run64(model, pixels)["logits"], module.double()(pixels)) <= BOUND


def test_timm_arguments_that_are_off_are_not_read(save_timm, edit_json):
    directory, _ = save_timm(embed_dim=192, depth=12, num_heads=3, patch_size=16)
    edit_json(directory / "config.json", model_args={"img_size": 32, "wings": 0, "features_only": False})
    assert load_model(str(directory)).config.depth == 12


def test_timm_former_name(save_timm, edit_json):
    directory, _ = save_timm("vit_base_patch16_224")
    edit_json(directory / "config.json", architecture="vit_base_patch16_224_in21k")
    assert load_model(str(directory)).config.embed_dim == 48


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("swin_tiny_patch4_window7_224", "shifted windows"),
        ("vit_base_r50_s16_224", "convolutional stem"),
        ("vit_base_patch16_rpn_224", "post-norm"),
        ("naflexvit_base_patch16_gap", "NaFlex"),
    ],
)
def test_timm_unsupported_architecture_is_refused_by_name(save_timm, edit_json, name, part):
    directory, _ = save_timm()
    edit_json(directory / "config.json", architecture=name)
    with pytest.raises(ImportFailed, match=f"{name}.*is not supported: it has .*{part}") as caught:
        load_model(str(directory))
    assert caught.value.exit_code == 6


def test_timm_unknown_architecture(save_timm, edit_json):
    directory, _ = save_timm()
    edit_json(directory / "config.json", architecture="vit_tiny_patch16_225")
    with pytest.raises(ImportFailed, match="vit_tiny_patch16_224") as caught:
        load_model(str(directory))
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "nested.pth", "ddp.pt"])
def test_timm_file(save_timm, tmp_path, small_distilled_arch, suffix):
    _, module = save_timm("deit_tiny_distilled_patch16_224", num_classes=5, in_chans=1)
    state, path = module.state_dict(), tmp_path / f"my weights é.{suffix}"
    if suffix == "safetensors":
        safetensors.torch.save_file(state, path)
    elif suffix == "nested.pth":
        torch.save({"model": state, "epoch": 3}, path)
    elif suffix == "ddp.pt":
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        torch.save(state, path)
    model = load_model(str(path), arch=small_distilled_arch)
    same = load_model(small_distilled_arch, weights=path)
    assert model.config == same.config
    assert (model.config.num_classes, model.config.in_channels) == (5, 1)
    assert model.source == same.source
    assert model.preprocessing.origin == "default"
    assert set(model.weights) == set(state)
    assert all(torch.equal(model.weights[name].read(), value) for name, value in state.items())
