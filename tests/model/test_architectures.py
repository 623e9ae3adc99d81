"""The table of architectures: what it says is what timm makes, and what it cannot say it names."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from vit_deploy.errors import UsageFailed
from vit_deploy.model import architectures
from vit_deploy.model.architectures import (
    ARCHITECTURES_FILE,
    NAMED_CONFIGS,
    is_timms,
    named_config,
    what_is_missing,
)
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.other_networks import as_module, what_it_has
from vit_deploy.weights.checks import expected_shapes
from vit_deploy.weights.tensors import Weights, WeightTensor
from vit_deploy.weights.timm import translate
from vit_deploy.weights.timm.arguments import ARGUMENTS_FILE, config_from_arguments

SCRIPTS = Path(__file__).parents[2] / "scripts"

SAMPLE = (
    "beit3_base_patch16_224",
    "beit_large_patch16_512",
    "beitv2_base_patch16_224",
    "deit3_medium_patch16_224",
    "deit_base_distilled_patch16_384",
    "eva02_base_patch14_448",
    "eva02_large_patch14_clip_336",
    "eva_giant_patch14_560",
    "eva_large_patch14_336",
    "flexivit_small",
    "vit_base_patch16_224",
    "vit_base_patch16_dinov3_qkvb",
    "vit_base_patch16_rope_mixed_ape_224",
    "vit_base_patch16_siglip_gap_224",
    "vit_giant_patch14_reg4_dinov2",
    "vit_huge_patch14_224",
    "vit_large_patch14_clip_quickgelu_336",
    "vit_pe_core_large_patch14_336",
    "vit_small_patch16_dinov3",
    "vit_so150m_patch16_reg4_map_256",
    "vit_so400m_patch14_siglip_384",
)

FORMER = (
    "vit_tiny_patch16_224 vit_tiny_patch16_384 vit_small_patch8_224 vit_small_patch16_224 "
    "vit_small_patch16_384 vit_small_patch32_224 vit_small_patch32_384 vit_base_patch8_224 "
    "vit_base_patch16_224 vit_base_patch16_384 vit_base_patch32_224 vit_base_patch32_384 "
    "vit_large_patch14_224 vit_large_patch16_224 vit_large_patch16_384 vit_large_patch32_224 "
    "vit_large_patch32_384 vit_huge_patch14_224 vit_giant_patch14_224 deit_tiny_patch16_224 "
    "deit_tiny_distilled_patch16_224 deit_small_patch16_224 deit_small_distilled_patch16_224 "
    "deit_base_patch16_224 deit_base_distilled_patch16_224 deit_base_patch16_384 "
    "deit_base_distilled_patch16_384"
)
"""The plain ones, by which scripts and notes call them."""


TIMMS = tuple(json.loads(ARCHITECTURES_FILE.read_text(encoding="utf-8"))["architectures"])


@pytest.fixture(scope="module")
def script():
    """The script, imported from where it stands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import timm_architectures

        yield timm_architectures
        for name in ("timm_architectures", "timm_reading"):
            sys.modules.pop(name)


@pytest.mark.parametrize("name", SAMPLE)
def test_the_table_is_what_timm_makes(script, name):
    assert script.read_config(script.make(name)) == named_config(name)


@pytest.mark.parametrize("name", SAMPLE)
def test_the_weights_of_timm_are_those_of_the_config(script, name):
    """By name and shape, at the real size; none of them is made."""
    shapes = {key: tuple(value.shape) for key, value in script.make(name).state_dict().items()}
    weights = Weights(WeightTensor(key, shape, "float32", torch.Tensor) for key, shape in shapes.items())
    found = {key: tensor.shape for key, tensor in translate(weights).items()}
    assert found == expected_shapes(named_config(name))


@pytest.mark.slow
def test_the_whole_table_is_what_timm_makes(script, monkeypatch, tmp_path):
    """Read `python scripts/timm_architectures.py`'s diff where this fails."""
    monkeypatch.setattr(script, "ARCHITECTURES_FILE", tmp_path / "architectures.json")
    monkeypatch.setattr(script, "ARGUMENTS_FILE", tmp_path / "arguments.json")
    script.main()
    for path in (ARCHITECTURES_FILE, ARGUMENTS_FILE):
        assert (tmp_path / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "aimv2_large_patch14_224",
        "eva02_enormous_patch14_clip_224",
        "test_vit4",
        "vit_base_patch16_rpn_224",
        "vit_base_patch16_xp_224",
        "vit_dwee_patch16_reg1_gap_256",
        "vit_small_patch16_18x2_224",
    ],
)
def test_what_cannot_be_said_is_named(script, name):
    with pytest.raises(script.Unsupported) as part:
        script.read_config(script.make(name))
    assert what_is_missing(name) == str(part.value)
    with pytest.raises(UsageFailed, match=f"{name!r} is not supported: it has .*{re.escape(str(part.value))}"):
        named_config(name)


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "vit_base_r50_s16_224", "samvit_base_patch16"]
)
def test_other_transformers_of_timm_are_refused_by_name(name):
    with pytest.raises(UsageFailed, match="is not supported: it has "):
        named_config(f"{name}.some_tag")


def test_every_config_follows_from_timms_arguments():
    """Two ways to each config: read off timm's module, and derived here from what timm passes to it."""
    for name in filter(is_timms, NAMED_CONFIGS):
        assert config_from_arguments(name, {}) == NAMED_CONFIGS[name], name


def test_the_names_of_before_are_still_known():
    assert set(FORMER.split()) <= set(NAMED_CONFIGS)
    assert named_config("vit_base_patch16_224") == ViTConfig()
    assert named_config("vit_giant_patch14_224").mlp_dim == 6144


def test_names_say_patch_and_resolution():
    for name in TIMMS:
        config = named_config(name)
        patch, pixels = re.search(r"_patch(\d+)(?:_|$)", name), re.search(r"_(\d{3})$", name)
        assert patch is None or int(patch[1]) == config.patch_size, name
        assert pixels is None or config.image_size == (int(pixels[1]), int(pixels[1])), name
        assert config.distillation_token == ("distilled" in name)
        assert name.startswith("test_") or (config.num_registers > 0) == bool(
            re.search(r"_reg\d|dinov3|lingbot|radio", name)
        ), name


def test_both_tables_are_sorted_and_tell_the_same_names():
    table, arguments = (json.loads(path.read_text()) for path in (ARCHITECTURES_FILE, ARGUMENTS_FILE))
    assert list(table["architectures"]) == sorted(table["architectures"]) == sorted(arguments["architectures"])
    refused = [name for names in table["unsupported"].values() for name in names]
    assert len(refused) == len(set(refused))
    assert not set(refused) & set(table["architectures"])
    assert set(arguments["aliases"].values()) <= set(table["architectures"])
    assert not set(arguments["aliases"]) & set(table["architectures"])


def test_nothing_is_read_before_it_is_asked_for(monkeypatch):
    table = architectures._Configs()
    reads = []
    document = {"architectures": {"one": {}}}
    monkeypatch.setattr(architectures, "_document", lambda: reads.append(1) or document)
    assert reads == []
    assert "one" in table
    assert (len(table), list(table), table["one"]) == (1, ["one"], ViTConfig())
    assert reads == [1]


def test_a_test_may_name_its_own(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(NAMED_CONFIGS, "my_own", ViTConfig(depth=1))
        assert named_config("my_own.tag").depth == 1
    assert "my_own" not in NAMED_CONFIGS
    with pytest.raises(UsageFailed, match="unknown architecture 'my_own'"):
        named_config("my_own")


@pytest.mark.parametrize(
    ("name", "has", "offered"),
    [
        ("convnext_atto", "stages of convolutions", "-m py:timm.models:convnext_atto"),
        ("convnext_atto.d2_in1k", "stages of convolutions", "-m py:timm.models:convnext_atto"),
        ("swin_t", "shifted windows", "-m py:torchvision.models:swin_t --input-shape 3x224x224"),
        ("shufflenet_v2_x0_5", "stages of convolutions", "-m py:torchvision.models:shufflenet_v2_x0_5"),
        ("swin3d_t", "several frames", "-m py:torchvision.models:swin3d_t"),
        ("cait_xxs24_224", "class attention", "-m py:timm.models:cait_xxs24_224"),
    ],
)
def test_a_network_that_is_no_vit_is_refused_with_what_it_has_and_how_it_goes(name, has, offered):
    with pytest.raises(UsageFailed, match=has) as raised:
        named_config(name)
    assert offered in raised.value.next_command


def test_no_architecture_of_ours_begins_like_another_network():
    assert not [name for name in NAMED_CONFIGS if what_it_has(name)]


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_every_network_of_a_library_is_ours_or_is_refused_with_what_it_has(library):
    module = pytest.importorskip(library)
    names = (module if library == "timm" else module.models).list_models()
    assert len(names) > 50
    assert not [name for name in names if name not in NAMED_CONFIGS and not what_is_missing(name)]


def test_a_network_is_offered_from_a_library_that_has_it():
    timm, torchvision = pytest.importorskip("timm"), pytest.importorskip("torchvision")
    others = {"timm": set(timm.list_models()), "torchvision": set(torchvision.models.list_models())}
    for name in others["timm"] | others["torchvision"]:
        library = as_module(name).removeprefix("-m py:").partition(".")[0]
        assert name in others[library] or name in NAMED_CONFIGS, as_module(name)
