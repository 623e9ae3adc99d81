"""The pictures that a model is calibrated on: the user's own, or synthetic ones of natural spectra.

Never noise: ranges that are chosen on white noise are those of activations no picture makes. A model whose
input is no picture is refused, as nobody but its owner knows what it is given.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import HostileInput, ImportFailed, UsageFailed, VitDeployError
from vit_deploy.parity.images import find_pictures, spread
from vit_deploy.parity.inputs import Sample, pink_noise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.protocols import Arrays
    from vit_deploy.spec import IOSpec
    from vit_deploy.weights.imported import Model

MINIMUM = 16
"""Fewer pictures say too little: a 99.99th percentile of one layer then hangs on one or two of them."""

_RECIPE = "pink 2"
"""Of the synthetic pictures; another one where they change, so that nothing cached outlives them."""

_COLOURED = 2.0
"""Mean difference of a picture's channels, in levels, from which it is in colour; JPEG's own is below 1."""

_MEND = "--calibrate with a folder of pictures such as the model is used on, or leave it out"


@dataclass(frozen=True)
class Samples:
    """The pictures of one calibration, unread.

    Attributes:
        paths: the user's pictures, in order; empty where they are synthetic.
        synthetic: whether they are made up.
        digest: names these very pictures: SHA-256 over those of the files, in order, or over the recipe.
        count: how many there are.
        skipped: names of files that were left out, as they cannot be read.
    """

    paths: tuple[Path, ...]
    synthetic: bool
    digest: str
    count: int
    skipped: tuple[str, ...] = ()

    def first(self, count: int) -> Samples:
        """The first so many of them."""
        return replace(self, paths=self.paths[:count], count=min(count, self.count))

    def batches(self, model: Model, spec: IOSpec, batch_size: int) -> Iterator[Arrays]:
        """The pictures through the model's preprocessing, in order, a batch in memory at a time.

        Args:
            model: its preprocessing and the size of its input.
            spec: of the graph they are for; a fixed batch overrules ``batch_size``, and the last one is
                filled up with the pictures it begins with.
            batch_size: pictures in a batch; the last may have fewer.

        Yields:
            The inputs of ``spec`` by name, ``(b, …)`` each, in its dtypes.

        Raises:
            HostileInput: for a picture that cannot be read any more.
        """
        from vit_deploy.parity.feeding import fed

        preprocessing = model.known_preprocessing
        size = spec.batch.minimum if spec.batch.is_fixed else max(1, batch_size)
        for start in range(0, self.count, size):
            indices = range(start, min(start + size, self.count))
            samples = [self._sample(index, model, preprocessing) for index in indices]
            if spec.batch.is_fixed:
                samples = [samples[slot % len(samples)] for slot in range(size)]
            yield fed(spec, samples, preprocessing)

    def _sample(self, index: int, model: Model, preprocessing: Preprocessing) -> Sample:
        import numpy as np

        from vit_deploy.model.images import load_image

        channels = model.config.in_channels
        if self.synthetic:
            picture = natural_picture(index, *model.config.image_size, channels)
            name = f"synthetic-{index}"
        else:
            path = self.paths[index]
            picture, name = np.asarray(preprocessing.cut(load_image(path, channels=channels))), path.name
        values = np.ascontiguousarray(preprocessing.normalise(picture), dtype=np.float32)
        whole = picture[:, :, None] if picture.ndim == 2 else picture
        return Sample(name, "synthetic" if self.synthetic else "image", values, picture=whole)


def choose_samples(model: Model, folder: str, count: int) -> Samples:
    """The pictures to calibrate a model on: at most ``count`` of a folder, evenly spread, or synthetic ones.

    Every file is read once here, so that what is wrong with a folder is known before anything is run.

    Args:
        model: its input says what a picture must be.
        folder: searched with its subfolders; empty for synthetic pictures.
        count: how many.

    Raises:
        UsageFailed: for a model whose input is no picture, or a count below :data:`MINIMUM`.
        ImportFailed: when there is no such folder, or it may not be read.
        HostileInput: for a folder without pictures, with fewer than :data:`MINIMUM` different ones that can
            be read, or with pictures of another kind than the model takes.
    """
    if model.preprocessing is None:
        raise UsageFailed(
            f"{model.source.name} cannot be calibrated: its input is no picture, and nothing is known of it",
            expected="a model that takes pictures",
            next_command="--dtype bf16 or fp16, which need no calibration",
        )
    if count < MINIMUM:
        raise UsageFailed(
            f"a calibration on {count} pictures was asked for",
            expected=f"{MINIMUM} or more; 128 is plenty",
            next_command="--calibration-images 128",
        )
    return _from_folder(model, folder, count) if folder else _synthetic(model, count)


def natural_picture(index: int, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """A made-up picture ``(h, w, c)`` with the spectrum of a photograph; ``(h, w)`` of one channel.

    Amplitudes fall as ``1/f**a``, ``a`` from 0.8 to 1.4 as in photographs (Tolhurst, Tadmor and Chao 1992,
    https://doi.org/10.1111/j.1475-1313.1992.tb01305.x); brightness and contrast vary as exposures do, so
    that some are clipped. The same index gives the same picture.
    """
    import numpy as np

    generator = np.random.default_rng([_SEED, index])
    exponent, contrast = generator.uniform(0.8, 1.4), generator.uniform(20.0, 90.0)
    brightness = generator.uniform(60.0, 196.0) + generator.normal(0.0, 15.0, size=channels)
    values = brightness + contrast * pink_noise(generator, height, width, channels, exponent)
    picture: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return picture[:, :, 0] if channels == 1 else picture


_SEED = 6_022


def _synthetic(model: Model, count: int) -> Samples:
    config = model.config
    if config.in_channels not in (1, 3):
        raise UsageFailed(
            f"no pictures can be made up for a model of {config.in_channels} channels",
            expected="a model of 1 or 3 channels",
        )
    recipe = [_RECIPE, count, *config.image_size, config.in_channels]
    return Samples((), True, hashlib.sha256(json.dumps(recipe).encode()).hexdigest(), count)


@dataclass(frozen=True)
class _Look:
    """What a file is: its hash, whether it is unlike what the model takes; or why it cannot be read."""

    sha256: str = ""
    unlike: bool = False
    error: VitDeployError | None = None


def _from_folder(model: Model, folder: str, count: int) -> Samples:
    paths = spread(_pictures(folder), count)
    channels = model.config.in_channels
    looks = [_look_at(path, channels) for path in paths]
    good = [(path, look) for path, look in zip(paths, looks, strict=True) if look.error is None]
    skipped = tuple(path.name for path, look in zip(paths, looks, strict=True) if look.error is not None)
    _require_enough(folder, good, looks)
    if all(look.unlike for _, look in good):
        raise _unlike(folder, channels)
    digest = hashlib.sha256("\n".join(look.sha256 for _, look in good).encode()).hexdigest()
    return Samples(tuple(path for path, _ in good), False, digest, len(good), skipped)


def _pictures(folder: str) -> tuple[Path, ...]:
    try:
        return find_pictures(folder)
    except (ImportFailed, HostileInput) as error:
        told = error.found.replace("image folder", "calibration folder")
        raise type(error)(told, expected=error.expected, next_command=_MEND) from error


def _look_at(path: Path, channels: int) -> _Look:
    import numpy as np
    from PIL import Image

    from vit_deploy.model.images import load_image
    from vit_deploy.weights.hashes import sha256_of

    try:
        picture = load_image(path, channels=3)
        if channels == 3:
            with Image.open(path) as image:
                unlike = len(image.getbands()) == 1 and image.mode != "P"
        else:
            unlike = _is_coloured(np.asarray(picture))
        return _Look(sha256_of(path), unlike)
    except VitDeployError as error:
        return _Look(error=error)
    except OSError as error:
        return _Look(error=HostileInput(f"{path.name!r} cannot be read: {error.strerror or error}"))


def _is_coloured(pixels: NDArray[Any]) -> bool:
    import numpy as np

    levels = pixels.astype(np.int16)
    return bool(np.abs(levels - levels[:, :, 1:2]).mean() * 1.5 > _COLOURED)


def _require_enough(folder: str, good: list[tuple[Path, _Look]], looks: list[_Look]) -> None:
    distinct = len({look.sha256 for _, look in good})
    if distinct >= MINIMUM:
        return
    errors = [look.error for look in looks if look.error is not None]
    told = f"the calibration folder {folder!r} holds {distinct} different picture(s) that can be read"
    if errors:
        told += f"; {len(errors)} cannot be, the first because {errors[0].found}"
    raise HostileInput(told, expected=f"{MINIMUM} or more", next_command=_MEND)


def _unlike(folder: str, channels: int) -> HostileInput:
    kinds = ("grey", "colour") if channels == 3 else ("in colour", "grey")
    return HostileInput(
        f"every picture of the calibration folder {folder!r} is {kinds[0]}",
        expected=f"{kinds[1]} pictures, as the model takes {channels} channel(s)",
        next_command=f"{_MEND}; save them as {'RGB' if channels == 3 else 'grey'} first if they are such",
    )
