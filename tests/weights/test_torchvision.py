"""torchvision's ViTs: equal to torchvision's own forward, or refused with the reason."""

from __future__ import annotations

import pytest
import torch
from torchvision import models
from torchvision.models import VisionTransformer

from vit_deploy.errors import ImportFailed
from vit_deploy.model.architectures import named_config
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.resample import interpolate_positions
from vit_deploy.weights import load_model
from vit_deploy.weights.torchvision import preprocessing_of

BOUND = 1e-10
SIZES = {
    "image_size": 32,
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 12,
    "hidden_dim": 96,
    "mlp_dim": 160,
    "num_classes": 7,
}


@pytest.fixture
def save(tmp_path, move_weights):
    """A small model, saved as torchvision's users do, and itself."""

    def write(edit=lambda state: state, **sizes):
        module = move_weights(VisionTransformer(**{**SIZES, **sizes}), 3)
        torch.save(edit(module.state_dict()), tmp_path / "w.pth")
        return tmp_path / "w.pth", module.double()

    return write


def old_names(state):
    """As torchvision wrote them until 0.12."""
    return {
        name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): state[name] for name in state
    }


def half(state):
    return {name: value.half() for name, value in state.items()}


def wrapped(state):
    return {"model": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}


@pytest.mark.parametrize(
    ("edit", "sizes"),
    [
        (dict, {}),
        (old_names, {}),
        (wrapped, {}),
        (dict, {"representation_size": 40}),
        (dict, {"image_size": 48, "num_layers": 3}),
    ],
    ids=["new", "old", "wrapped", "pre-logits", "size"],
)
def test_equal(save, relative_error, run64, edit, sizes):
    path, module = save(edit, **sizes)
    model = load_model(str(path), arch="vit_b_16")
    pixels = torch.randn(2, 3, *model.config.image_size, dtype=torch.float64)
    found = run64(model, pixels)
    with torch.inference_mode():
        assert relative_error(found["logits"], module(pixels)) <= BOUND
        tokens = module.encoder(
            torch.cat([module.class_token.expand(2, -1, -1), module._process_input(pixels)], dim=1)
        )
        assert relative_error(found["tokens"], tokens) <= BOUND
    assert (model.source.kind, model.source.name) == ("torchvision", "vit_b_16")


def test_half_precision(save):
    path, module = save(half)
    weights = load_model(str(path), arch="vit_b_16").weights
    assert torch.equal(weights["head.weight"].read(), module.heads.head.weight.detach().half().float())


@pytest.mark.parametrize("name", ["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"])
def test_architectures_are_torchvisions(name):
    with torch.device("meta"):
        module = models.get_model(name)
    block = module.encoder.layers[0]
    assert named_config(name) == ViTConfig(
        image_size=(module.image_size,) * 2,
        patch_size=module.patch_size,
        embed_dim=module.hidden_dim,
        depth=len(module.encoder.layers),
        num_heads=block.num_heads,
        mlp_dim=module.mlp_dim,
        num_classes=module.num_classes,
        norm_eps=block.ln_1.eps,
        position_resampling="bicubic_aligned",
    )


def test_sizes_of_ones_own_are_noted(save):
    path, _ = save()
    model = load_model(str(path), arch="vit_b_16")
    (note,) = model.notes
    assert "embed_dim=96, depth=2, patch_size=8, mlp_dim=160" in note
    assert "12 heads" in note


def _claimed(name, tmp_path, **sizes):
    """A checkpoint of real sizes; one number stands for all of a tensor's."""
    with torch.device("meta"):
        module = models.get_model(name, **sizes)
    state = {key: torch.zeros(()).expand(value.shape) for key, value in module.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    return str(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("saved", "arch", "word"),
    [
        ("vit_l_16", "vit_b_16", "embed_dim=1024, depth=24"),
        ("vit_b_32", "vit_b_16", "patch_size=32"),
        ("vit_b_16", "vit_small_patch16_224", "embed_dim=768"),
        ("vit_b_16", "vit_small_patch14_dinov2", "LayerScale"),
        ("vit_b_16", "deit_base_distilled_patch16_224", "no distillation token"),
    ],
)
def test_another_architectures_weights(tmp_path, saved, arch, word):
    with pytest.raises(ImportFailed, match=word):
        load_model(_claimed(saved, tmp_path), arch=arch)


def test_no_head(save):
    path, _ = save(lambda state: {name: value for name, value in state.items() if "heads" not in name})
    with pytest.raises(ImportFailed, match=r"'head\.weight'"):
        load_model(str(path), arch="vit_b_16")
    assert load_model(str(path), arch="vit_b_16", num_classes=0).config.num_classes == 0


def test_a_convolutional_stem(tmp_path):
    from torchvision.models.vision_transformer import ConvStemConfig

    stem = [ConvStemConfig(8, 3, 2) for _ in range(3)]
    torch.save(VisionTransformer(**SIZES, conv_stem_configs=stem).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ImportFailed, match="a convolutional stem"):
        load_model(str(tmp_path / "w.pth"), arch="vit_b_16")


@pytest.mark.parametrize("size", [24, 48, 64])
def test_positions_are_resampled_as_torchvision_does(size):
    state = {"encoder.pos_embedding": torch.randn(1, 17, 6)}
    before = state["encoder.pos_embedding"]
    expected = models.vision_transformer.interpolate_embeddings(size, 8, dict(state))["encoder.pos_embedding"]
    found = interpolate_positions(before[0, 1:], (4, 4), (size // 8, size // 8), "bicubic_aligned")
    assert torch.equal(found, expected[0, 1:])


@pytest.mark.parametrize("size", [24, 64])
def test_another_resolution(save, size):
    path, module = save()
    state = models.vision_transformer.interpolate_embeddings(size, 8, module.float().state_dict())
    model = load_model(str(path), arch="vit_b_16", image_size=(size, size))
    assert torch.allclose(model.weights["pos_embed"].read(), state["encoder.pos_embedding"], rtol=0, atol=1e-6)


WEIGHTS = [
    (name, tag, entry)
    for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
    for tag, entry in models.get_model_weights(name).__members__.items()
]


@pytest.mark.parametrize(("name", "tag", "entry"), WEIGHTS, ids=[f"{name}.{tag}" for name, tag, _ in WEIGHTS])
def test_preprocessing_is_that_of_the_weights(name, tag, entry):
    """Against torchvision's transforms, on a picture that is wider than high."""
    from PIL import Image

    transform = entry.transforms()
    size = transform.crop_size[0]
    config = ViTConfig(image_size=(size, size), patch_size=2)
    recipe = preprocessing_of(f"{name}.{tag}", config)
    assert recipe.origin == "checkpoint"
    pixels = torch.randint(0, 256, (300, 401, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    picture = Image.fromarray(pixels.numpy())
    expected, found = transform(picture), torch.from_numpy(recipe(picture))
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    # Without the tag, resolution and architecture point to IMAGENET1K_V1, or to SWAG's only weights.
    if "LINEAR" not in tag:
        assert preprocessing_of(name, config) == recipe


def test_preprocessing_of_sizes_that_torchvision_has_not_is_a_default():
    recipe = preprocessing_of("vit_b_16", ViTConfig(image_size=(32, 32)))
    assert (recipe.origin, recipe.resize_size, recipe.interpolation) == ("default", (37, 37), "bilinear")
