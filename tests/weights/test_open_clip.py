"""OpenCLIP's image towers: equal to ``encode_image(normalize=False)``, or refused with what is missing."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from vit_deploy.errors import ImportFailed
from vit_deploy.weights import load_model

BOUND = 1e-10
OWN = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16}
TEXT = {"context_length": 8, "vocab_size": 99, "width": 32, "heads": 2, "layers": 1}
SAFE, PICKLED = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"


@pytest.fixture
def save(tmp_path, move_weights):
    """A small CLIP, saved by OpenCLIP itself, and itself."""
    import open_clip
    from open_clip.push_to_hf_hub import save_for_hf

    def write(vision, *, safe=True, custom_text=False, preprocess=None, **described):
        cfg = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT, **described}
        made = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**cfg)
        module = move_weights(made, 5)
        open_clip.model.set_model_preprocess_cfg(module, preprocess or {"mean": [0.4] * 3, "std": [0.3] * 3})
        tokenizer = SimpleNamespace(save_pretrained=lambda folder: None)
        save_for_hf(module, tokenizer, cfg, str(tmp_path / "clip"), safe_serialization=safe)
        return tmp_path / "clip", module

    return write


def embeds(module, pixels):
    with torch.inference_mode():
        return module.double().encode_image(pixels, normalize=False)


def ours(model, pixels):
    module = model.eager(dtype=torch.float64, outputs=("image_embeds", "tokens"))
    with torch.inference_mode():
        return module(pixels)


@pytest.mark.parametrize(
    ("vision", "described"),
    [
        (OWN, {}),
        (OWN, {"quick_gelu": True}),
        (OWN, {"custom_text": True}),
        ({**OWN, "ls_init_value": 1e-4}, {}),
        ({**OWN, "pool_type": "avg"}, {}),
        ({**OWN, "pool_type": "avg", "no_ln_pre": True, "final_ln_after_pool": True}, {}),
        ({**OWN, "final_ln_after_pool": True}, {}),
        ({**OWN, "pos_embed_type": "sin_cos_2d", "patch_dropout": 0.5}, {}),
        ({**OWN, "mlp_ratio": 2.51, "image_size": [32, 48]}, {}),
        ({**OWN, "image_size": 36}, {}),
        ({**OWN, "norm_kwargs": {"eps": 1e-3}, "act_kwargs": {"approximate": "tanh"}}, {}),
        ({**OWN, "qk_norm": True, "scale_attn_inner": True, "scale_fc": True}, {}),
        ({**OWN, "qk_norm": True, "block_type": "default"}, {}),
    ],
)
def test_own_towers_equal(save, relative_error, vision, described):
    directory, module = save(vision, **described)
    model = load_model(str(directory))
    pixels = torch.randn(2, 3, *model.config.image_size, dtype=torch.float64)
    found, tokens = ours(model, pixels)
    assert relative_error(found, embeds(module, pixels)) <= BOUND
    visual = module.visual
    with torch.inference_mode():
        expected = visual.transformer(visual._embeds(pixels))
        expected = expected if visual.final_ln_after_pool else visual.ln_post(expected)
    assert relative_error(tokens, expected) <= BOUND
    assert model.source.kind == "open_clip"
    assert model.config.default_outputs == ("image_embeds",)


@pytest.fixture
def two_blocks(monkeypatch):
    """timm's models are that deep: OpenCLIP's config has no field for it."""
    import timm

    from vit_deploy.weights.open_clip import config as open_clip_config

    create, derive = timm.create_model, open_clip_config.config_from_arguments
    monkeypatch.setattr(timm, "create_model", lambda name, **kwargs: create(name, depth=2, **kwargs))
    monkeypatch.setattr(
        open_clip_config,
        "config_from_arguments",
        lambda arch, args, where: derive(arch, {**args, "depth": 2}, where),
    )


@pytest.mark.parametrize(
    ("vision", "width"),
    [
        ({"timm_model_name": "vit_base_patch32_clip_224", "timm_pool": "token", "timm_proj": None}, 24),
        ({"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear"}, 24),
        ({"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "avg", "timm_proj": "linear"}, 24),
        ({"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear"}, 24),
        ({"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "avg", "timm_proj": None}, 24),
        ({"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"}, 768),
        (
            {
                "timm_model_name": "vit_tiny_patch16_224",
                "timm_pool": "token",
                "timm_proj": "linear",
                "timm_proj_bias": True,
            },
            24,
        ),
    ],
    ids=lambda value: "-".join(str(part) for part in value.values()) if isinstance(value, dict) else "",
)
def test_timm_towers_equal(save, relative_error, two_blocks, vision, width):
    directory, module = save({**vision, "image_size": 224}, custom_text=True)
    model = load_model(str(directory))
    pixels = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    found, tokens = ours(model, pixels)
    assert found.shape == (1, width)
    assert relative_error(found, embeds(module, pixels)) <= BOUND
    with torch.inference_mode():
        assert relative_error(tokens, module.visual.trunk.forward_features(pixels)) <= BOUND
    assert model.source.name == vision["timm_model_name"]


@pytest.mark.parametrize("size", [(24, 24), (32, 64)])
def test_another_resolution(save, size):
    from open_clip.model import resize_pos_embed

    directory, module = save(OWN)
    state = module.state_dict()
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=(size[0] // 8, size[1] // 8))))
    found = load_model(str(directory), image_size=size).weights["pos_embed"].read()
    assert torch.allclose(found[0], state["visual.positional_embedding"], rtol=0, atol=1e-6)


def test_rotary_tower_of_timms(save, two_blocks):
    """timm's table of rotations is narrow unless it is made in float64, as the proof makes it."""
    from vit_deploy.proof import prove_import
    from vit_deploy.weights.request import Request

    vision = {"timm_model_name": "eva02_base_patch16_clip_224", "timm_pool": "token", "timm_proj": None}
    directory, _ = save({**vision, "image_size": 224}, custom_text=True)
    model = load_model(str(directory))
    assert model.config.projection_bias
    proof = prove_import(Request(str(directory)), model)
    assert proof.passed, proof.sentence
    assert {"embedding", "tokens", "image_embeds"} <= set(proof.errors)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_half_precision_and_both_kinds_of_file(save, safe):
    directory, module = save(OWN, safe=safe)
    assert (directory / (SAFE if safe else PICKLED)).is_file()
    weight = load_model(str(directory)).weights["projection.weight"].read()
    assert torch.equal(weight, module.visual.proj.detach().T)
    assert weight.is_contiguous()


@pytest.mark.parametrize("prefix", ["", "visual.", "module.visual."])
def test_bare_files(save, tmp_path, relative_error, prefix):
    _, module = save({**OWN, "width": 96, "head_width": 8}, quick_gelu=True)
    state = {f"{prefix}{name}": value for name, value in module.visual.state_dict().items()}
    if prefix:
        state |= {f"{prefix.removesuffix('visual.')}logit_scale": torch.ones(())}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    model = load_model(str(tmp_path / "w.pt"), arch="ViT-B-32-quickgelu")
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert relative_error(ours(model, pixels)[0], embeds(module, pixels)) <= BOUND


def test_what_a_bare_file_does_not_say(save, tmp_path):
    _, module = save({**OWN, "width": 96, "head_width": 8})
    torch.save(module.state_dict(), tmp_path / "w.pt")
    model = load_model(str(tmp_path / "w.pt"), arch="ViT-B-32")
    assert (model.preprocessing.origin, model.preprocessing.resize_size) == ("default", (32, 32))
    assert "12 heads" in model.notes[-1]
    with pytest.raises(ImportFailed, match="a norm before the blocks"):
        load_model(str(tmp_path / "w.pt"), arch="ViT-L-14-CLIPA")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"attentional_pool": True, "attn_pooler_heads": 2}, "CoCa's attentional pooler"),
        ({"scale_attn": True}, "a norm after attention"),
        ({"scale_heads": True}, "a scale on each head"),
    ],
)
def test_towers_whose_config_keeps_quiet(save, edit_json, changes, word):
    directory, _ = save({**OWN, **changes})
    document = json.loads((directory / "open_clip_config.json").read_text())
    document["model_cfg"]["vision_cfg"] = OWN
    edit_json(directory / "open_clip_config.json", **document)
    with pytest.raises(ImportFailed, match=word):
        load_model(str(directory))


def test_a_directory_of_both_libraries_goes_to_the_one_whose_weights_are_there(save, tmp_path):
    directory, _ = save(OWN)
    (directory / "config.json").write_text('{"model_type": "clip"}')
    assert load_model(str(directory)).source.kind == "open_clip"
    (directory / "model.safetensors").write_bytes((directory / SAFE).read_bytes())
    with pytest.raises(ImportFailed):  # transformers' now, whose names these are not
        load_model(str(directory))


def test_preprocessing_of_a_directory(save):
    directory, _ = save(OWN, preprocess={"mean": [0.1, 0.2, 0.3], "std": [0.4] * 3, "resize_mode": "squash"})
    recipe = load_model(str(directory)).preprocessing
    assert (recipe.mean, recipe.resize, recipe.resize_size) == ((0.1, 0.2, 0.3), "exact", (32, 32))
