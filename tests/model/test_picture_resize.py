"""The resize in a graph against Pillow's own, on photographs."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from vit_deploy.errors import UsageFailed
from vit_deploy.model.contract import RESIZABLE
from vit_deploy.model.picture_resize import PictureResize
from vit_deploy.model.preprocess import Preprocessing

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")

SIZES = ((427, 640), (512, 512), (300, 451), (255, 383), (400, 301), (97, 131), (33, 27), (31, 250), (64, 48))
"""Heights and widths that photographs are cut to: landscape and portrait, larger and smaller, odd."""

WAYS = {
    "exact": Preprocessing((64, 48), "exact", (64, 48), "bicubic", (0.5,) * 3, (0.5,) * 3),
    "exact, enlarged": Preprocessing((290, 410), "exact", (311, 433), "bicubic", (0.5,) * 3, (0.5,) * 3),
    "shortest edge": Preprocessing((56, 56), "shortest_edge", (63, 63), "bicubic", (0.5,) * 3, (0.5,) * 3),
    "shortest edge, cropped by half pixels down": Preprocessing(
        (57, 50), "shortest_edge", (64, 64), "bicubic", (0.5,) * 3, (0.5,) * 3, crop_rounding="down"
    ),
    "cover": Preprocessing((40, 72), "cover", (45, 80), "bicubic", (0.5,) * 3, (0.5,) * 3),
}


def cut_to(name: str, height: int, width: int) -> Image.Image:
    photograph = Image.fromarray(getattr(skimage.data, name)())
    top, left = max(0, photograph.height - height) // 3, max(0, photograph.width - width) // 3
    return photograph.crop(
        (left, top, min(photograph.width, left + width), min(photograph.height, top + height))
    )


def in_a_graph(preprocessing: Preprocessing, image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    levels = torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0).float()
    return PictureResize(preprocessing)(levels)[0].permute(1, 2, 0).numpy().astype(np.int64)


def apart(preprocessing: Preprocessing, image: Image.Image, *, rows_first: bool) -> np.ndarray:
    pillow = np.asarray(preprocessing.cut(image, rows_first=rows_first)).astype(np.int64)
    pillow = pillow[:, :, None] if pillow.ndim == 2 else pillow
    return np.abs(in_a_graph(preprocessing, image) - pillow)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
def test_photographs_are_within_one_level_of_pillow(photograph, way):
    for height, width in SIZES:
        image = cut_to(photograph, height, width)
        difference = apart(WAYS[way], image, rows_first=False)
        assert (difference <= 1).mean() >= 0.99, (height, width)
        # In the order of passes that every Pillow before 13 has, nearly all are its very pixels.
        same_order = apart(WAYS[way], image, rows_first=True)
        assert (same_order == 0).mean() >= 0.99, (height, width)


@pytest.mark.parametrize("interpolation", RESIZABLE)
@pytest.mark.parametrize("size", [(427, 640), (33, 27), (300, 449)])
def test_every_filter_follows_pillow(interpolation, size):
    preprocessing = Preprocessing((90, 110), "exact", (96, 120), interpolation, (0.5,) * 3, (0.5,) * 3)
    difference = apart(preprocessing, cut_to("rocket", *size), rows_first=True)
    assert (difference <= 1).mean() >= 0.999
    assert (difference == 0).mean() >= 0.9  # halves are common where both sizes have a common divisor


def test_grey_pictures_are_resized_too():
    preprocessing = Preprocessing((28, 28), "shortest_edge", (32, 32), "bicubic", (0.5,), (0.5,))
    difference = apart(preprocessing, cut_to("coffee", 201, 301).convert("L"), rows_first=True)
    assert (difference == 0).mean() >= 0.99


@pytest.mark.parametrize("way", WAYS)
def test_a_framed_picture_comes_back_as_it_is(way):
    preprocessing = WAYS[way]
    height, width = preprocessing.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    framed = preprocessing.framed(pixels)
    assert framed.shape[:2] == preprocessing.resize_size
    assert (in_a_graph(preprocessing, Image.fromarray(framed)) == pixels).all()
    assert (np.asarray(preprocessing.cut(Image.fromarray(framed))) == pixels).all()


def test_a_filter_that_no_graph_follows_is_refused_by_name():
    preprocessing = Preprocessing((28, 28), "exact", (32, 32), "nearest", (0.5,), (0.5,))
    with pytest.raises(UsageFailed, match="'nearest'") as caught:
        PictureResize(preprocessing)
    assert "bicubic" in caught.value.expected
    assert "--input uint8" in caught.value.next_command


sides = st.integers(1, 65_500)


@settings(max_examples=300, deadline=None)
@given(sides, sides, st.sampled_from(sorted(WAYS)))
@example(352, 605, "cover")
@example(1, 1, "shortest edge")
@example(65_500, 1, "cover")
def test_the_resized_size_is_pythons_at_every_size(height, width, way):
    """Also where Python's float64 quotient falls next to a half, which plain rounding would miss."""
    preprocessing = WAYS[way]
    found = PictureResize(preprocessing).resized(torch.tensor([height]), torch.tensor([width]))
    assert tuple(int(side) for side in found) == preprocessing.resized(height, width)


def test_cover_rounds_as_python_does_where_a_half_is_missed():
    # Of 352 x 605 into 240 x 320 the exact width is 412.5; Python's float64 quotient is not.
    preprocessing = Preprocessing((224, 300), "cover", (240, 320), "bicubic", (0.5,) * 3, (0.5,) * 3)
    height, width = PictureResize(preprocessing).resized(torch.tensor([352]), torch.tensor([605]))
    assert (int(height), int(width)) == preprocessing.resized(352, 605)
    assert preprocessing.resized(352, 605)[1] != round(605 * 240 / 352)
