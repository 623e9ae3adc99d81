"""Which image sizes an artefact can be made for, and the shapes that follow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.image_sizes import SMALL
from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.rotary_config import RotaryConfig
from vit_deploy.model.sizes import size_range
from vit_deploy.spec import BatchRange, SizeRange, size_text


def test_the_default_is_half_to_twice_the_own_size_in_whole_patches() -> None:
    sizes = size_range(ViTConfig())
    assert (sizes.minimum, sizes.optimum, sizes.maximum) == ((112, 112), (224, 224), (448, 448))
    odd = size_range(replace(SMALL, image_size=(8, 40)))
    assert (odd.minimum, odd.optimum, odd.maximum) == ((8, 16), (8, 40), (16, 80))
    assert size_range(ViTConfig(), optimum=(224, 640)).maximum == (448, 640)


def test_the_shapes_have_names() -> None:
    spec = SMALL.io_spec(("tokens", "logits"), BatchRange(1, 2, 4), sizes=size_range(SMALL))
    assert spec.inputs[0].shape == ("batch", 3, "height", "width")
    assert spec.outputs[0].shape == ("batch", "tokens", 64)
    free = spec.free_at(2, (64, 24))
    assert free == {"batch": 2, "height": 64, "width": 24, "tokens": 25}
    assert spec.outputs[0].at(free) == (2, 25, 64)
    assert spec.free_of({"pixel_values": (2, 3, 64, 24)}) == free


def test_a_fixed_batch_is_no_name() -> None:
    spec = SMALL.io_spec(("tokens",), BatchRange(3, 3, 3), sizes=size_range(SMALL))
    assert spec.inputs[0].shape == (3, 3, "height", "width")
    assert spec.free_of({"pixel_values": (3, 3, 16, 16)})["batch"] == 3


def test_pixels_left_over_take_any_size() -> None:
    sizes = size_range(replace(SMALL, image_size=(35, 53), drop_remainder=True))
    assert sizes.step == 1
    assert sizes.fits((37, 41))
    assert sizes.tokens((37, 41)) == 1 + 4 * 5
    assert not sizes.fits((7, 41))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"positions": "none", "relative_positions": "block"}, "looks up a bias by the distance"),
        ({"positions": "none", "relative_positions": "shared"}, "looks up a bias by the distance"),
        ({"resampled_from": (64, 64)}, "learned at 64x64 pixels and have been resampled to 32x48"),
    ],
)
def test_a_model_that_has_one_size_only_says_why(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageFailed, match=reason):
        size_range(replace(SMALL, **changes))


def test_positions_that_are_computed_were_resampled_from_nothing() -> None:
    config = replace(SMALL, positions="none", rotary=RotaryConfig(), resampled_from=(64, 64))
    assert size_range(config).maximum == (64, 96)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        (((16, 24), (32, 48), (24, 96)), "min, opt, max"),
        (((16, 20), None, None), "16x20"),
        (((64, 64), (64, 64), (96, 96)), "leave out the model's own, 32x48"),
        (((16, 16), (24, 24), (24, 96)), "leave out the model's own, 32x48"),
        (((0, 16), None, None), "0x16"),
    ],
)
def test_ranges_that_make_no_sense(sizes: tuple[tuple[int, int] | None, ...], reason: str) -> None:
    with pytest.raises(UsageFailed, match=reason):
        size_range(SMALL, *sizes)


@pytest.mark.parametrize("learned", [(32,), (0, 32), ("32", "48"), (32, 48, 3), (32.0, 48.0)])
def test_a_config_says_at_which_size_positions_were_learned(learned: tuple[int, int]) -> None:
    with pytest.raises(ImportFailed, match="resampled_from"):
        replace(SMALL, resampled_from=learned)
    config = replace(SMALL, resampled_from=(64, 64))
    assert ViTConfig.from_dict(config.to_dict()) == config


def test_a_range_holds_both_sides() -> None:
    sizes = SizeRange((16, 24), (32, 48), (64, 96), 8, 8, 1)
    assert sizes.holds((64, 24))
    assert not sizes.holds((72, 24))
    assert not sizes.holds((24, 28))
    with pytest.raises(UsageFailed, match="steps of 3"):
        SizeRange((16, 24), (32, 48), (64, 96), 8, 3, 1)
    assert size_text((224, 448)) == "224x448"
