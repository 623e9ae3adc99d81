"""Judges how an artefact resizes, apart from how it computes.

Where an artefact takes pictures of any size (``--input image``), its network is judged by the parity
criterion at the size that resizing leaves as it is: there its pixels are Pillow's, to the bit, and no limit
is widened. At other sizes its pixels may differ from Pillow's by a grey level, so they are judged by that:

Pillow's pixels are those of its two passes in the order that artefacts have, rows first: Pillow 13 begins
with the columns where a picture shrinks much more in height, and then differs from its own earlier versions.

* the resize itself, in eager PyTorch, must give at least :data:`SHARE` of the pixels within one level of
  Pillow's;
* the artefact's outputs must be no further from the truth (eager in float64 on Pillow's own pixels) than
  those of eager are when every level of Pillow's pixels is moved by -1, 0 or 1 at random; what the parity
  criterion allows the network is added.

A wrong filter, a crop that is off by a pixel, or levels that are cut off instead of rounded stand far
beyond that: see ``tests/parity/test_resizing.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.parity.inputs import pink_noise
from vit_deploy.parity.limits import SUSPECT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.parity.criterion import Floats
    from vit_deploy.parity.inputs import Picture
    from vit_deploy.parity.limits import Limits
    from vit_deploy.parity.truth import Truth
    from vit_deploy.protocols import Progress, Session
    from vit_deploy.spec import IOSpec
    from vit_deploy.weights.imported import Model

SHARE = 0.99
"""Of the pixels, how many must be within one grey level of Pillow's."""

LIMIT = 1.0
"""How far the outputs may be from the truth, over what one grey level may do."""

DRAWS = 2
"""How often the levels are moved at random; the largest effect is granted."""

MAX_WHOLE_IMAGES = 4
"""How many of the user's images are judged at their own size, too."""

_FACTORS = ((0.6, 0.85), (1.1, 1.5), (1.9, 1.3), (2.3, 4.1), (5.3, 2.2))
"""Heights and widths over the model's: larger and smaller, landscape and portrait. Sizes are odd."""

_CONTRAST = 60.0


@dataclass(frozen=True)
class Resized:
    """A picture of another size, and what becomes of it.

    Attributes:
        name: of the picture.
        picture: ``(height, width, c)``.
        pixels: what Pillow makes of it, ``(h, w, c)``.
        exact: eager's outputs in float64 on those pixels, by name, without the batch.
        moved: how far moving the levels leads, relative to ``exact``, by name.
    """

    name: str
    picture: Picture
    pixels: Picture
    exact: Mapping[str, Floats]
    moved: Mapping[str, float]


class ResizeCheck:
    """Judges the resizing of any number of artefacts of one model; the truth is computed once.

    Args:
        model: the model that the artefacts were made from.
        images: the user's pictures; some are judged at their own size.
        seed: of the generated pictures.
    """

    def __init__(self, model: Model, images: Sequence[Path] = (), seed: int = 0) -> None:
        self._model = model
        self._images = tuple(images)[:MAX_WHOLE_IMAGES]
        self._seed = seed
        self._known: dict[tuple[object, ...], list[Resized]] = {}

    def judge(
        self,
        spec: IOSpec,
        session: Session,
        truths: Mapping[str, Truth],
        limits: Limits,
        progress: Progress,
    ) -> tuple[str, dict[str, Any]]:
        """What is wrong with the resizing, or nothing; and the figures, under ``resizing``.

        Args:
            spec: of the artefact.
            session: runs it.
            truths: what the network was judged by, by output.
            limits: what it was judged by.
            progress: told how far it is.

        Raises:
            RunFailed: when the backend fails.
        """
        import numpy as np

        times = SUSPECT if limits.worst is None else limits.worst
        granted = {name: times * float(truth.yardsticks.max()) for name, truth in truths.items()}
        cases = self._cases(spec, progress)
        progress.phase("resizing", len(cases))
        (entry,) = spec.inputs
        ratios: dict[str, float] = {}
        for case in cases:
            batch = np.stack([case.picture] * spec.batch.minimum)
            outputs = session.run({entry.name: batch})
            ratios[case.name] = max(
                _distance(outputs[name][0], exact) / (case.moved[name] + granted[name])
                for name, exact in case.exact.items()
            )
            progress.advance()
        worst = max(ratios, key=lambda name: ratios[name])
        share, largest = self._levels(cases)
        details = {
            "pictures": list(ratios),
            "worst_ratio": ratios[worst],
            "limit": LIMIT,
            "within_one_level": share,
            "largest_difference": largest,
        }
        return _reason(worst, ratios[worst], share), {"resizing": details}

    def _levels(self, cases: Sequence[Resized]) -> tuple[float, int]:
        """The least share of pixels within one level of Pillow's, and the largest difference."""
        import numpy as np
        import torch

        from vit_deploy.model.picture_resize import PictureResize

        resize = PictureResize(self._model.known_preprocessing)
        share, largest = 1.0, 0
        for case in cases:
            levels = torch.from_numpy(case.picture).permute(2, 0, 1).unsqueeze(0).float()
            found = resize(levels)[0].permute(1, 2, 0).numpy().astype(np.int64)
            apart = np.abs(found - case.pixels.astype(np.int64))
            share, largest = min(share, float((apart <= 1).mean())), max(largest, int(apart.max()))
        return share, largest

    def _cases(self, spec: IOSpec, progress: Progress) -> list[Resized]:
        key = (spec.output_names, spec.sizes)
        if key not in self._known:
            self._known[key] = self._make_cases(spec, progress)
        return self._known[key]

    def _make_cases(self, spec: IOSpec, progress: Progress) -> list[Resized]:
        import numpy as np
        import torch
        from PIL import Image

        preprocessing = self._model.known_preprocessing
        module = self._model.eager(dtype=torch.float64, outputs=spec.output_names)
        pictures = [*self._generated(preprocessing, spec), *self._whole(spec)]
        progress.phase("reference of resized pictures in float64", len(pictures))
        generator = np.random.default_rng([self._seed, len(_FACTORS)])
        cases = []
        for name, picture in pictures:
            grey = picture.shape[2] == 1
            image = Image.fromarray(picture[:, :, 0] if grey else picture)
            pixels = np.asarray(preprocessing.cut(image, rows_first=True))
            pixels = pixels[:, :, None] if grey else pixels
            versions = [pixels, *(_moved(pixels, generator) for _ in range(DRAWS))]
            with torch.inference_mode():
                values = np.stack([preprocessing.normalise(version) for version in versions])
                results = module(torch.from_numpy(values).double())
            tensors = results if isinstance(results, tuple) else (results,)
            outputs = dict(zip(spec.output_names, (tensor.numpy() for tensor in tensors), strict=True))
            exact = {output: values[0] for output, values in outputs.items()}
            moved = {
                output: max(_distance(other, values[0]) for other in values[1:])
                for output, values in outputs.items()
            }
            cases.append(Resized(name, picture, pixels, exact, moved))
            progress.advance()
        return cases

    def _generated(self, preprocessing: Preprocessing, spec: IOSpec) -> Iterator[tuple[str, Picture]]:
        """Pink noise of several sizes inside the artefact's range."""
        import numpy as np

        for index, factors in enumerate(_FACTORS):
            sides = (
                int(side * factor) | 1 for side, factor in zip(preprocessing.resize_size, factors, strict=True)
            )
            if spec.sizes is not None:
                bounds = zip(spec.sizes.minimum, sides, spec.sizes.maximum, strict=True)
                sides = (min(max(low, side), high) for low, side, high in bounds)
            height, width = sides
            generator = np.random.default_rng([self._seed, index])
            noise = pink_noise(generator, height, width, preprocessing.channels)
            levels = np.clip(np.rint(127.5 + _CONTRAST * noise), 0, 255).astype(np.uint8)
            yield f"pink {height}x{width}", levels

    def _whole(self, spec: IOSpec) -> Iterator[tuple[str, Picture]]:
        """The user's images as they are, where the artefact's range holds their size."""
        import numpy as np

        from vit_deploy.model.images import load_image

        channels = self._model.known_preprocessing.channels
        for path in self._images:
            picture = np.array(load_image(path, channels=channels))
            picture = picture[:, :, None] if picture.ndim == 2 else picture
            height, width = picture.shape[:2]
            if spec.sizes is None or spec.sizes.holds((height, width)):
                yield f"{path.name} {height}x{width}", picture


def _moved(pixels: Picture, generator: np.random.Generator) -> Picture:
    """Every level moved by -1, 0 or 1 at random."""
    import numpy as np

    steps = generator.integers(-1, 2, size=pixels.shape)
    moved: Picture = np.clip(pixels.astype(np.int64) + steps, 0, 255).astype(np.uint8)
    return moved


def _distance(found: NDArray[Any], exact: Floats) -> float:
    """How far an output of one sample is from the truth, relative to its length."""
    import numpy as np

    length = float(np.linalg.norm(exact)) or 1.0
    return float(np.linalg.norm(found.astype(np.float64) - exact)) / length


def _reason(name: str, ratio: float, share: float) -> str:
    if share < SHARE:
        return f"resizing: {share:.1%} of the pixels are within one grey level of Pillow's, not {SHARE:.0%}"
    if not ratio <= LIMIT:
        return (
            f"resizing: on {name!r} the output is {ratio:,.4g} times as far from eager PyTorch on Pillow's "
            f"pixels as one grey level explains (limit {LIMIT:g})"
        )
    return ""
