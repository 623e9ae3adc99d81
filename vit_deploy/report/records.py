"""The parts of the parity report that describe what was measured. They may hold more than is named here."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Open(BaseModel):
    """What was measured: more may be said than is named here."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Agreement(_Open):
    """On how many samples a decision of the artefact is eager's; near-ties are counted apart."""

    agreed: int = 0
    of: int = 0
    near_ties: int = 0
    near_ties_agreed: int = 0
    lower_bound: float | None = Field(None, description="Clopper–Pearson lower bound of the true agreement.")
    upper_bound: float | None = None
    samples_needed: int | None = Field(None, description="How many samples would show what is required.")
    confidence: float | None = None


class Divergence(_Open):
    """The symmetric Kullback–Leibler divergence of the class probabilities, in nats."""

    mean: float | None = None
    max: float | None = None


class Embedding(_Open):
    """How alike the embeddings are, and whether they find the same neighbours."""

    cosine_min: float | None = None
    cosine_mean: float | None = None
    recall_at_10: float | None = None
    of: int | None = None


class Decisions(_Open):
    """What a user of the outputs would notice."""

    top1: Agreement | None = None
    top5: Agreement | None = None
    kl: Divergence | None = None
    embeddings: dict[str, Embedding] = {}


class Steadiness(_Open):
    """How far outputs move where they should not, in yardsticks: 0 is bit-equal, null not measured."""

    run_to_run: float | None = None
    batch_position: float | None = None
    batch_size: float | None = None


class WorstRun(_Open):
    """The run that held the worst ratio."""

    output: str = ""
    batch_size: int | None = None
    indices: list[int] = []
    slot: int | None = None
    sample: str = ""


class Choice(_Open):
    """The first class of a sample by eager PyTorch and by the artefact: its class, its probability."""

    eager: list[Any] = []
    artefact: list[Any] = []


class SampleEvidence(_Open):
    """One sample at its worst."""

    name: str
    family: str = ""
    index: int | None = Field(None, description="Its place among the report's samples.")
    worst_ratio: float | None = None
    output: str = ""
    batch_size: int | None = None
    slot: int | None = None
    top1: Choice | None = None


class Histogram(_Open):
    """How many ratios lie between one edge and the next; edges are powers of ten."""

    edges: list[float | None] = []
    counts: list[int] = []


class Evidence(_Open):
    """What the verdict rests on."""

    worst_run: WorstRun | None = None
    samples: list[SampleEvidence] = []
    histograms: dict[str, Histogram] = {}


class Stage(_Open):
    """One stage between eager PyTorch and the artefact, on the inputs that the artefact fails on."""

    kind: str
    name: str
    worst_ratio: float | None = None
    holds: bool | None = None
    note: str = ""


class Tap(_Open):
    """How far the artefact is from the truth at one tap; null is not finite."""

    tap: str
    error: float | None = None
    eager_error: float | None = None
    ratio: float | None = None
    holds: bool = True


class CulpritRecord(_Open):
    """What makes the artefact fail: the stage, the place, and how both were found."""

    stage: str | None = None
    where: str = ""
    sentence: str = ""
    stages: list[Stage] = []
    bisection: list[Tap] = []
    runs: int = 0
    notes: list[str] = []


class DriftRecord(_Open):
    """The artefact's error from tap to tap, in the order of computation."""

    artefact: str = ""
    readings: list[Tap] = []
    disturbed: str = ""
    missing: str = ""


class Finding(_Open):
    """One thing in which two bundles differ, or do not."""

    name: str = ""
    severity: str = Field("informs", description="`fails` or `informs`.")
    text: str
    artefact: str = ""


class AgainstRecord(_Open):
    """The bundle beside the one that was accepted last."""

    passed: bool | None
    findings: list[Finding] = []
