"""Plain frozen data that crosses every interface: tensors, batch ranges, devices, facts.

Nothing here imports anything heavy, and nothing here acts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from vit_deploy.errors import UsageFailed, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping

Precision = Literal["fp32", "fp16", "bf16"]
"""The dtype of the bulk of an artefact's arithmetic, as it is declared."""

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")

Dim = int | str
"""A dimension: a size, or the name of a size that is free (``"batch"``)."""

BATCH: str = "batch"
"""The name of the one free dimension that every dynamic artefact has."""

Contract = Literal["pixel_values", "uint8", "image"]
"""What an artefact takes: normalised float pixels ``(b, c, h, w)``; RGB ``uint8`` pixels ``(b, h, w, c)``
of the model's size; or RGB ``uint8`` pictures of any size, which it resizes and crops itself."""

CONTRACTS: tuple[Contract, ...] = ("pixel_values", "uint8", "image")


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output: its numpy dtype name and its shape."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def at_batch(self, batch_size: int) -> tuple[int, ...]:
        """The concrete shape at ``batch_size``."""
        return tuple(batch_size if isinstance(dim, str) else dim for dim in self.shape)


MAX_BATCH = 2**16
"""No artefact is made for a larger batch."""


@dataclass(frozen=True)
class BatchRange:
    """The batch sizes an artefact is made for, as in trtexec's min, opt and max shapes.

    ``minimum == maximum`` fixes the batch; otherwise it is free. Only TensorRT is bound
    by the range: the other formats take any batch, and are verified inside it.
    """

    minimum: int = 1
    optimum: int = 1
    maximum: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum <= MAX_BATCH:
            raise UsageFailed(
                f"the batch range is min {self.minimum}, opt {self.optimum}, max {self.maximum}",
                expected=f"1 <= min <= opt <= max <= {MAX_BATCH}",
                next_command="give --minShapes, --optShapes and --maxShapes in that order of size",
            )

    @property
    def is_fixed(self) -> bool:
        """Whether just one batch size is allowed."""
        return self.minimum == self.maximum

    @property
    def dim(self) -> Dim:
        """The batch dimension as it stands in a shape."""
        return self.minimum if self.is_fixed else BATCH


@dataclass(frozen=True)
class SizeRange:
    """The image sizes an artefact is made for, each ``(height, width)``; both sides are free."""

    minimum: tuple[int, int]
    optimum: tuple[int, int]
    maximum: tuple[int, int]


@dataclass(frozen=True)
class IOSpec:
    """What goes in and what comes out, by name and in order.

    Attributes:
        inputs: one for a ViT.
        outputs: those asked for.
        batch: the batch sizes.
        sizes: the image sizes; ``None`` where there is but one.
        contract: what the input means.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: BatchRange = field(default_factory=BatchRange)
    sizes: SizeRange | None = None
    contract: Contract = "pixel_values"

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return tuple(output.name for output in self.outputs)


@dataclass(frozen=True)
class Device:
    """Where something runs: ``cpu``, or ``cuda`` and its index."""

    kind: Literal["cpu", "cuda"] = "cpu"
    index: int = 0

    @classmethod
    def parse(cls, text: str) -> Device:
        """Read ``cpu``, ``cuda`` or ``cuda:1``.

        Raises:
            UsageFailed: for anything else.
        """
        kind, _, index = text.partition(":")
        if kind == "cpu" and not index:
            return cls("cpu")
        if kind == "cuda" and (not index or re.fullmatch("[0-9]{1,3}", index)):
            return cls("cuda", int(index or 0))
        raise unknown_name("device", text, ["cpu", "cuda", "cuda:0", "cuda:1"])

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


@dataclass(frozen=True)
class Availability:
    """Whether something can be used here; if not, why, and the exact command that mends it."""

    ok: bool
    reason: str = ""
    mend: str = ""
    version: str = ""

    @classmethod
    def yes(cls, version: str = "") -> Availability:
        """It can be used, at this version."""
        return cls(ok=True, version=version)

    @classmethod
    def no(cls, reason: str, mend: str, version: str = "") -> Availability:
        """It cannot be used: why, and what mends it."""
        return cls(ok=False, reason=reason, mend=mend, version=version)


@dataclass(frozen=True)
class RuntimeFacts:
    """What a session reports of itself, read back from the backend after it was opened.

    Attributes:
        backend: the runtime's name.
        version: the backend's own version.
        device: where it runs.
        precision: the effective precision of the bulk of the arithmetic.
        threads: threads used for one inference; ``None`` where that means nothing (a GPU).
        placement: number of graph nodes by provider, or the devices of the parameters.
        tf32: whether TF32 may stand in for fp32; ``None`` on a CPU.
        details: anything more that the backend tells.
    """

    backend: str
    version: str
    device: str
    precision: Precision
    threads: int | None = None
    placement: Mapping[str, int] = field(default_factory=dict)
    tf32: bool | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What the parity check found for one artefact.

    Attributes:
        passed: ``None`` where it could not be, or was not, checked here; ``reason`` says why.
        backend: the runtime that was judged, empty if none was.
        reason: why it failed or was not checked, empty when it passed.
        worst_ratio: the largest error over its limit's yardstick, over all samples and outputs.
        p95_ratio: the 95th percentile of the same.
        samples: how many distinct inputs were judged.
        details: figures by output and by input family, batch sizes, limits.
    """

    passed: bool | None
    backend: str = ""
    reason: str = ""
    worst_ratio: float | None = None
    p95_ratio: float | None = None
    samples: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """``passed``, ``failed`` or ``unverified``."""
        return {True: "passed", False: "failed", None: "unverified"}[self.passed]
