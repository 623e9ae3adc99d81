"""The normalisation folded into the patch embedding is the same function, in real numbers and in float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses

from vit_deploy.model.contract import contracted
from vit_deploy.model.input_stage import MIDDLE
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.parity.inputs import make_samples
from vit_deploy.weights.fold_input import BIAS, WEIGHT, fold_input, folded_bias, folded_weight
from vit_deploy.weights.random import random_model

SETTINGS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255),
    "halves": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255),
    "no rescaling": ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), 1.0),
    "no normalising": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1 / 255),
}


@pytest.fixture(params=SETTINGS)
def preprocessing(request, small_config):
    mean, std, factor = SETTINGS[request.param]
    return replace(Preprocessing.default(small_config), mean=mean, std=std, rescale_factor=factor)


@pytest.mark.parametrize("biased", [True, False])
def test_folding_is_exact_in_float64(preprocessing, biased):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(20, 3, 8, 8, generator=generator, dtype=torch.float64)
    bias = torch.randn(20, generator=generator, dtype=torch.float64) if biased else None
    levels = torch.randint(0, 256, (2, 3, 32, 48), generator=generator).double()
    # The preprocessing's constants are float32.
    mean, std = (
        torch.tensor(values, dtype=torch.float32).double().view(-1, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    normalised = (levels * preprocessing.rescale_factor - mean) / std
    expected = F.conv2d(normalised, weight, bias, stride=8)
    found = F.conv2d(
        levels - MIDDLE,
        folded_weight(weight, preprocessing),
        folded_bias(weight, bias, preprocessing),
        stride=8,
    )
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-10 * float(expected.abs().max()))


def test_folded_weights_are_rounded_once(preprocessing, small_model):
    weights = fold_input(small_model.weights, preprocessing)
    weight = small_model.weights[WEIGHT].read()
    assert torch.equal(weights[WEIGHT].read(), folded_weight(weight.double(), preprocessing).float())
    assert weights[WEIGHT].dtype == weights[BIAS].dtype == "float32"
    assert list(weights) == list(small_model.weights)
    others = set(weights) - {WEIGHT, BIAS}
    assert all(weights[name] is small_model.weights[name] for name in others)


def test_the_error_is_that_of_eager(preprocessing, small_model):
    """In float32, over all families of pictures: the 128 that is taken off keeps the sums small."""
    model = replace(small_model, preprocessing=preprocessing)
    samples = make_samples(preprocessing, model.config)
    spec = contracted(model.config.io_spec(), "uint8", model.config, preprocessing)
    folded, eager = model.loaded(spec), model.eager()
    exact = model.eager(dtype=torch.float64)
    pictures = torch.from_numpy(np.stack([sample.picture for sample in samples]))
    values = torch.from_numpy(np.stack([sample.pixel_values for sample in samples]))
    with torch.inference_mode():
        truth = exact.patch_embed(values.double())
        found = folded.patch_embed(folded.input_stage(pictures))
        plain = eager.patch_embed(values)
    lengths = truth.flatten(1).norm(dim=1)
    error, own = ((result.double() - truth).flatten(1).norm(dim=1) / lengths for result in (found, plain))
    assert float(error.mean()) <= 1.5 * float(own.mean())


def test_a_model_without_a_patch_bias_gets_one(small_config):
    model = random_model(replace(small_config, patch_bias=False), "no-bias", seed=1)
    assert BIAS not in model.weights
    spec = contracted(model.config.io_spec(), "uint8", model.config, model.preprocessing)
    module = model.loaded(spec)
    assert BIAS in model.weights_for(spec)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    values = np.stack([model.preprocessing.normalise(picture) for picture in pictures])
    with torch.inference_mode():
        found = module(torch.from_numpy(pictures))
        expected = model.eager()(torch.from_numpy(values))
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    # pixel_values stays as it was
    assert BIAS not in model.weights_for(model.config.io_spec())
