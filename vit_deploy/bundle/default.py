"""The default of a bundle: how ``vit-deploy tune`` found it to run best, and on which machine.

It is a record beside the artefacts, and it binds to one of them by the hashes of its files: a default
whose artefact is gone, was exported anew or lost its proof is told of and not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from vit_deploy.environment import cpu_model, gpu_names, usable_cores
from vit_deploy.spec import MAX_BATCH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.bundle.manifest import ArtefactRecord

Objective = Literal["latency", "throughput", "memory"]
"""What is to be best: the median time of an inference, images per second, or peak memory."""

MAX_THREADS = 1024


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MachineRecord(_Record):
    """The machine that a default was found on, as far as its settings depend on it."""

    cpu: str
    cores: int = Field(ge=1)
    gpus: list[str] = []

    @classmethod
    def here(cls, device: str) -> MachineRecord:
        """This machine; its GPUs only where ``device`` is one of them."""
        return cls(cpu=cpu_model(), cores=usable_cores(), gpus=[] if device == "cpu" else gpu_names())

    def __str__(self) -> str:
        return ", ".join([f"{self.cpu}, {self.cores} core{'s' if self.cores > 1 else ''}", *self.gpus])


class FiguresRecord(_Record):
    """What was measured of it there."""

    p50_ms: float = Field(gt=0, allow_inf_nan=False)
    images_per_s: float = Field(gt=0, allow_inf_nan=False)
    peak_rss_bytes: int | None = Field(ge=0)


class DefaultRecord(_Record):
    """Which artefact is run by what, and with which settings, unless the user says otherwise."""

    artefact: str
    files: dict[str, str] = Field(min_length=1)
    backend: str
    device: str
    threads: int = Field(ge=1, le=MAX_THREADS)
    streams: int = Field(ge=1, le=MAX_THREADS)
    batch_size: int = Field(ge=1, le=MAX_BATCH)
    objective: Objective
    budget: list[str] = []
    environment: MachineRecord
    figures: FiguresRecord
    measured_with: dict[str, str] = {}

    def objection(self, records: Mapping[str, ArtefactRecord]) -> str:
        """Why it cannot be used with these artefacts; empty where it can."""
        record = records.get(self.artefact)
        if record is None:
            return f"its artefact {self.artefact} is not in the bundle any more"
        if self.files != hashes_of(record):
            return f"{self.artefact} is not the one that was tuned: its files are others"
        if record.parity.passed is not True:
            return f"{self.artefact} is not proven equal to eager PyTorch"
        return ""

    @property
    def settings(self) -> str:
        """Batch, threads and streams in words."""
        counts = {"thread": self.threads, "stream": self.streams} if self.device == "cpu" else {}
        words = [f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items()]
        return ", ".join([f"batch {self.batch_size}", *words])

    def __str__(self) -> str:
        return f"{self.artefact} on {self.backend} ({self.device}), {self.settings}"


def hashes_of(record: ArtefactRecord) -> dict[str, str]:
    """The SHA-256 of each file of an artefact, by name."""
    return {file.name: file.sha256 for file in record.files}
