"""Reading pictures: every mode comes out as 8-bit RGB or grey, upright."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vit_deploy.errors import ImportFailed
from vit_deploy.model.images import load_image, to_channels


@pytest.fixture(scope="module")
def colours():
    """A small photograph, with an odd number of rows and columns."""
    from skimage import data

    return Image.fromarray(data.astronaut()).resize((61, 43))


def _array(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp"])
def test_lossless_rgb_is_unchanged(tmp_path, colours, suffix):
    path = tmp_path / f"a photo é.{suffix}"
    colours.save(path, **({"lossless": True} if suffix == "webp" else {}))
    image = load_image(path)
    assert image.mode == "RGB"
    assert np.array_equal(image, colours)
    assert np.array_equal(load_image(path, channels=1), colours.convert("L"))


def test_the_name_does_not_matter(tmp_path, colours):
    colours.save(tmp_path / "photo.txt", format="PNG")
    assert np.array_equal(load_image(str(tmp_path / "photo.txt")), colours)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, colours, orientation):
    operations = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_270],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_90],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    colours.save(tmp_path / "x.png", exif=exif)
    expected = colours
    for operation in operations.get(orientation, []):
        expected = expected.transpose(operation)
    assert np.array_equal(load_image(tmp_path / "x.png"), expected)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, colours, format):
    grey = np.asarray(colours.convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "x", format=format)
    assert np.array_equal(load_image(tmp_path / "x", channels=1), grey)
    rgb = np.asarray(load_image(tmp_path / "x"))
    assert all(np.array_equal(rgb[:, :, channel], grey) for channel in range(3))


def test_sixteen_bit_grey_is_rounded(tmp_path):
    values = np.array([[0, 128, 129, 40_000, 65_406, 65_407, 65_535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert np.asarray(load_image(tmp_path / "x.png", 1)).tolist() == [[0, 0, 1, 156, 254, 255, 255]]


def test_alpha_is_laid_on_white(tmp_path):
    pixels = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [200, 0, 0, 128]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = _array(load_image(tmp_path / "x.png"))[0]
    assert found[0].tolist() == [200, 0, 0]
    assert found[1].tolist() == [255, 255, 255]
    assert np.abs(found[2] - [227, 127, 127]).max() <= 1


def test_grey_with_alpha(tmp_path):
    Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8), "LA").save(tmp_path / "x.png")
    assert np.asarray(load_image(tmp_path / "x.png", 1)).tolist() == [[10, 255]]
    assert np.asarray(load_image(tmp_path / "x.png")).tolist() == [[[10] * 3, [255] * 3]]


def test_palette(tmp_path, colours):
    palette = colours.quantize(64)
    palette.save(tmp_path / "x.png")
    assert np.array_equal(load_image(tmp_path / "x.png"), palette.convert("RGB"))
    palette.save(tmp_path / "t.png", transparency=int(np.asarray(palette)[0, 0]))
    assert np.asarray(load_image(tmp_path / "t.png"))[0, 0].tolist() == [255, 255, 255]


def test_animation_gives_its_first_frame(tmp_path, colours):
    first = colours.quantize(16)
    first.save(tmp_path / "x.gif", save_all=True, append_images=[Image.new("P", colours.size)])
    assert np.array_equal(load_image(tmp_path / "x.gif"), first.convert("RGB"))


def test_one_bit(tmp_path):
    Image.fromarray(np.array([[0, 255, 255, 0]], np.uint8)).convert("1").save(tmp_path / "x.png")
    assert np.asarray(load_image(tmp_path / "x.png", 1)).tolist() == [[0, 255, 255, 0]]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(tmp_path, colours, format):
    """Ink is inverted light: white paper must not come out black."""
    white = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    white.save(tmp_path / "white", format=format)
    assert np.asarray(load_image(tmp_path / "white")).min() >= 250
    colours.convert("CMYK").save(tmp_path / "x", format=format, **({"quality": 95} if format == "JPEG" else {}))
    assert np.abs(_array(load_image(tmp_path / "x")) - _array(colours)).mean() < 6


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_channels_are_refused(colours, channels):
    with pytest.raises(ImportFailed, match=f"{channels} channels"):
        to_channels(colours, channels)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_without_an_agreed_white(tmp_path, dtype):
    Image.fromarray(np.full((4, 4), 0.5, dtype)).save(tmp_path / "x.tiff")
    with pytest.raises(ImportFailed, match=r"agreed|32 bits"):
        load_image(tmp_path / "x.tiff")
