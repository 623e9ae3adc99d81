"""Release files whose names resemble timm's, given with --arch: equal to what timm itself makes of them."""

from __future__ import annotations

import importlib
import re

import pytest
import torch

from vit_deploy.errors import ImportFailed
from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.weights import load_model
from vit_deploy.weights.timm.arguments import config_from_arguments

SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 4, "img_size": 32, "patch_size": 8, "num_classes": 7}


def renamed(state, *rules):
    """A state dict under other names."""
    found = {}
    for name, value in state.items():
        for pattern, other in rules:
            name = re.sub(pattern, other, name)
        found[name] = value
    return found


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def dinov2(state):
    """Blocks in a chunk, a mask token."""
    return {**renamed(state, (r"^blocks\.", "blocks.0.")), "mask_token": noise(1, 48)}


def dinov2_giant(state):
    return renamed(
        {**state, "mask_token": noise(1, 96)}, (r"mlp\.fc1\.", "mlp.w12."), (r"mlp\.fc2\.", "mlp.w3.")
    )


def dinov2_registers(state):
    """The class token has a position of its own."""
    state = renamed(state, ("^reg_token$", "register_tokens"))
    state["pos_embed"] = torch.cat([noise(1, 1, 48), state["pos_embed"]], dim=1)
    return {**state, "mask_token": noise(1, 48)}


def mae(state):
    decoder = {"decoder_embed.weight": noise(32, 48), "decoder_pos_embed": noise(1, 17, 32)}
    decoder |= {"decoder_blocks.0.norm1.weight": noise(32), "decoder_pred.bias": noise(192)}
    return {**state, **decoder, "mask_token": noise(1, 1, 32)}


def deit3(state):
    return renamed(state, (r"ls([12])\.gamma", r"gamma_\1"))


def beit(state):
    index = torch.arange(17 * 17).reshape(17, 17)
    return {**state, **{f"blocks.{at}.attn.relative_position_index": index for at in range(2)}}


def eva02(state):
    """Query, key and value apart, the biases beside them; tables of rotary positions."""
    rules = (r"mlp\.fc1_g\.", "mlp.w1."), (r"mlp\.fc1_x\.", "mlp.w2."), (r"mlp\.fc2\.", "mlp.w3.")
    names = (r"mlp\.norm\.", "mlp.ffn_ln."), (r"([qv])_proj\.bias", r"\1_bias")
    found = renamed(state, *rules, *names)
    return {**found, "rope.freqs_cos": noise(16, 12), "blocks.0.attn.rope.freqs_sin": noise(16, 12)}


def dinov3(state):
    found = renamed(state, ("^reg_token$", "storage_tokens"), (r"gamma_([12])$", r"ls\1.gamma"))
    for at in range(2):
        query, value = (found.pop(f"blocks.{at}.attn.{letter}_bias") for letter in "qv")
        found[f"blocks.{at}.attn.qkv.bias"] = torch.cat([query, noise(48), value])
        found[f"blocks.{at}.attn.qkv.bias_mask"] = torch.ones(144).index_fill(0, torch.arange(48, 96), 0)
    return {**found, "mask_token": noise(1, 48), "rope_embed.periods": noise(3).to(torch.bfloat16)}


RELEASES = [
    ("vit_small_patch14_dinov2", {"num_classes": 0}, dinov2),
    ("vit_giant_patch14_dinov2", {"num_classes": 0, "embed_dim": 96}, dinov2_giant),
    ("vit_base_patch14_reg4_dinov2", {"num_classes": 0}, dinov2_registers),
    ("vit_base_patch16_224", {"num_classes": 0}, mae),
    ("vit_base_patch16_224", {"global_pool": "avg"}, dict),
    ("deit3_base_patch16_224", {}, deit3),
    ("deit_tiny_distilled_patch16_224", {}, dict),
    ("beit_base_patch16_224", {}, beit),
    ("eva02_base_patch14_448", {}, eva02),
    ("vit_base_patch16_dinov3_qkvb", {"num_classes": 0}, dinov3),
]


@pytest.mark.parametrize(
    ("name", "kwargs", "release"), RELEASES, ids=lambda value: getattr(value, "__name__", None)
)
def test_release_file_equal(tmp_path, monkeypatch, move_weights, relative_error, run64, name, kwargs, release):
    import timm

    module = move_weights(timm.create_model(name, **{**SIZES, **kwargs}), 4)
    state = {key: value.detach().clone() for key, value in module.state_dict().items()}
    torch.save({"model": release(state)}, tmp_path / "release.pth")
    # A file says nothing of pooling: it is the architecture's, or shows in the weights.
    sizes = {key: value for key, value in {**SIZES, **kwargs}.items() if key != "global_pool"}
    monkeypatch.setitem(NAMED_CONFIGS, "small_release", config_from_arguments(name, sizes))
    model = load_model(str(tmp_path / "release.pth"), arch="small_release")

    original = {key: value.double() for key, value in release(state).items() if value.is_floating_point()}
    convert = importlib.import_module(type(module).__module__).checkpoint_filter_fn
    options = {"adapt_layer_scale": True} if name.startswith("deit3") else {}
    converted = {
        re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key): value
        for key, value in convert(dict(original), module, **options).items()
        if not key.startswith(("decoder_", "mask_token", "blocks.0.attn.rope"))
    }
    module.double().load_state_dict(converted)
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    found = run64(model, pixels)
    bound = 1e-10 if model.config.rotary is None else 1e-6
    with torch.inference_mode():
        assert relative_error(found["tokens"], module.forward_features(pixels)) <= bound
        if model.config.num_classes:
            assert relative_error(found["logits"], module(pixels)) <= bound


def test_pre_logits_of_the_first_releases(save_timm, tmp_path, small_arch, run64, relative_error):
    """A tanh layer before the head, which later versions of timm leave out."""
    _, module = save_timm(mlp_ratio=100 / 48)
    state = {**module.state_dict(), "pre_logits.fc.weight": noise(20, 48), "pre_logits.fc.bias": noise(20)}
    state["head.weight"] = noise(7, 20)
    torch.save(state, tmp_path / "first.pth")
    model = load_model(str(tmp_path / "first.pth"), arch=small_arch)
    assert model.config.representation_size == 20
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        token = module.double().forward_features(pixels)[:, 0]
        layer, head = (state[f"{name}.weight"].double() for name in ("pre_logits.fc", "head"))
        hidden = torch.tanh(token @ layer.T + state["pre_logits.fc.bias"].double())
        expected = hidden @ head.T + state["head.bias"].double()
    assert relative_error(run64(model, pixels)["logits"], expected) <= 1e-10


@pytest.mark.parametrize(
    ("saved", "kwargs", "arch", "said"),
    [
        (
            "vit_base_patch14_reg4_dinov2",
            {},
            "vit_base_patch14_dinov2",
            "4 register tokens.*DINOv2 with registers",
        ),
        ("vit_base_patch14_dinov2", {}, "vit_base_patch14_reg4_dinov2", "no register tokens.*DINOv2"),
        (
            "vit_base_patch14_reg4_dinov2",
            {},
            "vit_base_patch16_224",
            "LayerScale.*patch_size=14.*with registers",
        ),
        ("deit_tiny_distilled_patch16_224", {}, "deit_tiny_patch16_224", "distillation head.*distilled DeiT"),
        ("deit_tiny_patch16_224", {}, "deit_tiny_distilled_patch16_224", "no distillation token"),
        ("vit_base_patch32_clip_224", {}, "vit_base_patch32_224", "norm before the blocks.*CLIP"),
        (
            "vit_base_patch16_siglip_224",
            {},
            "vit_base_patch16_224",
            "attention pooling.*no class token.*SigLIP",
        ),
        ("beit_base_patch16_224", {}, "vit_base_patch16_224", "relative positions.*BEiT"),
        (
            "vit_large_patch16_224",
            {},
            "vit_base_patch16_224",
            "embed_dim=1024, depth=24.*vit_large_patch16_224",
        ),
        ("vit_small_patch16_dinov3", {}, "vit_small_patch16_224", "DINOv3"),
    ],
)
def test_what_a_checkpoint_looks_like(tmp_path, saved, kwargs, arch, said):
    """The shapes are those of the real sizes; no number is read before the refusal."""
    import timm

    with torch.device("meta"):
        module = timm.create_model(saved, **kwargs)
    # One number stands for all of a tensor's.
    state = {name: torch.zeros(1).expand(value.shape) for name, value in module.state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ImportFailed, match=said) as caught:
        load_model(str(tmp_path / "weights.pth"), arch=arch)
    assert f"--arch {saved}" in caught.value.next_command or saved in caught.value.next_command


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("patch_embed.backbone.stem.conv.weight", "convolutional stem"),
        ("blocks.0.attn.rel_pos_h", "SAM"),
        ("blocks.0.attns.1.norm.weight", "side by side"),
    ],
)
def test_a_vit_that_cannot_be_said(tmp_path, name, said):
    torch.save({name: torch.zeros(2, 2)}, tmp_path / "weights.pth")
    with pytest.raises(ImportFailed, match=said):
        load_model(str(tmp_path / "weights.pth"), arch="vit_base_patch16_224")


def test_two_weights_of_one_meaning(tmp_path):
    state = {"reg_token": torch.zeros(1, 4, 8), "register_tokens": torch.zeros(1, 4, 8)}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ImportFailed, match="same meaning"):
        load_model(str(tmp_path / "weights.pth"), arch="vit_base_patch16_224")


@pytest.mark.parametrize(
    ("saved", "kwargs", "looks"),
    [
        ("vit_base_patch14_reg4_dinov2", {}, "DINOv2 with registers, of another size"),
        ("deit_tiny_distilled_patch16_224", {}, "distilled DeiT, of another size"),
        ("vit_tiny_patch16_224", {"no_embed_class": True, "init_values": 1e-5}, ""),
    ],
)
def test_what_a_checkpoint_of_sizes_of_its_own_looks_like(tmp_path, saved, kwargs, looks):
    import timm

    with torch.device("meta"):
        module = timm.create_model(saved, embed_dim=48, depth=2, num_heads=4, img_size=56, **kwargs)
    torch.save(
        {name: torch.zeros(value.shape) for name, value in module.state_dict().items()}, tmp_path / "w.pth"
    )
    with pytest.raises(ImportFailed) as caught:
        load_model(str(tmp_path / "w.pth"), arch="eva02_base_patch14_448")
    assert caught.value.found.partition("it looks like ")[2] == looks
