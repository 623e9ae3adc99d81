"""An artefact that resizes: its network is judged where resizing does nothing, its resize by grey levels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vit_deploy.model import picture_resize
from vit_deploy.model.contract import contracted
from vit_deploy.parity import ParityCheck
from vit_deploy.parity.feeding import fed
from vit_deploy.protocols import Artefact
from vit_deploy.spec import BatchRange, SizeRange


@pytest.fixture(scope="module")
def resizing_model(model):
    """Pictures become 37 x 55 at first, of which 32 x 48 are kept: the crop and its rounding matter."""
    return replace(
        model,
        preprocessing=replace(
            model.preprocessing, resize="exact", resize_size=(37, 55), interpolation="bicubic"
        ),
    )


@pytest.fixture(scope="module")
def resizing_check(resizing_model):
    return ParityCheck(resizing_model, threads=1)


@pytest.fixture
def judge_image(resizing_model, resizing_check, backend):
    """Judge the model itself behind a resize that a test may damage."""

    def run(damage=lambda module: None, contract="image", batch=None, sizes=None):
        plain = resizing_model.config.io_spec(("logits", "tokens"), batch or BatchRange(1, 1, 3))
        spec = contracted(plain, contract, resizing_model.config, resizing_model.preprocessing, sizes)
        module = resizing_model.loaded(spec)
        damage(module)
        config = resizing_model.config
        artefact = Artefact(f"function-fp32-{contract}", "function", "fp32", Path("none"), spec, config)
        return resizing_check.judge(artefact, runtime=backend(module))

    return run


@pytest.mark.parametrize("contract", ["uint8", "image"])
def test_an_honest_artefact_passes(judge_image, contract):
    verdict = judge_image(contract=contract)
    assert verdict.passed, verdict.reason
    assert verdict.worst_ratio < 4
    assert ("resizing" in verdict.details) == (contract == "image")


def test_the_figures_of_resizing_are_told(judge_image):
    figures = judge_image().details["resizing"]
    assert figures["within_one_level"] == 1
    assert figures["largest_difference"] <= 1
    assert figures["worst_ratio"] < 0.3
    heights = [int(name.split()[1].partition("x")[0]) for name in figures["pictures"]]
    assert min(heights) < 32 < max(heights)


def with_filter(name):
    def damage(module):
        stage = module.input_stage.resize
        stage.preprocessing = replace(stage.preprocessing, interpolation=name)

    return damage


def test_another_filter_fails(judge_image):
    verdict = judge_image(with_filter("bilinear"))
    assert verdict.passed is False
    assert "resizing" in verdict.reason
    assert verdict.details["resizing"]["worst_ratio"] > 2
    # The network itself was right, and says so.
    assert verdict.worst_ratio < 4


def test_a_crop_that_is_off_by_a_pixel_fails_the_networks_own_criterion(judge_image):
    def damage(module):
        stage = module.input_stage.resize
        stage.preprocessing = replace(stage.preprocessing, crop_rounding="down")

    verdict = judge_image(damage)
    assert verdict.passed is False
    assert "resizing" not in verdict.details
    assert verdict.worst_ratio > 1000


def test_levels_that_are_cut_off_fail(judge_image, monkeypatch):
    def cut_off(levels):
        return torch.clamp(torch.floor(levels), 0, 255)

    def damage(_module):
        monkeypatch.setattr(picture_resize, "rounded", cut_off)

    verdict = judge_image(damage)
    assert verdict.passed is False
    assert "resizing" in verdict.reason


def test_no_antialiasing_fails(judge_image, monkeypatch):
    """What F.interpolate and most resizers in other runtimes do."""
    plain = torch.maximum

    def damage(_module):
        monkeypatch.setattr(picture_resize.torch, "maximum", lambda old, new: new)

    verdict = judge_image(damage)
    monkeypatch.setattr(picture_resize.torch, "maximum", plain)
    assert verdict.passed is False
    assert "resizing" in verdict.reason


def test_a_wrong_order_of_channels_fails(judge_image):
    def damage(module):
        stage = module.input_stage
        module.input_stage = torch.nn.Sequential(Flip(), stage)

    assert judge_image(damage, contract="uint8").passed is False


class Flip(torch.nn.Module):
    def forward(self, images):
        return images.flip(-1)


def test_pictures_stay_inside_the_range_that_the_artefact_has(judge_image):
    sizes = SizeRange((30, 30), (40, 50), (60, 70), patch_size=1, step=1, num_prefix_tokens=0)
    verdict = judge_image(sizes=sizes, batch=BatchRange(2, 2, 2))
    assert verdict.passed, verdict.reason
    for name in verdict.details["resizing"]["pictures"]:
        height, width = map(int, name.split()[1].split("x"))
        assert sizes.holds((height, width))


def test_the_users_own_pictures_are_judged_whole(resizing_model, tmp_path, backend):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    config = resizing_model.config
    spec = contracted(config.io_spec(), "image", config, resizing_model.preprocessing)
    module, sizes = resizing_model.loaded(spec), []

    def watched(images):
        sizes.append(tuple(images.shape[1:3]))
        return module(images)

    artefact = Artefact("function-fp32-image", "function", "fp32", Path("none"), spec, config)
    check = ParityCheck(resizing_model, images=[tmp_path / "one.png"], threads=1)
    verdict = check.judge(artefact, runtime=backend(watched))
    assert verdict.passed, verdict.reason
    assert verdict.details["resizing"]["pictures"][-1] == "one.png 70x90"
    assert sizes[-1] == (70, 90)


def test_every_contract_is_fed_the_same_picture(resizing_model, resizing_check):
    samples = resizing_check.samples[:3]
    config, preprocessing = resizing_model.config, resizing_model.preprocessing
    fed_by = {
        contract: fed(contracted(config.io_spec(), contract, config, preprocessing), samples, preprocessing)
        for contract in ("pixel_values", "uint8", "image")
    }
    assert fed_by["pixel_values"]["pixel_values"].shape == (3, 3, 32, 48)
    pictures, framed = fed_by["uint8"]["images"], fed_by["image"]["images"]
    assert pictures.shape == (3, 32, 48, 3)
    assert framed.shape == (3, 37, 55, 3)
    for index in range(3):
        values = preprocessing.normalise(pictures[index])
        assert (values == fed_by["pixel_values"]["pixel_values"][index]).all()
        assert (preprocessing(Image.fromarray(framed[index])) == values).all()


def test_a_spec_that_is_not_the_contracts_is_told(resizing_model, resizing_check, backend):
    config = resizing_model.config
    spec = contracted(config.io_spec(), "uint8", config, resizing_model.preprocessing)
    (images,) = spec.inputs
    wrong = replace(spec, inputs=(replace(images, dtype="float32"),))
    artefact = Artefact("function-fp32-uint8", "function", "fp32", Path("none"), wrong, config)
    verdict = resizing_check.judge(artefact, runtime=backend(lambda images: images))
    assert verdict.passed is False
    assert "uint8" in verdict.reason
