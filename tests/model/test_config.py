from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.model.architectures import DEFAULT_ARCH, NAMED_CONFIGS, named_config
from vit_deploy.model.config import ViTConfig
from vit_deploy.spec import BatchRange


@st.composite
def configs(draw: st.DrawFn) -> ViTConfig:
    """Valid configs of any kind; nothing is built from them here, so sizes may be large."""
    patch_size = draw(st.integers(1, 32))
    num_heads = draw(st.integers(1, 16))
    num_classes = draw(st.integers(0, 2000))
    distillation_token = draw(st.booleans())
    return ViTConfig(
        image_size=(patch_size * draw(st.integers(1, 40)), patch_size * draw(st.integers(1, 40))),
        patch_size=patch_size,
        in_channels=draw(st.integers(1, 13)),
        embed_dim=num_heads * draw(st.integers(1, 128)),
        depth=draw(st.integers(1, 60)),
        num_heads=num_heads,
        mlp_dim=draw(st.integers(1, 8192)),
        num_classes=num_classes,
        qkv_bias=draw(st.booleans()),
        norm_eps=draw(st.floats(1e-12, 1e-3)),
        distillation_token=distillation_token,
        distillation_head=distillation_token and num_classes > 0 and draw(st.booleans()),
        representation_size=draw(st.integers(0, 1024)),
    )


@given(configs())
def test_a_dict_gives_the_config_back_also_through_json(config: ViTConfig):
    assert ViTConfig.from_dict(config.to_dict()) == config
    assert ViTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(configs())
def test_the_counts_of_tokens_fit_together(config: ViTConfig):
    rows, columns = config.grid_size
    assert (rows * config.patch_size, columns * config.patch_size) == config.image_size
    assert config.num_patches == rows * columns
    assert config.num_tokens == config.num_prefix_tokens + rows * columns
    assert config.num_prefix_tokens == 1 + config.distillation_token


def test_a_dict_names_every_field():
    assert list(ViTConfig().to_dict()) == list(asdict(ViTConfig()))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"patch_size": 0}, "patch_size=0"),
        ({"in_channels": 0}, "in_channels=0"),
        ({"embed_dim": -4}, "embed_dim=-4"),
        ({"depth": 0}, "depth=0"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"mlp_dim": 0}, "mlp_dim=0"),
        ({"depth": 1001}, "depth=1001"),
        ({"embed_dim": 2**16 + 12}, "embed_dim=65548"),
        ({"mlp_dim": 2**16 + 1}, "mlp_dim=65537"),
        ({"in_channels": 2**16 + 1}, "in_channels=65537"),
        ({"num_classes": 2**20 + 1}, "num_classes=1048577"),
        ({"num_classes": -1}, "num_classes=-1"),
        ({"representation_size": 2**20 + 1}, "representation_size=1048577"),
        ({"representation_size": -1}, "representation_size=-1"),
        ({"image_size": (16, 2**14 + 16)}, "image_size=(16, 16400)"),
        ({"image_size": (2048, 2048), "patch_size": 1}, "4194305 tokens"),
        ({"norm_eps": float("nan")}, "norm_eps=nan"),
        ({"norm_eps": float("inf")}, "norm_eps=inf"),
        ({"norm_eps": -1e-6}, "norm_eps=-1e-06"),
        ({"norm_eps": 10**400}, "norm_eps=1000"),
        ({"image_size": (224, 225)}, "224x225 pixels"),
        ({"image_size": (223, 224)}, "223x224 pixels"),
        ({"image_size": (0, 224)}, "0x224 pixels"),
        ({"num_heads": 7}, "embed_dim=768 does not divide into num_heads=7"),
        ({"distillation_head": True}, "distillation head"),
        ({"distillation_head": True, "distillation_token": True, "num_classes": 0}, "distillation head"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], found: str):
    with pytest.raises(ImportFailed) as error:
        replace(ViTConfig(), **changes)
    assert found in error.value.found
    assert error.value.expected


def test_a_field_from_a_later_version_is_refused_by_name():
    with pytest.raises(ImportFailed, match="rope_theta") as error:
        ViTConfig.from_dict({**ViTConfig().to_dict(), "rope_theta": 100.0})
    assert "pip install --upgrade" in error.value.next_command


def test_io_spec_names_inputs_and_outputs_in_the_order_asked(small_config: ViTConfig):
    spec = small_config.io_spec(("tokens", "logits", "embedding"), BatchRange(1, 2, 4), "float16")
    assert [(entry.name, entry.dtype, entry.shape) for entry in spec.inputs] == [
        ("pixel_values", "float16", ("batch", 3, 32, 48))
    ]
    assert [(entry.name, entry.shape) for entry in spec.outputs] == [
        ("tokens", ("batch", 25, 60)),
        ("logits", ("batch", 7)),
        ("embedding", ("batch", 60)),
    ]
    assert {entry.dtype for entry in spec.outputs} == {"float16"}
    assert spec.outputs[0].at_batch(3) == (3, 25, 60)


def test_io_spec_of_a_fixed_batch_has_numbers_only(small_config: ViTConfig):
    spec = small_config.io_spec(batch=BatchRange(5, 5, 5))
    assert spec.inputs[0].shape == (5, 3, 32, 48)
    assert [entry.shape for entry in spec.outputs] == [(5, 7)]


def test_io_spec_of_a_model_without_a_head(small_config: ViTConfig):
    config = replace(small_config, num_classes=0, representation_size=11)
    assert [(entry.name, entry.shape[1:]) for entry in config.io_spec().outputs] == [
        ("embedding", (11,)),
        ("tokens", (25, 60)),
    ]


@pytest.mark.parametrize(
    ("num_classes", "asked", "hint"),
    [(7, "logit", "did you mean 'logits'?"), (7, "token", "did you mean 'tokens'?"), (0, "logits", "tokens")],
)
def test_an_unknown_output_is_a_usage_error_with_the_nearest(
    small_config: ViTConfig, num_classes: int, asked: str, hint: str
):
    with pytest.raises(UsageFailed) as error:
        replace(small_config, num_classes=num_classes).io_spec((asked,))  # type: ignore[arg-type]
    assert hint in str(error.value)
    assert ("logits" in error.value.expected) == (num_classes > 0)


def test_the_default_architecture_is_named_and_is_the_default_config():
    assert named_config(DEFAULT_ARCH) == ViTConfig()


def test_a_pretrained_tag_does_not_change_the_architecture():
    assert named_config("vit_small_patch16_224.augreg_in21k_ft_in1k") == NAMED_CONFIGS["vit_small_patch16_224"]


def test_an_unknown_architecture_is_a_usage_error_with_the_nearest():
    with pytest.raises(UsageFailed, match="did you mean 'vit_base_patch16_224'") as error:
        named_config("vit_bas_patch16_224")
    assert error.value.next_command == "vit-deploy models"
