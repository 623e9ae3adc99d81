"""Pictures on their way from the disk to every artefact: read once, a few ahead, in order.

Threads decode while backends compute in processes of their own. What is ready and not yet asked for is
bounded, so that memory does not grow with the number of pictures.
"""

from __future__ import annotations

import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vit_deploy.environment import usable_cores
from vit_deploy.errors import HostileInput, ImportFailed, VitDeployError
from vit_deploy.model.images import load_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from PIL.Image import Image

    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.spec import Contract

    Array = np.ndarray[Any, Any]

MAX_THREADS = 4
"""Of decoding: more would take the cores from the backends."""


@dataclass(frozen=True)
class Ready:
    """A picture as every artefact takes it, or why there is none.

    Attributes:
        place: which picture it is, counted from 0.
        arrays: without the batch, by what an artefact takes.
        error: why it could not be read.
    """

    place: int
    arrays: Mapping[Contract, Array] = field(default_factory=dict)
    error: VitDeployError | None = None


def decoded(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    channels: int,
    contracts: Iterable[Contract],
    *,
    ahead: int,
) -> Iterator[Ready]:
    """Every picture, in order.

    Args:
        paths: the files.
        preprocessing: of the model.
        channels: of the model.
        contracts: what the artefacts take.
        ahead: how many pictures may be ready, or on their way, before they are asked for.
    """
    from PIL import Image

    wanted = frozenset(contracts)

    def read(place: int) -> Ready:
        try:
            image = load_image(paths[place], channels)
            return Ready(place, {kind: _as_taken(image, preprocessing, kind) for kind in wanted})
        except (HostileInput, ImportFailed) as error:
            return Ready(place, error=error)

    threads = min(MAX_THREADS, usable_cores())
    # Each thread sets this filter for itself and puts back what it found, which may be another thread's.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads, "decode") as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        waiting: deque[Future[Ready]] = deque()
        try:
            for place in range(len(paths)):
                waiting.append(pool.submit(read, place))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _as_taken(image: Image, preprocessing: Preprocessing, contract: Contract) -> Array:
    """A picture as an artefact of a contract takes it."""
    import numpy as np

    if contract == "pixel_values":
        return preprocessing(image)
    pixels = np.asarray(preprocessing.cut(image) if contract == "uint8" else image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
