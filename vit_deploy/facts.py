"""What is found out about machines, backends and artefacts, as plain frozen data.

Nothing here imports anything heavy, and nothing here acts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from vit_deploy.errors import unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.spec import Precision


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


LayerClass = Literal["linear", "attention", "softmax", "layernorm", "activation", "io"]
"""The kinds of layers whose dtype is told apart: ``linear`` holds matrix products with weights, convolutions
and what is fused with them; ``attention`` is one operator, or the two products around a softmax; ``io`` is
the inputs and outputs."""

LAYER_CLASSES: tuple[LayerClass, ...] = ("linear", "attention", "softmax", "layernorm", "activation", "io")


@dataclass(frozen=True)
class RuntimeFacts:
    """What a session reports of itself, read back from the backend after it was opened.

    Attributes:
        backend: the runtime's name.
        version: the backend's own version.
        device: where it runs.
        precision: the effective precision of the bulk of the arithmetic.
        threads: CPU threads, all streams together; ``None`` where that means nothing (a GPU).
        streams: inferences that may run side by side.
        placement: number of graph nodes by provider, or the devices of the parameters.
        tf32: whether TF32 may stand in for fp32; ``None`` on a CPU.
        dtypes: number of layers by dtype (``fp32``, ``int8`` …), for each class of :data:`LAYER_CLASSES` of
            which something is known; where layers are fused, a layer counts in each class that it is of.
        fused_attention: ``fused`` and ``of``: how many attentions run as one kernel, of how many there
            are; ``None`` where the backend does not tell.
        precision_hint: the precision that the backend was told to compute in (``f32``), read back; empty
            for a backend without such a setting.
        details: anything more that the backend tells.
    """

    backend: str
    version: str
    device: str
    precision: Precision
    threads: int | None = None
    streams: int = 1
    placement: Mapping[str, int] = field(default_factory=dict)
    tf32: bool | None = None
    dtypes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    fused_attention: Mapping[str, int] | None = None
    precision_hint: str = ""
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
        evidence: what reports show and no manifest keeps: figures by sample, histograms, the worst run.
    """

    passed: bool | None
    backend: str = ""
    reason: str = ""
    worst_ratio: float | None = None
    p95_ratio: float | None = None
    samples: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """``passed``, ``failed`` or ``unverified``."""
        return {True: "passed", False: "failed", None: "unverified"}[self.passed]
