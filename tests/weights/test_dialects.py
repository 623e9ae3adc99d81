"""What training scripts wrap around a ViT's weights is taken off, and said; nothing else is guessed."""

from __future__ import annotations

import argparse

import pytest
import safetensors.torch
import torch

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.model.config import ViTConfig
from vit_deploy.weights import load_model
from vit_deploy.weights.random import random_model

SMALL = ViTConfig(
    image_size=(32, 32), patch_size=8, embed_dim=32, depth=2, num_heads=4, mlp_dim=64, num_classes=7
)


@pytest.fixture(autouse=True)
def small_named(monkeypatch):
    monkeypatch.setitem(NAMED_CONFIGS, "small_test", SMALL)


@pytest.fixture
def state():
    return random_model(SMALL, "small").weights.state_dict()


@pytest.fixture
def other():
    """Weights that must not be taken."""
    return random_model(SMALL, "small", seed=9).weights.state_dict()


@pytest.fixture
def load(tmp_path):
    def save(content, **kwargs):
        torch.save(content, tmp_path / "w.pth")
        return load_model(str(tmp_path / "w.pth"), arch="small_test", **kwargs)

    return save


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def is_(model, state):
    return all(
        torch.equal(model.weights[name].read(), value) for name, value in state.items() if "head" not in name
    )


NESTINGS = {
    "plain": lambda s: s,
    "ddp": lambda s: {"state_dict": under("module.", s)},
    "compiled": lambda s: {"model": under("_orig_mod.", s)},
    "compiled ddp": lambda s: {"model": under("module._orig_mod.", s)},
    "ddp of a compiled one": lambda s: under("_orig_mod.module.", s),
    "lightning": lambda s: {"state_dict": under("model.", s), "global_step": 3, "callbacks": {"a": {"b": 1}}},
    "lightning, net": lambda s: {"state_dict": under("net._orig_mod.", s)},
    "backbone": lambda s: {"model_state_dict": under("backbone.", s)},
    "encoder": lambda s: under("encoder.", s),
    "fsdp": lambda s: {"module": under("_fsdp_wrapped_module.", s)},
    "training": lambda s: {
        "model": s,
        "optimizer": {
            "state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(3.0)}},
            "param_groups": [{}],
        },
        "lr_scheduler": {"last_epoch": 3},
        "scaler": {"scale": torch.tensor(1.0)},
        "args": argparse.Namespace(lr=1),
        "epoch": 3,
        "best_acc1": torch.tensor(0.8),
    },
    "a loss and a metric beside": lambda s: {
        "state_dict": {
            **under("model.", s),
            "criterion.weight": torch.ones(7),
            "train_acc.total": torch.ones(2),
            "val_metrics.confmat": torch.ones(7, 7),
        }
    },
}


@pytest.mark.parametrize("name", NESTINGS)
def test_wrappings(load, state, name):
    content = NESTINGS[name](state)
    model = load(content)
    assert model.weights.keys() == state.keys()
    assert is_(model, state)
    nested = not set(state) & set(content)
    assert any("found under" in note for note in model.notes) == nested


def test_wrappings_of_a_safetensors_file(tmp_path, state):
    safetensors.torch.save_file(under("module.model.", state), tmp_path / "w.safetensors")
    model = load_model(str(tmp_path / "w.safetensors"), arch="small_test")
    assert is_(model, state)
    assert model.notes == ("the weights were found under 'module.model'",)


def test_wrappings_of_a_directory(save_timm):
    directory, module = save_timm(safe=False)
    torch.save({"state_dict": under("module.", module.state_dict())}, directory / "pytorch_model.bin")
    assert is_(load_model(str(directory)), dict(module.state_dict()))


def test_names_are_left_alone_where_that_is_of_no_use(load, state):
    """``model.`` is taken off where a ViT is under it, and not off what is beside a ViT at the top."""
    with pytest.raises(ImportFailed, match=r"1 unexpected \('model\.extra'"):
        load({**state, "model.extra": torch.ones(3)})


@pytest.mark.parametrize("beside", ["head.weight", "classifier.0.bias", "adapter.up"])
def test_a_model_around_the_vit(load, state, beside):
    """A head of a wrapper's own: how it pools, nobody can tell from the weights."""
    with pytest.raises(ImportFailed, match=f"1 more weights around it .'{beside}'.*nothing is known") as caught:
        load({**under("backbone.", state), beside: torch.ones(7)})
    assert caught.value.next_command == "save model.backbone.state_dict() in a file of its own"


def projection(prefix=""):
    return {
        f"{prefix}head.mlp.0.weight": torch.ones(16, 32),
        f"{prefix}head.mlp.2.bias": torch.ones(16),
        f"{prefix}head.last_layer.weight_g": torch.ones(9, 1),
        f"{prefix}head.last_layer.parametrizations.weight.original0": torch.ones(9, 1),
    }


@pytest.fixture
def headless(state):
    return {name: value for name, value in state.items() if not name.startswith("head.")}


@pytest.fixture
def other_headless(other):
    return {name: value for name, value in other.items() if not name.startswith("head.")}


def test_dino(load, headless, other_headless):
    content = {
        "student": {**under("module.backbone.", other_headless), **projection("module.")},
        "teacher": {**under("backbone.", headless), **projection()},
        "optimizer": {"state": {}},
        "dino_loss": {"center": torch.ones(1, 9)},
        "args": argparse.Namespace(arch="vit_small"),
    }
    model = load(content, num_classes=0)
    assert is_(model, headless)
    assert model.notes == (
        "the weights were found under 'teacher.backbone'",
        "the checkpoint holds other copies too, which were left out: 'student.module.backbone'",
        "the projection head of DINO's training was left out",
    )


def test_dinov2_under_fsdp(load, headless, other_headless):
    names = {
        **under("student.backbone.", other_headless),
        **under("teacher.backbone.", headless),
        **{name.replace("head.", "teacher.dino_head."): value for name, value in projection().items()},
        **{name.replace("head.", "student.ibot_head."): value for name, value in projection().items()},
    }
    assert is_(load({"model": names, "iteration": 3}, num_classes=0), headless)


def test_i_jepa(load, headless, other_headless):
    content = {
        "encoder": under("module.", other_headless),
        "predictor": {"module.predictor_embed.weight": torch.ones(4, 32)},
        "target_encoder": under("module.", headless),
        "opt": {"state": {}},
    }
    model = load(content, num_classes=0)
    assert is_(model, headless)
    assert "the predictor of self-supervised training was left out" in model.notes


def test_mae(load, headless):
    decoder = {
        "mask_token": torch.ones(1, 1, 16),
        "decoder_pos_embed": torch.ones(1, 17, 16),
        "decoder_embed.weight": torch.ones(16, 32),
        "decoder_blocks.0.attn.qkv.weight": torch.ones(48, 16),
        "decoder_norm.bias": torch.ones(16),
        "decoder_pred.weight": torch.ones(192, 16),
    }
    model = load({"model": {**headless, **decoder}, "args": argparse.Namespace()}, num_classes=0)
    assert model.weights.keys() == headless.keys()
    assert "the decoder of MAE's training was left out" in model.notes


@pytest.mark.parametrize(("raw", "average"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_moving_average(load, state, other, raw, average):
    content = {raw: state, average: under("module.", other)}
    model = load(content)
    assert is_(model, state)
    assert any("--use-ema takes it" in note and f"'{average}.module'" in note for note in model.notes)
    model = load(content, use_ema=True)
    assert is_(model, other)
    assert any(f"found under '{average}.module'" in note for note in model.notes)
    assert is_(load({average: other}), other)


def test_the_moving_average_in_a_directory(save_timm, move_weights):
    directory, module = save_timm(safe=False)
    raw = {name: value.clone() for name, value in module.state_dict().items()}
    average = dict(move_weights(module, 9).state_dict())
    torch.save({"state_dict": raw, "state_dict_ema": average}, directory / "pytorch_model.bin")
    model = load_model(str(directory))
    assert is_(model, raw)
    assert any("--use-ema takes it" in note for note in model.notes)
    assert is_(load_model(str(directory), use_ema=True), average)


def test_a_moving_average_that_is_not_there(load, state, save_timm):
    with pytest.raises(ImportFailed, match="no moving average"):
        load({"model": state}, use_ema=True)
    directory, _ = save_timm()
    with pytest.raises(ImportFailed, match="no moving average"):
        load_model(str(directory), use_ema=True)
    with pytest.raises(UsageFailed, match="--use-ema goes with a checkpoint"):
        load_model("vit_tiny_patch16_224", use_ema=True)


@pytest.mark.parametrize(
    "words", ["q k v", "query key value", "to_q to_k to_v", "q_proj k_proj v_proj", "wq wk wv"]
)
@pytest.mark.parametrize("key_bias", [True, False])
def test_separate_query_key_and_value(load, state, words, key_bias):
    content = {}
    for name, value in state.items():
        if ".qkv." not in name:
            content[name] = value
            continue
        parts = dict(zip(words.split(), value.chunk(3), strict=True))
        if name.endswith("bias") and not key_bias:
            del parts[words.split()[1]]
            value[32:64] = 0  # what an absent bias is
        content |= {name.replace("qkv", word): part.clone() for word, part in parts.items()}
    assert is_(load(content), state)


@pytest.mark.parametrize("ending", ["pth", "pt", "bin", "ckpt", "pth.tar"])
def test_endings(tmp_path, state, ending):
    torch.save({"state_dict": state}, tmp_path / f"w.{ending}")
    assert is_(load_model(str(tmp_path / f"w.{ending}"), arch="small_test"), state)


@pytest.mark.parametrize("wrapper", ["module.", "model.", "encoder.", "teacher.module."])
def test_transformers_names(save_transformers, small_arch, tmp_path, wrapper):
    """Whose own words (``vit.``, ``encoder.layer.``) stay."""
    directory, _ = save_transformers("ViTForImageClassification")
    plain = safetensors.torch.load_file(directory / "model.safetensors")
    expected = load_model(str(directory)).weights.state_dict()
    safetensors.torch.save_file(under(wrapper, plain), tmp_path / "w.safetensors")
    assert is_(load_model(str(tmp_path / "w.safetensors"), arch=small_arch), expected)
