from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vit_deploy.errors import HostileInput, ImportFailed, UsageFailed
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.parity import FAMILIES, ParityCheck, pictures_in
from vit_deploy.parity.images import find_pictures, spread
from vit_deploy.parity.inputs import CHANNEL_CORRELATION, make_samples, pink_noise

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.imported import Model


def test_there_are_nine_families_and_each_is_used(model: Model) -> None:
    wanted = {
        "pink",
        "constant",
        "saturated",
        "checkerboard",
        "gradient",
        "impulse",
        "uniform",
        "normal",
        "quadrants",
    }
    samples = make_samples(model.preprocessing, model.config)
    assert set(FAMILIES) == wanted == {sample.family for sample in samples}
    assert sum(sample.family == "pink" for sample in samples) >= 5


def test_samples_are_the_models_input_and_all_differ(model: Model) -> None:
    samples = make_samples(model.preprocessing, model.config)
    for sample in samples:
        assert sample.pixel_values.shape == (3, 32, 48)
        assert sample.pixel_values.dtype == np.float32
        assert -1 <= sample.pixel_values.min() <= sample.pixel_values.max() <= 1
    assert len({sample.pixel_values.tobytes() for sample in samples}) == len(samples)
    assert len({sample.name for sample in samples}) == len(samples)


def test_a_seed_gives_the_same_pictures_and_another_seed_others(model: Model) -> None:
    def pictures(seed: int) -> list[bytes]:
        samples = make_samples(model.preprocessing, model.config, seed)
        return [sample.pixel_values.tobytes() for sample in samples]

    assert pictures(3) == pictures(3)
    assert (
        sum(one == other for one, other in zip(pictures(3), pictures(4), strict=True)) <= 2
    )  # black, quadrants


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_channels(channels: int, model: Model) -> None:
    config = replace(model.config, in_channels=channels)
    samples = make_samples(Preprocessing.default(config), config)
    assert {sample.pixel_values.shape for sample in samples} == {(channels, 32, 48)}


def test_tiny_pictures(model: Model) -> None:
    config = replace(model.config, image_size=(4, 4), patch_size=1, in_channels=1)
    samples = make_samples(Preprocessing.default(config), config)
    assert all(np.isfinite(sample.pixel_values).all() for sample in samples)


def test_the_models_own_preprocessing_is_used(model: Model) -> None:
    other = replace(model.preprocessing, mean=(0.2, 0.3, 0.4), std=(0.1, 0.2, 0.3))
    ours, theirs = make_samples(model.preprocessing, model.config), make_samples(other, model.config)
    expected = (ours[0].pixel_values[0] * 0.5 + 0.5 - 0.2) / 0.1
    assert theirs[0].pixel_values[0] == pytest.approx(expected, abs=1e-5)


def test_pink_noise_has_a_photographs_spectrum() -> None:
    noise = pink_noise(np.random.default_rng(0), 256, 256, 3)
    amplitude = np.abs(np.fft.fft2(noise[..., 0]))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    band = (frequency > 0.02) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[band]), np.log(amplitude[band]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.05)


def test_the_channels_of_pink_noise_move_together() -> None:
    noise = pink_noise(np.random.default_rng(0), 256, 256, 3)
    correlation = np.corrcoef(noise.reshape(-1, 3).T)
    assert correlation[np.triu_indices(3, 1)] == pytest.approx(CHANNEL_CORRELATION**2, abs=0.15)


def _picture(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40), colour).save(path)
    return path


def test_the_users_images_come_on_top(model: Model, tmp_path: Path) -> None:
    _picture(tmp_path / "größe (1).jpg")
    _picture(tmp_path / "a folder" / "写真.PNG", "blue")
    (tmp_path / "notes.txt").write_text("no picture")
    _picture(tmp_path / ".hidden.png")
    found = pictures_in(tmp_path)
    assert [path.name for path in found] == ["写真.PNG", "größe (1).jpg"]
    generated = len(make_samples(model.preprocessing, model.config))
    check = ParityCheck(model, images=found)
    assert [sample.family for sample in check.samples[generated:]] == ["image", "image"]
    red = check.samples[-1].pixel_values
    assert red[0].mean() > 0.9 > -0.9 > red[2].mean()


def test_many_images_are_spread_over_the_folder(tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{index:03}.png" for index in range(100))
    chosen = spread(paths, 4)
    assert [path.name for path in chosen] == ["000.png", "025.png", "050.png", "075.png"]
    assert spread(paths, 100) == paths
    with pytest.raises(UsageFailed):
        spread(paths, 0)


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="is not there"):
        find_pictures(tmp_path / "nothing here")
    with pytest.raises(ImportFailed, match="is a file"):
        find_pictures(_picture(tmp_path / "a.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(HostileInput, match="holds no pictures"):
        find_pictures(tmp_path / "empty")


def test_an_image_that_is_none_is_refused_before_anything_is_judged(model: Model, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nand then nothing")
    with pytest.raises(HostileInput, match=r"broken\.png"):
        ParityCheck(model, images=[broken])
