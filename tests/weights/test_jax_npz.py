"""Google's ``.npz`` checkpoints: equal to what timm's own loader makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.specimens.jax_npz import AUGREG, BIG_VISION, OPTIMISER, SCANNED, SIGLIP, google_arrays
from vit_deploy.errors import ImportFailed
from vit_deploy.weights import load_model

BOUND = 1e-10
SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "mlp_ratio": 2.5}


@pytest.fixture
def make(tmp_path, move_weights):
    """The weights of a small timm model in one of Google's layouts; the file, and timm's reading of it."""
    import timm

    def write(arch, layout, *, save=np.savez, edit=lambda arrays: arrays, **sizes):
        sizes = {**SIZES, "num_classes": 7, **sizes}
        arrays = edit(google_arrays(move_weights(timm.create_model(arch, **sizes), 3), layout))
        path = tmp_path / "w.npz"
        save(path, **arrays)
        twin = move_weights(timm.create_model(arch, **sizes), 4)
        twin.load_pretrained(str(path))
        return str(path), twin.double()

    return write


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("arch", "layout", "sizes"),
    [
        ("vit_tiny_patch16_224", AUGREG, {}),
        ("vit_base_patch32_224", OPTIMISER, {"in_chans": 1}),
        ("vit_base_patch16_224", SCANNED, {"no_embed_class": True, "depth": 3}),
        ("vit_base_patch16_gap_224", BIG_VISION, {}),
        ("vit_base_patch16_siglip_224", SIGLIP, {"num_classes": 0}),
        ("vit_so400m_patch16_siglip_256", SCANNED, {"num_classes": 0}),
    ],
)
def test_equal(make, relative_error, run64, arch, layout, sizes, save):
    path, module = make(arch, layout, save=save, **sizes)
    model = load_model(path, arch=arch)
    pixels = torch.randn(2, model.config.in_channels, 32, 32, dtype=torch.float64)
    found = run64(model, pixels)
    with torch.inference_mode():
        assert relative_error(found["tokens"], module.forward_features(pixels)) <= BOUND
        last = "logits" if model.config.num_classes else "embedding"
        assert relative_error(found[last], module(pixels)) <= BOUND
    assert (model.source.kind, model.source.name) == ("jax_npz", arch)
    assert model.config.num_heads == 4


@pytest.mark.parametrize("size", [24, 48])
def test_another_resolution(make, move_weights, relative_error, run64, size):
    """timm's loader of these files resamples otherwise than the rest of timm."""
    import timm

    path, _ = make("vit_base_patch16_224", AUGREG)
    twin = move_weights(
        timm.create_model("vit_base_patch16_224", **{**SIZES, "img_size": size}, num_classes=7), 4
    )
    twin.load_pretrained(path)
    model = load_model(path, arch="vit_base_patch16_224", image_size=(size, size))
    expected = twin.pos_embed.detach()
    assert torch.allclose(model.weights["pos_embed"].read(), expected, rtol=0, atol=1e-6)


def test_heads_are_read_off_the_shapes(make):
    """The architecture has twelve; a wrong number would load, and give something else."""
    path, _ = make("vit_base_patch16_224", AUGREG, num_heads=6)
    assert load_model(path, arch="vit_base_patch16_224").config.num_heads == 6


def test_positions_before_or_after_the_class_token(make):
    path, _ = make("vit_base_patch16_224", AUGREG)
    assert load_model(path, arch="vit_base_patch16_224").config.position_scope == "all"
    path, _ = make("vit_base_patch16_224", BIG_VISION, no_embed_class=True)
    assert load_model(path, arch="vit_base_patch16_224").config.position_scope == "patches"


def test_the_representation_layer(make, run64, relative_error):
    """``pre_logits``, which timm's loader leaves out: ``tanh`` between pooling and head."""
    path, module = make("vit_base_patch16_224", AUGREG)
    generator = np.random.default_rng(1)
    top = {"pre_logits/kernel": (48, 40), "pre_logits/bias": (40,), "head/kernel": (40, 7), "head/bias": (7,)}
    new = {name: generator.normal(size=shape).astype("float32") for name, shape in top.items()}
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, **new})
    model = load_model(path, arch="vit_base_patch16_224")
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        token = module.forward_features(pixels)[:, 0].numpy()
    hidden = np.tanh(token @ new["pre_logits/kernel"] + new["pre_logits/bias"])
    expected = torch.from_numpy(hidden @ new["head/kernel"] + new["head/bias"])
    assert relative_error(run64(model, pixels)["logits"], expected) <= BOUND


def test_what_training_keeps_beside_is_left_out(make):
    def add(arrays):
        return {
            **arrays,
            "opt/state/step": np.int64(3),
            "opt/state/param_states/head/kernel/exp_avg": np.ones((48, 7), "float32"),
        }

    path, _ = make("vit_base_patch16_224", OPTIMISER, edit=add)
    assert load_model(path, arch="vit_base_patch16_224").config.depth == 2


def test_both_towers_of_siglip(make):
    def add(arrays):
        text = {"Embed_0/embedding": (9, 4), "pos_embedding": (1, 4, 4), "Encoder_0/encoder_norm/scale": (4,)}
        beside = {f"params/txt/{name}": np.ones(shape, "float32") for name, shape in text.items()}
        return {**arrays, **beside, "params/t": np.ones(1, "float32"), "params/b": np.ones(1, "float32")}

    path, _ = make("vit_base_patch16_siglip_224", SIGLIP, edit=add, num_classes=0)
    assert load_model(path, arch="vit_base_patch16_siglip_224").config.pool == "map"


@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("layout", [AUGREG, SCANNED], ids=["", "scanned"])
def test_other_dtypes_and_orders(make, dtype, order, layout):
    path, _ = make("vit_base_patch16_224", layout, num_classes=3, no_embed_class=layout.stacked)
    expected = load_model(path, arch="vit_base_patch16_224").weights.state_dict()

    def change(arrays):
        return {name: np.asarray(value, dtype, order=order) for name, value in arrays.items()}

    with np.load(path) as arrays:
        np.savez(path, **change(arrays))
    found = load_model(path, arch="vit_base_patch16_224").weights
    for name, value in expected.items():
        assert torch.equal(found[name].read(), value.half().float() if dtype == "<f2" else value), name


def test_bfloat16(make, tmp_path):
    """As ml_dtypes' arrays are saved: two bytes of no dtype that numpy knows."""
    path, _ = make("vit_base_patch16_224", AUGREG)
    expected = load_model(path, arch="vit_base_patch16_224").weights["head.bias"].read()
    with np.load(path) as arrays:
        changed = {
            name: torch.from_numpy(np.ascontiguousarray(value)).bfloat16().view(torch.int16).numpy().view("V2")
            for name, value in arrays.items()
        }
    np.savez(path, **changed)
    found = load_model(path, arch="vit_base_patch16_224").weights["head.bias"].read()
    assert torch.equal(found, expected.bfloat16().float())


def test_blocks_of_a_stack_are_read_one_by_one(make, monkeypatch):
    """Reading a stack of 24 blocks whole for each of them would take 24 times as long."""
    from vit_deploy.weights import npz_file

    path, _ = make("vit_base_patch16_224", SCANNED, no_embed_class=True, depth=4)
    model = load_model(path, arch="vit_base_patch16_224")
    whole = []
    monkeypatch.setattr(npz_file._Array, "read", lambda self: whole.append(self.member.filename))
    model.weights["blocks.2.mlp.fc1.weight"].read()
    assert whole == []


def test_notes_on_head_and_gelu(make):
    path, _ = make("vit_base_patch16_224", AUGREG, num_classes=0)
    notes = load_model(path, arch="vit_base_patch16_224").notes
    assert any("no head where vit_base_patch16_224 has one" in note for note in notes)
    assert any("GELU is the exact one" in note for note in notes)
    assert not any("head" in n for n in load_model(path, arch="vit_base_patch16_224", num_classes=0).notes)


@pytest.mark.parametrize(
    ("arch", "word"),
    [
        ("vit_base_patch16_siglip_224", "a class token"),
        ("deit_base_distilled_patch16_224", "no distillation token"),
        ("vit_base_patch16_clip_224", "no norm before the blocks"),
    ],
)
def test_another_family(make, arch, word):
    path, _ = make("vit_base_patch16_224", AUGREG)
    with pytest.raises(ImportFailed, match=word):
        load_model(path, arch=arch)


@pytest.mark.parametrize(
    ("dropped", "word"),
    [
        ("_1/key/bias", "no biases of queries, keys and values"),
        ("Dense_1/bias", r"missing \('blocks\.0\.mlp\.fc2\.bias'"),
        ("encoder_norm/scale", "no norm after the blocks"),
    ],
)
def test_a_missing_part_is_named(make, dropped, word):
    path, _ = make("vit_base_patch16_224", AUGREG)
    with np.load(path) as arrays:
        np.savez(path, **{name: value for name, value in arrays.items() if not name.endswith(dropped)})
    with pytest.raises(ImportFailed, match=word):
        load_model(path, arch="vit_base_patch16_224")
