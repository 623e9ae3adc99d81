"""The pictures of a calibration: those of a folder, made-up ones, and folders that will not do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vit_deploy.errors import HostileInput, ImportFailed, UsageFailed
from vit_deploy.model.contract import with_inputs
from vit_deploy.quantisation.samples import MINIMUM, choose_samples, natural_picture
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.imported import Model


def _write(folder: Path, count: int, mode: str = "RGB", seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{index:03}.png")
    return folder


def _grey(model: Model) -> Model:
    assert model.preprocessing is not None
    recipe = replace(model.preprocessing, mean=(0.4,), std=(0.3,))
    return replace(model, config=replace(model.vit_config, in_channels=1), preprocessing=recipe)


def test_pictures_go_through_the_models_preprocessing(tmp_path: Path, small_model: Model):
    folder = _write(tmp_path / "pictures", 18)
    samples = choose_samples(small_model, str(folder), 128)
    spec = small_model.config.io_spec()
    batches = list(samples.batches(small_model, spec, 5))
    assert [len(batch["pixel_values"]) for batch in batches] == [5, 5, 5, 3]
    with Image.open(folder / "007.png") as image:
        expected = small_model.known_preprocessing(image)
    assert np.array_equal(batches[1]["pixel_values"][2], expected)
    assert samples.count == 18
    assert not samples.synthetic


def test_another_picture_is_another_digest_and_another_order_too(tmp_path: Path, small_model: Model):
    one = choose_samples(small_model, str(_write(tmp_path / "one", 16)), 16).digest
    assert choose_samples(small_model, str(_write(tmp_path / "same", 16)), 16).digest == one
    other = _write(tmp_path / "other", 16)
    Image.new("RGB", (40, 50), "red").save(other / "003.png")
    assert choose_samples(small_model, str(other), 16).digest != one
    swapped = _write(tmp_path / "swapped", 16)
    (swapped / "000.png").rename(swapped / "999.png")
    assert choose_samples(small_model, str(swapped), 16).digest != one


def test_more_pictures_than_asked_for_are_evenly_spread(tmp_path: Path, small_model: Model):
    samples = choose_samples(small_model, str(_write(tmp_path, 40)), 20)
    assert [path.name for path in samples.paths[:3]] == ["000.png", "002.png", "004.png"]
    assert samples.count == 20


def test_a_fixed_batch_is_filled(tmp_path: Path, small_model: Model):
    samples = choose_samples(small_model, str(_write(tmp_path, 18)), 18)
    spec = small_model.config.io_spec(batch=BatchRange(4, 4, 4))
    batches = [batch["pixel_values"] for batch in samples.batches(small_model, spec, 8)]
    assert [len(batch) for batch in batches] == [4] * 5
    assert np.array_equal(batches[-1][2], batches[-1][0])


def test_bytes_are_given_to_an_artefact_that_takes_bytes(small_model: Model):
    spec = with_inputs(small_model.config.io_spec(), "uint8")
    (name,) = [entry.name for entry in spec.inputs]
    batch = next(iter(choose_samples(small_model, "", 16).batches(small_model, spec, 3)))
    assert batch[name].dtype == np.uint8
    assert batch[name].shape == (3, 32, 48, 3)


def test_synthetic_pictures_are_the_same_each_time_and_natural(small_model: Model):
    samples = choose_samples(small_model, "", 24)
    again = choose_samples(small_model, "", 24)
    spec = small_model.config.io_spec()
    for one, two in zip(
        samples.batches(small_model, spec, 7), again.batches(small_model, spec, 7), strict=True
    ):
        assert np.array_equal(one["pixel_values"], two["pixel_values"])
    assert samples.synthetic
    assert samples.digest == again.digest != choose_samples(small_model, "", 25).digest
    # Neighbouring pixels of a photograph are alike; those of noise are not.
    alike = [_neighbours(natural_picture(index, 64, 64, 3)) for index in range(12)]
    assert min(alike) > 0.5
    assert not np.array_equal(natural_picture(0, 64, 64, 3), natural_picture(1, 64, 64, 3))


def _neighbours(picture: np.ndarray) -> float:
    grey = picture.astype(float).mean(axis=2)
    return float(np.corrcoef(grey[:, :-1].ravel(), grey[:, 1:].ravel())[0, 1])


def test_a_synthetic_picture_of_one_channel_has_two_axes():
    assert natural_picture(3, 20, 30, 1).shape == (20, 30)


def test_a_folder_that_is_not_there_names_the_flag(tmp_path: Path, small_model: Model):
    with pytest.raises(ImportFailed, match="calibration folder") as raised:
        choose_samples(small_model, str(tmp_path / "none"), 64)
    assert "--calibrate" in raised.value.next_command


def test_an_empty_folder_is_refused(tmp_path: Path, small_model: Model):
    with pytest.raises(HostileInput, match="holds no pictures") as raised:
        choose_samples(small_model, str(tmp_path), 64)
    assert "--calibrate" in raised.value.next_command


def test_too_few_pictures_are_refused(tmp_path: Path, small_model: Model):
    with pytest.raises(HostileInput, match=f"holds {MINIMUM - 1} different"):
        choose_samples(small_model, str(_write(tmp_path, MINIMUM - 1)), 64)


def test_copies_of_one_picture_are_one_picture(tmp_path: Path, small_model: Model):
    for index in range(30):
        Image.new("RGB", (40, 50), (10, 200, 30)).save(tmp_path / f"{index}.png")
    with pytest.raises(HostileInput, match="holds 1 different"):
        choose_samples(small_model, str(tmp_path), 64)


def test_files_that_cannot_be_read_are_left_out_and_told(tmp_path: Path, small_model: Model):
    folder = _write(tmp_path, 20)
    for name in ("004.png", "011.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:200])
    samples = choose_samples(small_model, str(folder), 64)
    assert samples.skipped == ("004.png", "011.png")
    assert samples.count == len(samples.paths) == 18


def test_a_folder_of_broken_files_says_why(tmp_path: Path, small_model: Model):
    for index in range(20):
        (tmp_path / f"{index}.jpg").write_bytes(b"no picture")
    with pytest.raises(HostileInput, match=r"holds 0 different.*20 cannot be.*unknown kind"):
        choose_samples(small_model, str(tmp_path), 64)


def test_grey_pictures_are_unlike_what_a_model_of_colour_takes(tmp_path: Path, small_model: Model):
    with pytest.raises(HostileInput, match="is grey") as raised:
        choose_samples(small_model, str(_write(tmp_path, 20, "L")), 64)
    assert "save them as RGB" in raised.value.next_command


def test_colour_pictures_are_unlike_what_a_grey_model_takes(tmp_path: Path, small_model: Model):
    model = _grey(small_model)
    with pytest.raises(HostileInput, match="is in colour"):
        choose_samples(model, str(_write(tmp_path / "colour", 20)), 64)
    folder = _write(tmp_path / "grey", 20, "L")
    for path in folder.iterdir():  # grey pictures that are stored with three equal channels will do
        Image.open(path).convert("RGB").save(path)
    samples = choose_samples(model, str(folder), 64)
    batch = next(iter(samples.batches(model, model.config.io_spec(), 4)))
    assert batch["pixel_values"].shape == (4, 1, 32, 48)


def test_a_model_that_takes_no_picture_is_refused(small_model: Model):
    with pytest.raises(UsageFailed, match="its input is no picture"):
        choose_samples(replace(small_model, preprocessing=None), "", 64)


def test_a_count_that_is_too_small_is_refused(small_model: Model):
    with pytest.raises(UsageFailed, match="on 3 pictures"):
        choose_samples(small_model, "", 3)
