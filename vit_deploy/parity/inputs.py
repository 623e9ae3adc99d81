"""The pictures that artefacts are judged on: families that between them wake every part of a ViT.

All are 8-bit pictures that go through the model's own preprocessing, so that an artefact is judged
on the range of values it will meet. Pink noise stands for photographs, whose amplitude spectra fall
as 1/f (Field 1987, https://doi.org/10.1364/JOSAA.4.002379) and whose channels move together; the
others are the corners: no contrast at all, the highest contrast, the highest frequency, a lone
pixel, pure colours, no structure. The same seed gives the same pictures.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import UsageFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from vit_deploy.model.kinds import Architecture
    from vit_deploy.model.preprocess import Preprocessing

    Picture = NDArray[np.uint8]
    Painter = Callable[[np.random.Generator, int, int, int, int], Picture]

CHANNEL_CORRELATION = 0.9
"""Share of a pink picture's amplitude that its channels have in common; photographs are near this."""


@dataclass(frozen=True)
class Sample:
    """One input: where it comes from, and its float32 values, without the batch.

    Attributes:
        name: of the sample, or of its file.
        family: what kind of input it is.
        pixel_values: of the first input: ``(c, h, w)`` after preprocessing where it is a picture.
        others: of the other inputs, by name; a ViT has none.
        picture: what was preprocessed, resized and cropped already: uint8 ``(h, w, c)``; ``None`` where
            the input is no picture.
    """

    name: str
    family: str
    pixel_values: NDArray[np.float32]
    others: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    picture: Picture | None = None


def make_samples(
    preprocessing: Preprocessing | None,
    config: Architecture,
    seed: int = 0,
    images: Sequence[Path] = (),
    natural: int = 0,
) -> tuple[Sample, ...]:
    """The inputs for one model: the generated families, then the user's images.

    Args:
        preprocessing: the model's own; ``None`` where its inputs are no picture.
        config: gives the size and channels of the pictures, or the shapes of the inputs.
        seed: of the generated pictures.
        images: the user's images, added to the others.
        natural: how many more pictures of natural spectra stand between them: shares need many witnesses.

    Raises:
        HostileInput: for an image that cannot be read.
        UsageFailed: for images where the inputs are no picture.
    """
    import numpy as np

    from vit_deploy.model.images import load_image

    if preprocessing is None:
        return _from_arrays(config, seed, images)
    height, width = config.image_size
    samples = []
    for index, (family, paint) in enumerate([*_PLAN, *itertools.islice(itertools.cycle(_NATURAL), natural)]):
        generator = np.random.default_rng([seed, index])
        picture = paint(generator, height, width, config.in_channels, patch_side(config))
        samples.append(_from_picture(f"{family}-{index}", family, picture, preprocessing))
    for path in images:
        image = load_image(path, channels=config.in_channels)
        samples.append(_from_picture(path.name, "image", np.asarray(preprocessing.cut(image)), preprocessing))
    return tuple(samples)


def stacked(samples: Sequence[Sample]) -> list[NDArray[np.float32]]:
    """The samples as one batch: an array for each input, in order."""
    import numpy as np

    first = np.stack([sample.pixel_values for sample in samples])
    return [first, *(np.stack([sample.others[name] for sample in samples]) for name in samples[0].others)]


def patch_side(config: Architecture) -> int:
    """Side of the squares that a ViT cuts pictures into; an eighth of the picture where there are none."""
    from vit_deploy.model.config import ViTConfig

    return config.patch_size if isinstance(config, ViTConfig) else max(2, min(config.image_size) // 8)


def _from_arrays(config: Architecture, seed: int, images: Sequence[Path]) -> tuple[Sample, ...]:
    from vit_deploy.parity.arrays import make_arrays

    inputs = config.io_spec().inputs
    if images:
        raise UsageFailed(
            f"pictures were given, and the inputs are {', '.join(entry.name for entry in inputs)}",
            expected="no --images: the model takes no picture",
            next_command="leave --images out",
        )
    samples = []
    for index, (family, arrays) in enumerate(make_arrays(inputs, seed)):
        first = arrays.pop(inputs[0].name)
        samples.append(Sample(f"{family}-{index}", family, first, arrays))
    return tuple(samples)


def _from_picture(name: str, family: str, picture: Picture, preprocessing: Preprocessing) -> Sample:
    """A sample of a picture of the model's size, ``(h, w, c)`` or ``(h, w)`` of grey."""
    import numpy as np

    values = np.ascontiguousarray(preprocessing.normalise(picture), dtype=np.float32)
    return Sample(name, family, values, picture=picture[:, :, None] if picture.ndim == 2 else picture)


def pink_noise(
    generator: np.random.Generator, height: int, width: int, channels: int, exponent: float = 1.0
) -> NDArray[np.float64]:
    """``(h, w, c)`` noise with a ``1/f**exponent`` amplitude spectrum, mean 0 and deviation 1 in each channel.

    The channels share :data:`CHANNEL_CORRELATION` of their amplitude.
    """
    import numpy as np

    rows = np.fft.fftfreq(height)[:, None]
    columns = np.fft.fftfreq(width)[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf  # no constant part: the mean is set by the caller
    white = generator.standard_normal((height, width, channels + 1))
    shared, own = white[..., :1], white[..., 1:]
    mixed = CHANNEL_CORRELATION * shared + np.sqrt(1 - CHANNEL_CORRELATION**2) * own
    spectrum = np.fft.fft2(mixed, axes=(0, 1)) / frequency[..., None] ** exponent
    pink = np.fft.ifft2(spectrum, axes=(0, 1)).real
    spread = pink.std(axis=(0, 1), keepdims=True)
    return np.asarray(pink / np.where(spread > 0, spread, 1.0), dtype=np.float64)


def _to_picture(values: Any) -> Picture:
    import numpy as np

    picture: Picture = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return picture


def _colour(generator: np.random.Generator, channels: int, low: int, high: int) -> NDArray[np.int64]:
    return generator.integers(low, high, size=channels)


def _pink(exponent: float, contrast: float) -> Painter:
    def paint(generator: np.random.Generator, height: int, width: int, channels: int, _: int) -> Picture:
        noise = pink_noise(generator, height, width, channels, exponent)
        return _to_picture(_colour(generator, channels, 90, 166) + contrast * noise)

    return paint


def _black(_: np.random.Generator, height: int, width: int, channels: int, __: int) -> Picture:
    import numpy as np

    return np.zeros((height, width, channels), dtype=np.uint8)


def _plain_colour(generator: np.random.Generator, height: int, width: int, channels: int, _: int) -> Picture:
    import numpy as np

    return np.broadcast_to(_to_picture(_colour(generator, channels, 20, 236)), (height, width, channels)).copy()


def _saturated(generator: np.random.Generator, height: int, width: int, channels: int, _: int) -> Picture:
    """Over-exposed: only 0 and 255, in patches as a photograph would have them."""
    return _to_picture(255.0 * (pink_noise(generator, height, width, channels) > 0))


def _checkerboard(coarse: bool) -> Painter:
    def paint(generator: np.random.Generator, height: int, width: int, channels: int, patch: int) -> Picture:
        import numpy as np

        # The coarse board has a square and a half per patch, so that neighbouring patches differ.
        square = max(1, (2 * patch) // 3) if coarse else 1
        odd = (np.arange(height)[:, None] // square + np.arange(width)[None, :] // square) % 2
        dark, light = _colour(generator, channels, 0, 64), _colour(generator, channels, 192, 256)
        return _to_picture(np.where(odd[..., None] == 1, light, dark))

    return paint


def _gradient(generator: np.random.Generator, height: int, width: int, channels: int, _: int) -> Picture:
    """From one colour to another along a slanted line."""
    import numpy as np

    angle = generator.uniform(0.15, 0.85) * np.pi / 2
    along = np.sin(angle) * np.linspace(0, 1, height)[:, None] + np.cos(angle) * np.linspace(0, 1, width)
    along = (along / along.max())[..., None]
    start, end = _colour(generator, channels, 0, 80), _colour(generator, channels, 176, 256)
    return _to_picture(start + along * (end - start))


def _impulse(generator: np.random.Generator, height: int, width: int, channels: int, _: int) -> Picture:
    """One white pixel on black, off the centre."""
    picture = _black(generator, height, width, channels, 0)
    picture[generator.integers(height), generator.integers(width)] = 255
    return picture


def _quadrants(_: np.random.Generator, height: int, width: int, channels: int, __: int) -> Picture:
    """Each quarter full in other channels: shows a wrong order of channels, rows or columns."""
    picture = _black(_, height, width, channels, 0)
    for quarter, (top, left) in enumerate(
        ((0, 0), (0, width // 2), (height // 2, 0), (height // 2, width // 2))
    ):
        channel = quarter % (channels + 1)
        chosen = slice(None) if channel == channels else channel
        picture[top : top + (height + 1) // 2, left : left + (width + 1) // 2, chosen] = 255 - 40 * quarter
    return picture


def _uniform(generator: np.random.Generator, height: int, width: int, channels: int, _: int) -> Picture:
    return _to_picture(generator.integers(0, 256, size=(height, width, channels)))


def _normal(generator: np.random.Generator, height: int, width: int, channels: int, _: int) -> Picture:
    return _to_picture(generator.normal(127.5, 50.0, size=(height, width, channels)))


# Pink noise leads and is spread out, so that every batch holds some; 16 samples are enough for a 95th
# percentile that one outlier does not decide, and few enough for a float64 reference in seconds.
_PLAN: tuple[tuple[str, Painter], ...] = (
    ("pink", _pink(1.0, 50.0)),
    ("constant", _black),
    ("pink", _pink(1.0, 25.0)),
    ("saturated", _saturated),
    ("pink", _pink(1.2, 50.0)),
    ("checkerboard", _checkerboard(coarse=False)),
    ("pink", _pink(0.8, 50.0)),
    ("gradient", _gradient),
    ("pink", _pink(1.0, 80.0)),
    ("impulse", _impulse),
    ("pink", _pink(1.2, 35.0)),
    ("uniform", _uniform),
    ("quadrants", _quadrants),
    ("normal", _normal),
    ("constant", _plain_colour),
    ("checkerboard", _checkerboard(coarse=True)),
)

_NATURAL = tuple(entry for entry in _PLAN if entry[0] == "pink")

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(family for family, _ in _PLAN))
"""The generated families, in order of first use."""
