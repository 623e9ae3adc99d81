"""Samples as an artefact takes them, by its input contract.

The truth is the same for every contract: eager PyTorch on the model's own preprocessing of the sample's
picture. What differs is how much of that preprocessing the artefact does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.parity.inputs import stacked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.parity.inputs import Picture, Sample
    from vit_deploy.spec import Contract, IOSpec

    Feed = Callable[[Sequence[Sample], Preprocessing | None], list[NDArray[Any]]]


def fed(
    spec: IOSpec, samples: Sequence[Sample], preprocessing: Preprocessing | None
) -> dict[str, NDArray[Any]]:
    """The samples as one batch of the inputs of ``spec``, by name.

    Args:
        spec: of the artefact.
        samples: one for each slot of the batch.
        preprocessing: of the model.
    """
    arrays = _FEEDS[spec.contract](samples, preprocessing)
    return {
        entry.name: array.astype(entry.dtype, copy=False)
        for entry, array in zip(spec.inputs, arrays, strict=True)
    }


def _values(samples: Sequence[Sample], _: Preprocessing | None) -> list[NDArray[Any]]:
    return [*stacked(samples)]


def _pictures(samples: Sequence[Sample], _: Preprocessing | None) -> list[NDArray[Any]]:
    import numpy as np

    return [np.stack([_picture(sample) for sample in samples])]


def _framed(samples: Sequence[Sample], preprocessing: Preprocessing | None) -> list[NDArray[Any]]:
    """At the size that resizing leaves as it is, so that the artefact must cut out the very picture."""
    import numpy as np

    if preprocessing is None:
        raise ValueError("an artefact that resizes pictures has a preprocessing")
    return [np.stack([preprocessing.framed(_picture(sample)) for sample in samples])]


def _picture(sample: Sample) -> Picture:
    if sample.picture is None:
        raise ValueError(f"the sample {sample.name!r} is no picture")
    return sample.picture


_FEEDS: dict[Contract, Feed] = {"pixel_values": _values, "uint8": _pictures, "image": _framed}
