from __future__ import annotations

import subprocess
import sys

from vit_deploy.model.architectures import NAMED_CONFIGS


def test_the_table_is_golden(invoke, golden):
    result = invoke("models", "dinov2")
    assert result.code == 0
    golden("models.txt", result.out)


def test_without_a_word_everything_is_listed(invoke):
    result = invoke("models")
    assert result.code == 0
    assert all(name in result.out for name in NAMED_CONFIGS)
    assert "py:PACKAGE.MODULE:FACTORY" in result.out


def test_weights_on_the_hub_are_found_by_their_tag(invoke):
    rows = {row["name"]: row for row in invoke("models", "dino", "--json").json["models"]}
    assert rows["vit_base_patch16_224"]["pretrained"] == [
        {"tag": "dino", "hub": "hf-hub:timm/vit_base_patch16_224.dino"}
    ]
    assert rows["vit_base_patch14_reg4_dinov2"]["parts"] == ["4 registers", "LayerScale"]


def test_each_source_says_what_it_maps_to(invoke):
    sources = {entry["name"]: entry for entry in invoke("models", "--json").json["sources"]}
    assert list(sources) == ["native", "timm", "transformers", "open_clip", "torchvision", "jax_npz", "module"]
    assert "vit_base_patch16_224" in sources["timm"]["maps_to"]
    assert {"dinov2", "siglip", "clip_vision_model"} <= set(sources["transformers"]["maps_to"])
    assert "ViT-B-32" in sources["open_clip"]["maps_to"]
    assert sources["torchvision"]["maps_to"] == ["vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32"]


def test_what_is_not_supported_is_named_with_what_it_has(invoke):
    result = invoke("models", "swin_tiny_patch4_window7_224")
    assert result.code == 0
    assert "not supported: it has shifted windows and merged patches" in result.out
    document = invoke("models", "swin_tiny_patch4_window7_224", "--json").json
    assert document["unsupported"] == [
        {"name": "swin_tiny_patch4_window7_224", "missing": "shifted windows and merged patches"}
    ]


def test_every_named_architecture_is_in_the_document(invoke):
    rows = invoke("models", "--json").json["models"]
    assert [row["name"] for row in rows] == list(NAMED_CONFIGS)
    base = next(row for row in rows if row["name"] == "vit_base_patch16_224")
    assert base["parameters"] == 86_567_656  # timm's own figure
    assert base["gmacs"] == 17.564
    assert base["image_size"] == [224, 224]


def test_a_search_keeps_what_contains_it(invoke):
    rows = invoke("models", "DEIT_BASE_DISTILLED", "--json").json["models"]
    assert [row["name"] for row in rows] == [
        "deit_base_distilled_patch16_224",
        "deit_base_distilled_patch16_384",
    ]


def test_the_next_command_is_told_on_stderr(invoke):
    result = invoke("models", "vit_giant_patch14_224")
    assert result.err == "next: vit-deploy inspect vit_giant_patch14_224\n"


def test_an_unknown_search_lists_the_nearest_first(invoke):
    result = invoke("models", "vit_bse_patch16_224")
    assert result.code == 2
    assert "did you mean 'vit_base_patch16_224'?" in result.err
    assert result.out == ""


def test_listing_needs_no_torch():
    code = (
        "import sys; from vit_deploy.cli import main\n"
        "try: main(['models'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
