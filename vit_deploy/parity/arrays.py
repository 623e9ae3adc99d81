"""What a module is judged on whose inputs are no picture: arrays of its shapes, by family.

Without a recipe from the outside world into such an input, its range of values is not known. Numbers of
mean 0 and deviation 1 are taken for the middle, smooth ones beside rough ones, and the corners are a
constant, zeros and a lone one. The same seed gives the same arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vit_deploy.spec import TensorSpec

    Array = NDArray[np.float32]
    Maker = Callable[[np.random.Generator, tuple[int, ...]], Any]


def make_arrays(inputs: Sequence[TensorSpec], seed: int = 0) -> Iterator[tuple[str, dict[str, Array]]]:
    """The family of each sample, and its arrays by name, without the batch.

    Args:
        inputs: float inputs with the batch first.
        seed: of the numbers.
    """
    import numpy as np

    for index, (family, make) in enumerate(_PLAN):
        generator = np.random.default_rng([seed, index])
        yield (
            family,
            {
                entry.name: np.ascontiguousarray(make(generator, entry.at_batch(1)[1:]), dtype=np.float32)
                for entry in inputs
            },
        )


def _pink(exponent: float) -> Maker:
    """Noise whose amplitude falls as ``1/f**exponent`` along its last one or two axes."""

    def make(generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        import numpy as np

        axes = tuple(range(len(shape)))[-2:]
        if not axes:
            return generator.standard_normal(shape)
        grids = np.meshgrid(*(np.fft.fftfreq(shape[axis]) for axis in axes), indexing="ij")
        frequency = np.sqrt(sum(grid**2 for grid in grids))
        frequency.flat[0] = np.inf if frequency.size > 1 else 1.0  # the mean is no part of the noise
        white = np.fft.fftn(generator.standard_normal(shape), axes=axes)
        pink = np.fft.ifftn(white / frequency**exponent, axes=axes).real
        return pink / (pink.std() or 1.0)

    return make


def _normal(scale: float) -> Maker:
    return lambda generator, shape: scale * generator.standard_normal(shape)


def _uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return generator.uniform(-1.0, 1.0, size=shape)


def _constant(generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
    import numpy as np

    return np.full(shape, generator.uniform(-1.0, 1.0))


def _zeros(_: np.random.Generator, shape: tuple[int, ...]) -> Any:
    import numpy as np

    return np.zeros(shape)


def _impulse(generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
    import numpy as np

    array = np.zeros(shape)
    array.flat[generator.integers(max(1, array.size))] = 1.0
    return array


# As many as there are pictures for an image model, and mixed likewise.
_PLAN: tuple[tuple[str, Maker], ...] = (
    ("pink", _pink(1.0)),
    ("constant", _zeros),
    ("normal", _normal(1.0)),
    ("uniform", _uniform),
    ("pink", _pink(0.5)),
    ("impulse", _impulse),
    ("normal", _normal(0.3)),
    ("constant", _constant),
    ("pink", _pink(1.0)),
    ("uniform", _uniform),
    ("normal", _normal(1.0)),
    ("normal", _normal(3.0)),
    ("pink", _pink(0.5)),
    ("uniform", _uniform),
    ("normal", _normal(1.0)),
    ("constant", _constant),
)
