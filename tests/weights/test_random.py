"""Random weights: the same everywhere, away from initial values, and sane."""

from __future__ import annotations

import pytest
import torch

from vit_deploy.errors import UsageFailed
from vit_deploy.weights import load_model
from vit_deploy.weights.random import random_model


def test_the_same_numbers_on_every_machine(small_config):
    """The exact values are pinned: they come from integers alone."""
    first = random_model(small_config, "x", seed=0).weights["head.bias"].read()
    assert first.tolist() == [
        0.022908449172973633,
        0.13827203214168549,
        -0.0228753499686718,
        0.04396449401974678,
        0.1721469610929489,
        0.05760454013943672,
        0.15129226446151733,
    ]


def test_read_twice_is_the_same_and_seeds_differ(small_config):
    one, other = random_model(small_config, "x", 1), random_model(small_config, "x", 2)
    for name, tensor in one.weights.items():
        assert torch.equal(tensor.read(), tensor.read())
        assert not torch.equal(tensor.read(), other.weights[name].read())
    assert one.source.sha256 != other.source.sha256
    assert one.source == random_model(small_config, "x", 1).source


def test_no_two_tensors_are_alike(small_config):
    weights = random_model(small_config, "x").weights
    firsts = [
        tensor.read().flatten()[:5].tolist()
        for name, tensor in weights.items()
        if name.endswith("norm1.weight")
    ]
    assert len({tuple(values) for values in firsts}) == small_config.depth


def test_nothing_stands_at_its_initial_value(small_config):
    for name, tensor in random_model(small_config, "x").weights.items():
        values = tensor.read()
        assert values.dtype == torch.float32
        assert values.is_contiguous()
        assert values.std() > 0.01, name
        if name.endswith("norm.weight"):
            assert 0.9 < values.mean() < 1.1


def test_activations_stay_sane():
    model = load_model("vit_tiny_patch16_224", seed=4)
    with torch.inference_mode():
        logits = model.eager()(torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
    assert logits.isfinite().all()
    assert 0.2 < logits.std() < 5
    assert (logits[0] - logits[1]).norm() > 1e-2 * logits[0].norm()


def test_number_of_classes():
    assert load_model("vit_tiny_patch16_224", num_classes=3).weights["head.weight"].shape == (3, 192)
    headless = load_model("deit_tiny_distilled_patch16_224", num_classes=0)
    assert "head.weight" not in headless.weights
    with pytest.raises(UsageFailed, match="--num-classes"):
        load_model("vit_tiny_patch16_224", num_classes=-1)


def test_a_tag_asks_for_trained_weights():
    with pytest.raises(UsageFailed, match=r"hf-hub:timm/vit_tiny_patch16_224\.augreg_in21k"):
        load_model("vit_tiny_patch16_224.augreg_in21k")
