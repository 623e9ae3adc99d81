"""What a peer's recipe is: the interface of ``tools/<name>/recipe.py``, which adds a peer.

A recipe is imported in our environment, for its words, and in the peer's, for its acts; what only the
peer's environment has is imported inside its functions. It defines::

    PEER: Peer                                       what it is called, what it does by default
    def prepare(job: Job) -> None                    make the artefact in ``job.folder``
    def open_model(job: Job, variant: str, pixels, threads: int) -> Opened
"""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.peers.models import PeerModel
from benchmarks.peers.places import TOOLS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    Pixels = np.ndarray[Any, np.dtype[np.float32]]

TOLERANCES = {
    "fp32": 1e-4,
    "fp32 on fp16 weights": 2e-2,
    "bf16": 0.15,
    "int8": 0.2,
    "int8 with bf16": 0.2,
}
"""The largest relative error (of the Euclidean norm) from eager's output that a time may count with.

No verdict on quality, which is what ``vit-deploy verify`` is for: a guard against timing another model. The
weights are random, so that bf16 and int8 are farther off than they are on trained ones.
"""

FORMATS: tuple[str, ...] = ("formats",)
PRECISION: tuple[str, ...] = ("precision",)
"""The comparisons: everyone's default in fp32, and what low precision gains."""


ELSEWHERE = {"TensorRT and ModelOpt": "they need an NVIDIA GPU, and this comparison runs on the CPU"}
"""Peers that have no recipe here, and why."""


@dataclass(frozen=True)
class Variant:
    """One row of a peer: the same artefact with other settings.

    Attributes:
        name: as a case's artefact.
        title: as the table shows it.
        arithmetic: the key of :data:`TOLERANCES`; ``None`` where it is whatever the tool chooses,
            which is read back then.
        comparisons: in which it is measured.
    """

    name: str
    title: str
    arithmetic: str | None = "fp32"
    comparisons: tuple[str, ...] = FORMATS


@dataclass(frozen=True)
class Peer:
    """What a peer is.

    Attributes:
        title: its name.
        command: its default recipe, in a line.
        shows: the packages whose versions the table shows.
        variants: its rows.
        compiles_each_batch: whether opening compiles for one batch size, so that each is done beforehand.
        unavailable: why it cannot run on this machine; empty where it can.
    """

    title: str
    command: str
    shows: tuple[str, ...]
    variants: tuple[Variant, ...]
    compiles_each_batch: bool = False
    unavailable: Callable[[], str] = lambda: ""

    def rows(self, comparison: str) -> tuple[Variant, ...]:
        """The variants that are measured in a comparison."""
        return tuple(variant for variant in self.variants if comparison in variant.comparisons)


@dataclass(frozen=True)
class Job:
    """One peer on one model, where its files lie.

    Attributes:
        peer: the name of the recipe's folder.
        model: the model.
        checkpoint: a folder in timm's layout: ``config.json`` and ``model.safetensors``.
        reference: eager's output on the pixels, float32 of shape ``(b, d)``, as ``.npy``.
        folder: what is prepared goes here.
        largest_batch: the largest batch size that will be asked for.
    """

    peer: str
    model: PeerModel
    checkpoint: Path
    reference: Path
    folder: Path
    largest_batch: int

    @property
    def calibration(self) -> Path:
        """The pictures that everyone calibrates on, preprocessed: float32 ``(n, 3, h, w)``, as ``.npy``."""
        return self.reference.with_name("calibration.npy")

    def write(self, path: Path) -> None:
        """Write it as a job file."""
        told = {**asdict(self), "model": self.model.to_dict()}
        path.write_text(json.dumps(told, default=str, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        """The inverse of :meth:`write`."""
        told = json.loads(path.read_text(encoding="utf-8"))
        folders = {name: Path(told[name]) for name in ("checkpoint", "reference", "folder")}
        return cls(**{**told, **folders, "model": PeerModel(**told["model"])})

    def fresh(self, name: str) -> Path:
        """An empty folder of that name in the job's own."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


@dataclass
class Opened:
    """A peer's model, opened on its inputs.

    Attributes:
        step: starts one inference on the staged inputs, and waits for it in ``synchronize``.
        output: the output of the staged inputs, float32 of shape ``(b, d)``, in eager's sense.
        version: of what runs it.
        threads: read back.
        arithmetic: read back: a key of :data:`TOLERANCES`.
        details: anything else that was read back.
    """

    step: Any
    output: Callable[[], Pixels]
    version: str
    threads: int
    arithmetic: str = "fp32"
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """What the arithmetic is in, in our words."""
        return self.arithmetic.partition(" ")[0]


class PreparationFailed(Exception):
    """A peer's environment or artefact could not be made, or what was made not be shown."""


class Recipe(Protocol):
    """The module ``tools/<name>/recipe.py``."""

    PEER: Peer

    def prepare(self, job: Job) -> None:
        """Make the artefact in the job's folder."""

    def open_model(self, job: Job, variant: str, pixels: Pixels, threads: int) -> Opened:
        """Open what was prepared, its inputs staged."""


def names(comparison: str = "") -> list[str]:
    """The peers there are, one folder each; those of a comparison alone where one is named."""
    found = sorted(path.parent.name for path in TOOLS.glob("*/recipe.py"))
    return [name for name in found if not comparison or load(name).PEER.rows(comparison)]


def load(name: str) -> Recipe:
    """A peer's recipe."""
    return importlib.import_module(f"benchmarks.peers.tools.{name}.recipe")


def requirements(name: str) -> Path:
    """A peer's list of pins."""
    return TOOLS / name / "requirements.txt"


def main() -> None:
    """``python -m benchmarks.peers.recipe JOB``: prepare a job, in the peer's environment."""
    job = Job.read(Path(sys.argv[1]))
    try:
        load(job.peer).prepare(job)
    except subprocess.CalledProcessError as error:
        # The tool's own words stand above; ours would hide them from who reads the last lines.
        sys.exit(f"{job.peer}: the tool ended with exit code {error.returncode}")


if __name__ == "__main__":
    main()
