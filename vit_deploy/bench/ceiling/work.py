"""What an inference of a case amounts to: its matrix products, operations and bytes, counted from the config.

The bundle's manifest has the config, so nothing heavy is imported to count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from vit_deploy.bench.subjects import REFERENCE_FORMAT
from vit_deploy.bundle.reader import Bundle
from vit_deploy.errors import VitDeployError
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.counts import count_moved_elements, gemm_shapes

if TYPE_CHECKING:
    from vit_deploy.bench.cases import Case
    from vit_deploy.model.counts import Gemm
    from vit_deploy.spec import Precision

WIDTHS: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
"""Bytes of a number."""


@dataclass(frozen=True)
class Work:
    """One inference of a case, its whole batch.

    Attributes:
        gemms: its matrix products.
        flops: floating-point operations of those, two for each multiply-accumulate; for ``int8`` they are
            operations on integers, counted alike.
        bytes_moved: what it must move at least, see :func:`vit_deploy.model.counts.count_moved_elements`,
            all numbers being as wide as the precision says.
    """

    gemms: tuple[Gemm, ...]
    flops: int
    bytes_moved: int

    @property
    def intensity(self) -> float:
        """Operations for each byte moved: what decides whether arithmetic or memory is the limit."""
        return self.flops / self.bytes_moved


def work_of(case: Case) -> Work | None:
    """The work of a case; ``None`` where its inside is not known: a module of the user's own, no bundle."""
    # A picture of any size is resized by the artefact to the one that the network takes.
    size = None if case.contract == "image" else case.image_size
    return _count(case.bundle, case.artefact, case.format, case.precision, case.batch_size, size)


@lru_cache(maxsize=1024)
def _count(
    path: str, name: str, format: str, precision: Precision, batch_size: int, size: tuple[int, int] | None
) -> Work | None:
    try:
        bundle = Bundle.open(path)
    except (VitDeployError, OSError):
        return None  # who measures the case says what is wrong with its bundle
    config = bundle.config
    if not isinstance(config, ViTConfig):
        return None
    gemms = gemm_shapes(config, batch_size, size, _outputs(bundle, name, format))
    elements = count_moved_elements(config, gemms)
    return Work(gemms, sum(gemm.flops for gemm in gemms), elements * WIDTHS[precision])


def _outputs(bundle: Bundle, name: str, format: str) -> tuple[str, ...]:
    """What the artefact computes; the reference weights compute what the first artefact does."""
    records = bundle.records
    record = records.get(name)
    if record is None and format == REFERENCE_FORMAT:
        record = next(iter(records.values()), None)
    return tuple(entry.name for entry in record.outputs) if record else ()
