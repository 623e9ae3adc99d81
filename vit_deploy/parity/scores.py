"""Gathers what is measured of one artefact and turns it into a judgement and its figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.parity.decisions import Decisions, Findings
from vit_deploy.parity.embeddings import Embeddings
from vit_deploy.parity.plan import spread_samples
from vit_deploy.parity.ratios import Ratios
from vit_deploy.parity.steadiness import Steadiness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vit_deploy.parity.inputs import Sample
    from vit_deploy.parity.limits import Limits
    from vit_deploy.parity.plan import Run
    from vit_deploy.parity.truth import Truth


@dataclass(frozen=True)
class WorstRun:
    """Where the worst of an artefact shows.

    Attributes:
        output: its name; empty where a run gave nothing at all.
        batch_size: of the run.
        indices: which sample stood in each slot.
        slot: of the batch.
    """

    output: str
    batch_size: int
    indices: tuple[int, ...]
    slot: int


class Scores:
    """Everything measured of one artefact at one image size.

    Args:
        samples: what it is judged on.
        truths: by output.
        limits: of the criterion.
        classes: the output that scores classes; empty where none does.
        yardstick: what the yardstick is, in words.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        truths: Mapping[str, Truth],
        limits: Limits,
        classes: str = "",
        yardstick: str = "eager's own error",
    ) -> None:
        self._samples = samples
        self._limits = limits
        self._ratios = Ratios(samples, truths, limits, yardstick)
        self._classes = classes
        scored = classes in truths and truths[classes].exact.ndim == 2 and truths[classes].exact.shape[-1] > 1
        names = [sample.name for sample in samples]
        self._decisions = Decisions(truths[classes], names) if scored else None
        self._embeddings = [
            Embeddings(name, truth.exact)
            for name, truth in truths.items()
            if name != classes and truth.exact.ndim > 1
        ]
        self._steadiness = Steadiness(truths, spread_samples(samples))
        self._broken: WorstRun | None = None
        self._ran = False

    @property
    def sample_count(self) -> int:
        """How many distinct inputs are judged."""
        return len(self._samples)

    def add(self, run: Run, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Score one run.

        Args:
            run: which sample stood in each slot.
            outputs: finite outputs by name, each ``(batch_size, ...)``.
        """
        self._ran = True
        self._ratios.add(run, outputs)
        self._steadiness.add(run, outputs)
        if self._decisions is not None:
            self._decisions.add(run.indices, outputs[self._classes])
        for entry in self._embeddings:
            entry.add(run.indices, outputs[entry.name])

    def broke(self, output: str, run: Run, slot: int) -> None:
        """One run gave nothing that can be scored, and so is the worst."""
        self._broken = WorstRun(output, run.batch_size, run.indices, slot)

    def worst_ratio(self) -> float | None:
        """The worst ratio of all outputs and batch sizes; ``None`` if nothing was measured."""
        found = self._ratios.worst()
        return None if found is None else found.ratio

    def p95_ratio(self) -> float | None:
        """The largest 95th percentile of an output; ``None`` if nothing was measured."""
        return self._ratios.p95()

    def findings(self) -> Findings:
        """What breaks the criterion, and what too few samples leave open."""
        limits = self._limits
        found = Findings(self._ratios.broken(), gated=limits.worst is not None or limits.p95 is not None)
        if self._decisions is not None:
            found += self._decisions.findings(limits)
        for entry in self._embeddings:
            found += entry.findings(limits)
        if not found.gated:
            found += Findings(open=("no limit is in force for any of its outputs, so nothing was judged",))
        return found

    def worst_run(self) -> WorstRun | None:
        """The run that broke, or the one with the worst ratio; ``None`` if nothing was run."""
        found = self._ratios.worst()
        if self._broken is not None or found is None:
            return self._broken
        return WorstRun(found.output, found.run.batch_size, found.run.indices, found.slot)

    def evidence(self) -> dict[str, Any]:
        """What reports show and no manifest keeps."""
        evidence: dict[str, Any] = {}
        run = self.worst_run()
        if run is not None:
            sample = self._samples[run.indices[run.slot]].name
            evidence["worst_run"] = {**asdict(run), "indices": list(run.indices), "sample": sample}
        if self._ran:
            evidence["samples"] = self._by_sample()
            evidence["histograms"] = self._ratios.histograms()
        return evidence

    def _by_sample(self) -> list[dict[str, Any]]:
        return [
            {
                "index": index,
                "name": self._samples[index].name,
                "family": self._samples[index].family,
                "worst_ratio": found.ratio,
                "output": found.output,
                "batch_size": found.run.batch_size,
                "slot": found.slot,
                "top1": self._decisions.of_sample(index) if self._decisions is not None else None,
                "near_tie": self._decisions is not None and self._decisions.near_tie(index),
            }
            for index, found in sorted(self._ratios.by_sample().items())
        ]

    def details(self) -> dict[str, Any]:
        """What a manifest records, as plain data."""
        details: dict[str, Any] = {
            "limits": self._limits.in_force(),
            "outputs": self._ratios.details(),
            "families": self._ratios.by_family(),
        }
        if not self._ran:
            return details
        decisions = self._decisions.details(self._limits) if self._decisions is not None else {}
        if self._embeddings:
            decisions["embeddings"] = {entry.name: entry.details() for entry in self._embeddings}
        details |= {"decisions": decisions, "steadiness": self._steadiness.effects}
        if self._decisions is not None:
            details["top1"] = self._decisions.top1()
        return details
