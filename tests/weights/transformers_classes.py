"""Small models of transformers' classes, and how ours are compared with them; no tests by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from tests.specimens.values import randomise

EXACT = 1e-10
FLOAT32_TABLES = 1e-5
"""DINOv3's angles are computed in float32 there and in float64 here."""

_TOWER = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 100,
    "image_size": 32,
    "patch_size": 8,
}
_SIZES = {**_TOWER, "num_labels": 7}
_RATIO = {**{name: value for name, value in _SIZES.items() if name != "intermediate_size"}, "mlp_ratio": 2}
_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 37,
    "vocab_size": 50,
    "max_position_embeddings": 8,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "pad_token_id": 2,
}
_BOTH = {"vision_config": _TOWER, "text_config": _TEXT, "projection_dim": 20}
_DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 40,
}
_EACH, _SHARED = {"use_relative_position_bias": True}, {"use_shared_relative_position_bias": True}


@dataclass(frozen=True)
class Case:
    """A class, the config it is built with, and the outputs of theirs that ours are compared with."""

    name: str
    config: str
    sizes: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    bound: float = EXACT

    @property
    def id(self) -> str:
        given = {**self.options, **self.changes}
        return "-".join([self.name, *(f"{key}={value}" for key, value in given.items())])


def _case(name, config, sizes=_SIZES, options=None, bound=EXACT, **changes):
    return Case(name, config, {**sizes, **changes}, options or {}, changes, bound)


_V2, _REG, _V3 = "Dinov2Config", "Dinov2WithRegistersConfig", "DINOv3ViTConfig"
CASES = [
    _case("ViTMAEModel", "ViTMAEConfig", mask_ratio=0.0),
    _case("ViTMAEForPreTraining", "ViTMAEConfig", {**_SIZES, **_DECODER}, mask_ratio=0.0),
    _case("ViTMSNModel", "ViTMSNConfig", options={"use_mask_token": True}),
    _case("ViTMSNForImageClassification", "ViTMSNConfig"),
    _case("IJepaModel", "IJepaConfig"),
    _case("IJepaModel", "IJepaConfig", options={"use_mask_token": True}, qkv_bias=False),
    _case("IJepaForImageClassification", "IJepaConfig", image_size=[32, 48]),
    _case("ViTForImageClassification", "ViTConfig", hidden_act="gelu_new"),
    _case("ViTForImageClassification", "ViTConfig", hidden_act="quick_gelu"),
    _case("ViTForImageClassification", "ViTConfig", image_size=37),
    _case("Dinov2Model", _V2, _RATIO),
    _case("Dinov2Model", _V2, _RATIO, use_swiglu_ffn=True, qkv_bias=False),
    _case("Dinov2Model", _V2, _RATIO, use_mask_token=False, num_channels=1),
    _case("Dinov2Backbone", _V2, _RATIO),
    _case("Dinov2ForImageClassification", _V2, _RATIO),
    _case("Dinov2WithRegistersModel", _REG, _RATIO, num_register_tokens=3),
    _case("Dinov2WithRegistersBackbone", _REG, _RATIO),
    _case("Dinov2WithRegistersForImageClassification", _REG, _RATIO, use_swiglu_ffn=True),
    _case("DINOv3ViTModel", _V3, bound=FLOAT32_TABLES),
    _case("DINOv3ViTModel", _V3, bound=FLOAT32_TABLES, num_register_tokens=4, rope_theta=50.0),
    _case("DINOv3ViTModel", _V3, bound=FLOAT32_TABLES, use_gated_mlp=True, hidden_act="silu", mlp_bias=False),
    _case("DINOv3ViTModel", _V3, bound=FLOAT32_TABLES, query_bias=False, value_bias=False, proj_bias=False),
    _case("DINOv3ViTModel", _V3, bound=FLOAT32_TABLES, query_bias=False, key_bias=True, image_size=[32, 48]),
    _case("DINOv3ViTBackbone", _V3, bound=FLOAT32_TABLES, num_register_tokens=2),
    _case("PixioModel", "PixioConfig", _RATIO),
    _case("PixioModel", "PixioConfig", _RATIO, n_cls_tokens=1),
    _case("CLIPVisionModel", "CLIPVisionConfig", _TOWER),
    _case("CLIPVisionModel", "CLIPVisionConfig", _TOWER, hidden_act="gelu", layer_norm_eps=1e-3),
    _case("CLIPVisionModelWithProjection", "CLIPVisionConfig", _TOWER, projection_dim=20),
    _case("CLIPModel", "CLIPConfig", _BOTH),
    _case("CLIPForImageClassification", "CLIPConfig", _BOTH, num_labels=7),
    _case("MetaClip2VisionModel", "MetaClip2VisionConfig", _TOWER),
    _case("MetaClip2VisionModelWithProjection", "MetaClip2VisionConfig", _TOWER, projection_dim=20),
    _case("MetaClip2Model", "MetaClip2Config", _BOTH),
    _case("MetaClip2ForImageClassification", "MetaClip2Config", _BOTH, num_labels=7),
    _case("AltCLIPVisionModel", "AltCLIPVisionConfig", _TOWER),
    _case("AltCLIPModel", "AltCLIPConfig", _BOTH),
    _case("ChineseCLIPVisionModel", "ChineseCLIPVisionConfig", _TOWER),
    _case("ChineseCLIPModel", "ChineseCLIPConfig", _BOTH),
    _case("SiglipVisionModel", "SiglipVisionConfig", _TOWER),
    _case("SiglipVisionModel", "SiglipVisionConfig", _TOWER, image_size=37, hidden_act="gelu"),
    _case("SiglipVisionModel", "SiglipVisionConfig", _TOWER, vision_use_head=False),
    _case("SiglipModel", "SiglipConfig", {**_BOTH, "projection_dim": None}),
    _case("SiglipForImageClassification", "SiglipConfig", _BOTH, num_labels=7),
    _case("BeitModel", "BeitConfig", **_EACH),
    _case("BeitModel", "BeitConfig", **_SHARED, use_mean_pooling=False),
    _case("BeitModel", "BeitConfig", options={"add_pooling_layer": False}, **_EACH),
    _case("BeitModel", "BeitConfig", use_absolute_position_embeddings=True, layer_scale_init_value=0.0),
    _case("BeitModel", "BeitConfig", image_size=[32, 48]),
    _case("BeitForImageClassification", "BeitConfig", **_EACH),
    _case("BeitForImageClassification", "BeitConfig", **_SHARED, use_mean_pooling=False, use_mask_token=True),
    _case("BeitForMaskedImageModeling", "BeitConfig", **_EACH, vocab_size=20, use_mask_token=True),
    _case("Data2VecVisionModel", "Data2VecVisionConfig", **_EACH),
    _case("Data2VecVisionForImageClassification", "Data2VecVisionConfig", **_SHARED),
]


def save(case, directory):
    """Build a case's module with seeded weights, save it, and give it in float64."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    sizes = {key: value for key, value in case.sizes.items() if value is not None}
    config = getattr(transformers, case.config)(**sizes)
    module = randomise(getattr(transformers, case.name)(config, **case.options), seed=11)
    module.save_pretrained(directory)
    # In eager attention, most classes compute the softmax in float32 whatever the model's dtype.
    if not case.name.startswith("Data2Vec"):
        module.set_attn_implementation("sdpa")
    return module.double()


def _pixels(model, seed=3):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, model.config.in_channels, *model.config.image_size)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _ours(model, pixels):
    names = model.config.output_names
    with torch.inference_mode():
        outputs = model.eager(dtype=torch.float64, outputs=names)(pixels)
    return dict(zip(names, outputs, strict=True))


def _noise(module, pixels):
    """MAE shuffles its patches by noise; growing noise keeps them in order."""
    patches = module.config.image_size // module.config.patch_size
    return torch.arange(patches**2, dtype=torch.float64).expand(len(pixels), -1)


def _theirs(case, module, pixels):
    """What transformers gives, under the names of our outputs."""
    found = {}
    if case.name.endswith("ForPreTraining") or case.name == "ViTMAEModel":
        encoder = getattr(module, "vit", module)
        return {"tokens": encoder(pixels, noise=_noise(module, pixels)).last_hidden_state}
    if case.name.endswith("Backbone"):
        (features,) = module(pixels).feature_maps
        return {"patches": features.flatten(2).transpose(1, 2)}
    if "text_config" in case.sizes and case.name.endswith("Model"):
        tower = module.vision_model(pixel_values=pixels)
        embeds = module.get_image_features(pixel_values=pixels)
        found["image_embeds"] = getattr(embeds, "pooler_output", embeds)
        return {**found, "tokens": tower.last_hidden_state, "embedding": tower.pooler_output}
    if case.name == "BeitForMaskedImageModeling":
        return {"tokens": module.layernorm(module.beit(pixels).last_hidden_state)}
    if "ForImageClassification" in case.name:
        base = getattr(module, "vision_model", module.base_model)
        return {"logits": module(pixels).logits, "tokens": base(pixels).last_hidden_state}
    output = module(pixels)
    found["tokens"] = output.last_hidden_state
    found["embedding"] = getattr(output, "pooler_output", None)
    found["image_embeds"] = getattr(output, "image_embeds", None)
    return {name: value for name, value in found.items() if value is not None}


def agree(model, case, module):
    """Every output of theirs is one of ours, within the case's bound."""
    pixels = _pixels(model)
    ours = _ours(model, pixels)
    ours["patches"] = ours["tokens"][:, model.config.num_prefix_tokens :]
    with torch.inference_mode():
        theirs = _theirs(case, module, pixels)
    assert theirs
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape, name
        assert expected.dtype == torch.float64
        error = float((ours[name] - expected).norm() / expected.norm())
        assert error <= case.bound, f"{name}: {error}"
