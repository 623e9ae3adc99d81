"""The trained model that travels with the package is what its card says, measured again."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vit_deploy import assets
from vit_deploy.assets import digits_directory, sample_images
from vit_deploy.errors import ImportFailed
from vit_deploy.model.images import load_image
from vit_deploy.model.vit import ViT
from vit_deploy.weights import load_model
from vit_deploy.weights.imported import Model

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scripts() -> Any:
    """The two scripts, imported from where they stand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "scripts"))
        import digits_data
        import train_digits

        yield type("Scripts", (), {"data": digits_data, "train": train_digits})
        for name in ("digits_data", "train_digits"):
            sys.modules.pop(name)


@pytest.fixture(scope="module")
def card() -> str:
    return (digits_directory() / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(str(digits_directory()))


@pytest.fixture(scope="module")
def measured(scripts: Any) -> Any:
    return scripts.data.measure(digits_directory())


def test_the_directory_is_whole_and_small():
    directory = digits_directory()
    files = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    samples = {f"samples/{path.name}" for path in sample_images()}
    assert files - samples == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert (directory / "model.safetensors").stat().st_size <= 1_000_000
    assert sum(path.stat().st_size for path in sample_images()) <= 40_000


class TestAccuracy:
    def test_it_is_what_the_card_says(self, measured: Any, card: str):
        stated = re.search(r"\*\*Accuracy on the held-out digits: ([\d.]+) % \((\d+) of (\d+)\)\.\*\*", card)
        assert stated is not None
        percent, right, count = float(stated[1]), int(stated[2]), int(stated[3])
        assert (int(measured.right.sum()), len(measured.labels)) == (right, count)
        assert percent == round(100 * right / count, 2)
        assert float(re.search(r"value: ([\d.]+)", card)[1]) == round(right / count, 4)

    def test_it_is_high(self, measured: Any):
        assert measured.right.mean() >= 0.98

    def test_each_class_is_what_the_card_says(self, measured: Any, card: str):
        stated = re.findall(r"^\| (\d) \| (\d+) of (\d+) \| (.+) \|$", card, flags=re.MULTILINE)
        assert [int(digit) for digit, *_ in stated] == list(range(10))
        for digit, right, count, mistaken in stated:
            members = measured.labels == int(digit)
            assert (measured.right[members].sum(), members.sum()) == (int(right), int(count))
            wrong = sum(int(number) for number in re.findall(r"\((\d+)\)", mistaken))
            assert wrong == int(count) - int(right)

    def test_the_card_says_how_it_is_measured_and_made(self, card: str):
        command = "python scripts/train_digits.py --output vit_deploy/assets/digits"
        assert f"```\n{command}\n```" in card
        assert f"```\n{command} --evaluate\n```" in card
        assert "CC BY 4.0" in card
        assert not re.search(r"@\w+@", card)

    def test_the_command_prints_it(
        self, scripts: Any, measured: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        arguments = ["train_digits.py", "--output", str(digits_directory()), "--evaluate"]
        monkeypatch.setattr(sys, "argv", arguments)
        scripts.train.main()
        assert capsys.readouterr().out == f"accuracy on the held-out digits: {measured}\n"


class TestSplit:
    def test_it_is_stratified_and_whole(self, scripts: Any, card: str):
        digits = scripts.data.load_digits()
        assert len(np.intersect1d(digits.training, digits.held_out)) == 0
        assert np.array_equal(np.union1d(digits.training, digits.held_out), np.arange(1797))
        for digit in range(10):
            share = (digits.labels[digits.held_out] == digit).sum() / (digits.labels == digit).sum()
            assert share == pytest.approx(0.2, abs=0.004)
        assert f"{len(digits.held_out)} digits; the model learned from the other {len(digits.training)}" in card

    def test_it_is_the_same_each_time_and_follows_the_seed(self, scripts: Any):
        first, again, other = (scripts.data.load_digits(seed).held_out for seed in (2026, 2026, 1))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert first[:5].tolist() == [11, 13, 18, 21, 29]


class TestSamples:
    def test_there_is_one_of_each_digit(self):
        assert [path.name[0] for path in sample_images()] == list("0123456789")
        assert all(re.fullmatch(r"\d_\d{4}\.png", path.name) for path in sample_images())

    def test_they_are_held_out_digits_drawn_large(self, scripts: Any):
        digits = scripts.data.load_digits()
        for path in sample_images():
            label, index = map(int, path.stem.split("_"))
            assert index in digits.held_out
            assert digits.labels[index] == label
            with Image.open(path) as picture:
                assert (picture.mode, picture.size) == ("RGB", (64, 64))
                assert np.array_equal(picture, scripts.data.draw_picture(digits.images[index]))

    @torch.inference_mode()
    def test_they_are_predicted_right_with_the_scores_of_the_card(self, model: Model, card: str):
        eager = model.eager()
        for path in sample_images():
            pixels = torch.from_numpy(model.preprocessing(load_image(path)))
            scores = eager(pixels[None])[0].softmax(dim=0)
            label = model.labels[int(scores.argmax())]
            assert label == path.name[0]
            stated = re.search(rf"`samples/{path.name}` \| {label} \| ([\d.]+) \|", card)
            assert float(scores.max()) == pytest.approx(float(stated[1]), abs=2e-4)


class TestTransformers:
    @torch.inference_mode()
    def test_its_own_forward_agrees_in_float64(self, model: Model):
        from transformers import ViTForImageClassification

        theirs, report = ViTForImageClassification.from_pretrained(
            digits_directory(), local_files_only=True, output_loading_info=True
        )
        assert not any(report.values()), report
        pixels = torch.randn(4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        expected = theirs.double().eval()(pixel_values=pixels).logits
        found = model.eager(dtype=torch.float64)(pixels)
        assert (found - expected).norm() / expected.norm() <= 1e-10
        assert (
            tuple(theirs.config.id2label[index] for index in range(10)) == model.labels == tuple("0123456789")
        )

    def test_the_converter_gives_back_the_very_weights(self, scripts: Any, model: Model):
        from safetensors.torch import load_file

        again = scripts.train.to_transformers(model.eager().state_dict())
        stored = load_file(digits_directory() / "model.safetensors")
        assert again.keys() == stored.keys()
        assert all(torch.equal(again[name], stored[name]) for name in stored)

    def test_the_config_is_the_one_that_was_trained(self, scripts: Any, model: Model):
        # The asset is in transformers' layout, so its positions are resampled as transformers does it.
        assert model.config == replace(scripts.train.CONFIG, position_resampling="bicubic")
        stored = json.loads((digits_directory() / "config.json").read_text(encoding="utf-8"))
        assert stored == scripts.train.transformers_config()


def test_nothing_is_at_its_initial_value(scripts: Any, model: Model):
    torch.manual_seed(scripts.data.SEED)
    initial = ViT(model.config)
    scripts.train.initialise(initial)
    trained = model.eager().state_dict()
    for name, value in initial.state_dict().items():
        moved = (trained[name] != value).float().mean()
        assert moved > 0.99, name


@pytest.fixture
def _one_thread() -> Any:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


@pytest.mark.usefixtures("_one_thread")
def test_training_is_repeatable_and_learns(scripts: Any):
    digits = scripts.data.load_digits()
    chosen = digits.training[:64]
    pictures = [scripts.data.draw_picture(digits.images[index]) for index in chosen]
    preprocessing = load_model(str(digits_directory())).preprocessing
    pixels, labels = scripts.data.preprocess(pictures, preprocessing), torch.from_numpy(digits.labels[chosen])
    recipe = scripts.train.Recipe(epochs=12, warmup_epochs=2, batch_size=32, average_decay=0.5)
    first, again = (scripts.train.train(pixels, labels, recipe, quiet=True) for _ in range(2))
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    with torch.inference_mode():
        loss = torch.nn.functional.cross_entropy(first(pixels), labels)
    assert loss < 0.95 * np.log(10)


def test_a_package_without_the_model_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(assets, "files", lambda package: tmp_path)
    with pytest.raises(ImportFailed, match="the digits model is not at") as error:
        digits_directory()
    assert "pip install" in error.value.next_command
