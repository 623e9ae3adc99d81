"""timm's families, made small and saved by timm itself: tokens, embedding and logits are its own."""

from __future__ import annotations

import pytest
import torch

from vit_deploy.errors import ImportFailed
from vit_deploy.weights import load_model

BOUND = 1e-10
"""Largest relative error in float64: both sides compute the same sums in another order."""

ROTARY_BOUND = 1e-6
"""Where timm's tables of rotary positions are float32 whatever the model is."""

FAMILIES = [
    # name, what is changed
    ("vit_base_patch16_224_miil", {}),
    ("vit_medium_patch16_gap_256", {}),
    ("vit_base_patch16_gap_224", {}),
    ("vit_base_patch32_plus_256", {}),
    ("vit_small_patch16_36x1_224", {}),
    ("flexivit_small", {}),
    ("deit3_small_patch16_224", {"img_size": (48, 32)}),
    ("deit_tiny_distilled_patch16_224", {"num_classes": 0}),
    ("vit_small_patch14_dinov2", {"img_size": 48}),
    ("vit_giant_patch14_dinov2", {"embed_dim": 96}),
    ("vit_base_patch14_reg4_dinov2", {}),
    ("vit_giant_patch14_reg4_dinov2", {"embed_dim": 96, "num_classes": 7}),
    ("vit_base_patch32_clip_224", {}),
    ("vit_base_patch16_clip_quickgelu_224", {}),
    ("vit_base_patch16_siglip_224", {}),
    ("vit_so400m_patch14_siglip_384", {"patch_size": 7}),
    ("vit_giantopt_patch16_siglip_256", {}),
    ("vit_base_patch16_siglip_gap_224", {}),
    ("vit_base_patch16_reg4_gap_256", {}),
    ("vit_so150m_patch16_reg4_map_256", {}),
    ("test_vit3", {}),
    ("vit_base_patch16_radio_v3", {}),
    ("beit3_base_patch16_224", {}),
    ("eva_large_patch14_196", {}),
    ("eva_giant_patch14_224", {}),
    ("eva_giant_patch14_clip_224", {}),
    ("eva02_tiny_patch14_224", {"num_classes": 7}),
    ("eva02_base_patch14_448", {}),
    ("eva02_base_patch16_clip_224", {}),
    ("vit_medium_patch16_rope_reg1_gap_256", {}),
    ("vit_small_patch16_rope_224", {}),
    ("vit_base_patch16_rope_ape_224", {"img_size": (32, 48)}),
    ("vit_small_patch16_rope_mixed_224", {"img_size": (32, 48)}),
    ("vit_base_patch16_rope_mixed_ape_224", {}),
    ("vit_small_patch16_dinov3", {"img_size": (32, 48)}),
    ("vit_base_patch16_dinov3_qkvb", {}),
    ("vit_huge_plus_patch16_dinov3", {}),
    ("vit_7b_patch16_dinov3", {}),
    ("vit_base_patch16_lingbot", {}),
    ("vit_pe_core_tiny_patch16_384", {}),
    ("vit_pe_core_base_patch16_224", {}),
    ("vit_pe_lang_large_patch14_448", {}),
    ("vit_pe_spatial_tiny_patch16_512", {}),
    ("beit_base_patch16_224", {"img_size": (32, 48)}),
    ("beitv2_base_patch16_224", {}),
]


def compare(model, module, relative_error, run64):
    """Tokens, embedding and logits are timm's own, in float64."""
    config = model.config
    bound = BOUND if config.rotary is None else ROTARY_BOUND
    pixels = torch.randn(2, config.in_channels, *config.image_size, dtype=torch.float64)
    found = run64(model, pixels)
    with torch.inference_mode():
        module = module.double()
        tokens = module.forward_features(pixels)
        assert relative_error(found["tokens"], tokens) <= bound
        if not config.distillation_head:
            pooled = module.forward_head(tokens, pre_logits=True)
            assert relative_error(found["embedding"], pooled) <= bound
        if config.num_classes:
            assert relative_error(found["logits"], module(pixels)) <= bound


@pytest.mark.parametrize(("name", "kwargs"), FAMILIES)
def test_timm_family_equal(save_timm, relative_error, run64, name, kwargs):
    directory, module = save_timm(name, **kwargs)
    compare(load_model(str(directory)), module, relative_error, run64)


ARGUMENTS = [
    ("vit_base_patch16_224", {"global_pool": "avg"}),
    ("vit_base_patch16_224", {"global_pool": "avg", "fc_norm": False}),
    ("vit_base_patch16_224", {"global_pool": "max"}),
    ("vit_base_patch16_224", {"global_pool": "avgmax", "class_token": False}),
    ("vit_base_patch16_224", {"global_pool": "avg", "pool_include_prefix": True, "reg_tokens": 2}),
    ("vit_base_patch16_224", {"global_pool": "map"}),
    ("vit_base_patch16_224", {"global_pool": "map", "pool_include_prefix": True, "act_layer": "relu"}),
    ("vit_base_patch16_224", {"init_values": 0.1, "qk_norm": True, "proj_bias": False}),
    ("vit_base_patch16_224", {"init_values": 0.0, "pre_norm": True, "act_layer": "quick_gelu"}),
    ("vit_base_patch16_224", {"scale_attn_norm": True, "scale_mlp_norm": True, "act_layer": "swish"}),
    ("vit_base_patch16_224", {"pos_embed": "none", "reg_tokens": 3}),
    ("vit_base_patch16_224", {"no_embed_class": True, "reg_tokens": 3, "final_norm": False}),
    ("vit_base_patch16_224", {"reg_tokens": 3, "norm_layer": "layernorm", "act_layer": "gelu_tanh"}),
    ("vit_base_patch16_224", {"dynamic_img_size": True, "drop_rate": 0.1, "drop_path_rate": 0.2}),
    ("vit_base_patch16_224", {"img_size": 45, "patch_size": 8}),
    ("deit3_base_patch16_224", {"global_pool": "avg", "mlp_ratio": 2.5, "qkv_bias": False}),
    ("vit_base_patch32_clip_224", {"norm_layer": "layernorm", "in_chans": 1}),
    ("vit_giant_patch14_dinov2", {"embed_dim": 96, "act_layer": "gelu", "mlp_ratio": 4}),
    ("eva_giant_patch14_224", {"global_pool": "token", "qkv_bias": False}),
    ("eva_giant_patch14_224", {"global_pool": "map", "attn_pool_num_heads": 2, "attn_pool_mlp_ratio": 3}),
    ("eva_giant_patch14_224", {"swiglu_mlp": True, "swiglu_align_to": 32, "mlp_ratio": 2.7, "scale_mlp": True}),
    ("eva_giant_patch14_224", {"init_values": 0.0, "qkv_fused": False, "num_reg_tokens": 2}),
    ("eva02_tiny_patch14_224", {"rope_rotate_half": True, "rope_grid_offset": 0.5, "ref_feat_shape": [7, 5]}),
    (
        "eva02_tiny_patch14_224",
        {"rope_temperature": 50.0, "rope_grid_indexing": "xy", "ref_feat_shape": [7, 5], "img_size": (32, 48)},
    ),
    ("eva02_tiny_patch14_224", {"use_abs_pos_emb": False, "scale_attn_inner": True, "qk_norm": True}),
    (
        "eva02_tiny_patch14_224",
        {"attn_type": "rope", "qkv_fused": False, "no_embed_class": True, "use_pre_transformer_norm": True},
    ),
    ("vit_small_patch16_dinov3", {"rope_rotate_half": False, "rope_grid_indexing": "xy", "img_size": (32, 48)}),
    ("beit_base_patch16_224", {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}),
    ("beit_base_patch16_224", {"use_abs_pos_emb": True, "global_pool": "token", "qkv_bias": False}),
    ("beit_base_patch16_224", {"swiglu_mlp": True, "scale_mlp": True, "init_values": 0.0}),
    ("beit_base_patch16_224", {"use_fc_norm": False}),
]


@pytest.mark.parametrize(("name", "kwargs"), ARGUMENTS)
def test_timm_arguments_are_honoured(save_timm, relative_error, run64, name, kwargs):
    directory, module = save_timm(name, **kwargs)
    compare(load_model(str(directory)), module, relative_error, run64)


@pytest.mark.parametrize(
    ("name", "kwargs", "word"),
    [
        ("vit_base_patch16_224", {"norm_layer": "rmsnorm"}, "norm_layer='rmsnorm'"),
        ("vit_base_patch16_224", {"global_pool": ""}, "global_pool=''"),
        ("vit_base_patch16_224", {"global_pool": "prr"}, "global_pool='prr'"),
        ("vit_base_patch16_224", {"attn_layer": "diff"}, "differential attention"),
        ("vit_base_patch16_224", {"act_layer": "mish"}, "act_layer='mish'"),
        ("vit_base_patch16_224", {"embed_norm_layer": "layernorm"}, "embed_norm_layer='layernorm'"),
        ("vit_base_patch16_224", {"img_size": 45, "dynamic_img_pad": True}, "dynamic_img_pad=True"),
        (
            "vit_base_patch16_224",
            {"global_pool": "max", "fc_norm": False, "pool_include_prefix": True},
            "pool_include_prefix=True",
        ),
        ("eva_giant_patch14_224", {"use_post_norm": True}, "use_post_norm=True"),
        ("eva_giant_patch14_224", {"attn_only_layer_scale": True, "init_values": 0.1}, "attn_only_layer_scale"),
        (
            "eva_giant_patch14_224",
            {"num_kv_heads": 2, "attn_type": "rope", "qkv_fused": False},
            "num_kv_heads=2",
        ),
        ("beit_base_patch16_224", {"use_shared_rel_pos_bias": True}, "use_shared_rel_pos_bias"),
    ],
)
def test_timm_arguments_that_cannot_be_said_are_refused(save_timm, name, kwargs, word):
    directory, _ = save_timm(name, **kwargs)
    with pytest.raises(ImportFailed, match=word):
        load_model(str(directory))
