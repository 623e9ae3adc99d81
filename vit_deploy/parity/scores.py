"""Gathers the ratios of one artefact and turns them into a judgement and its figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.parity.criterion import near_ties, percentile, relative_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vit_deploy.parity.criterion import Floats
    from vit_deploy.parity.inputs import Sample
    from vit_deploy.parity.limits import Limits


@dataclass(frozen=True)
class Truth:
    """What an output is compared with, over all samples.

    Attributes:
        exact: eager in float64, ``(s, ...)``.
        yardsticks: ``(s,)``, or ``(s, n)`` for tokens.
    """

    exact: Floats
    yardsticks: Floats


@dataclass(frozen=True)
class _Ratios:
    """The ratios of one output in one run."""

    batch_size: int
    indices: Sequence[int]
    ratios: Floats

    def worst(self) -> tuple[float, int]:
        """The worst ratio, and the slot it stands in."""
        by_slot = self.ratios.reshape(len(self.indices), -1).max(axis=1)
        slot = int(by_slot.argmax())
        return float(by_slot[slot]), slot


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
    """Everything measured of one artefact."""

    def __init__(self, samples: Sequence[Sample], truths: Mapping[str, Truth], limits: Limits) -> None:
        self._samples = samples
        self._truths = truths
        self._limits = limits
        self._ratios: dict[str, list[_Ratios]] = {name: [] for name in truths}
        self._broken: WorstRun | None = None
        self._ties = self._near_ties()
        self._top1 = {"agreed": 0, "of": 0, "near_ties": 0, "near_ties_agreed": 0}

    @property
    def sample_count(self) -> int:
        """How many distinct inputs are judged."""
        return len(self._samples)

    def _near_ties(self) -> NDArray[np.bool_] | None:
        truth = self._truths.get("logits")
        if truth is None or truth.exact.shape[-1] < 2:
            return None
        return near_ties(truth.exact, truth.yardsticks)

    def add(self, batch_size: int, indices: Sequence[int], outputs: Mapping[str, NDArray[Any]]) -> None:
        """Score one run.

        Args:
            batch_size: its batch size.
            indices: which sample stood in each slot.
            outputs: finite outputs by name, each ``(batch_size, ...)``.
        """
        chosen = list(indices)
        for name, truth in self._truths.items():
            errors = relative_errors(outputs[name], truth.exact[chosen])
            self._ratios[name].append(_Ratios(batch_size, chosen, errors / truth.yardsticks[chosen]))
        if self._ties is not None:
            same = outputs["logits"].argmax(axis=-1) == self._truths["logits"].exact[chosen].argmax(axis=-1)
            clear = ~self._ties[chosen]
            self._top1["agreed"] += int((same & clear).sum())
            self._top1["of"] += int(clear.sum())
            self._top1["near_ties"] += int((~clear).sum())
            self._top1["near_ties_agreed"] += int((same & ~clear).sum())

    def _groups(self, name: str) -> dict[int, list[_Ratios]]:
        groups: dict[int, list[_Ratios]] = {}
        for entry in self._ratios[name]:
            groups.setdefault(entry.batch_size, []).append(entry)
        return groups

    def _figures(self, name: str) -> dict[int, tuple[float, float]]:
        """The worst ratio and the 95th percentile of an output at each batch size."""
        import numpy as np

        pooled = {
            size: np.concatenate([entry.ratios.reshape(-1) for entry in entries])
            for size, entries in self._groups(name).items()
        }
        return {size: (float(ratios.max()), percentile(ratios)) for size, ratios in pooled.items()}

    def worst_ratio(self) -> float | None:
        """The worst ratio of all outputs and batch sizes; ``None`` if nothing was measured."""
        return max((worst for name in self._truths for worst, _ in self._figures(name).values()), default=None)

    def p95_ratio(self) -> float | None:
        """The largest 95th percentile of an output at a batch size; ``None`` if nothing was measured."""
        return max((p95 for name in self._truths for _, p95 in self._figures(name).values()), default=None)

    def reason(self) -> str:
        """Why the criterion does not hold, or nothing where it does."""
        broken = []
        for name in self._truths:
            figures = self._figures(name)
            bad = sorted(size for size, figure in figures.items() if not self._holds(*figure))
            if bad:
                broken.append(self._explain(name, figures, bad))
        return "; ".join(broken)

    def _holds(self, worst: float, p95: float) -> bool:
        return within(worst, self._limits.worst) and within(p95, self._limits.p95)

    def _explain(self, name: str, figures: Mapping[int, tuple[float, float]], bad: Sequence[int]) -> str:
        worst = max(figure[0] for figure in figures.values())
        p95 = max(figure[1] for figure in figures.values())
        entry = max(self._ratios[name], key=lambda entry: entry.worst()[0])
        slot = entry.worst()[1]
        text = (
            f"{name}: {worst:,.4g} times eager's own error at the worst{_limited(self._limits.worst)}, "
            f"{p95:,.4g} times at the 95th percentile{_limited(self._limits.p95)}; "
            f"worst on {self._samples[entry.indices[slot]].name!r} in slot {slot} of batch {entry.batch_size}"
        )
        good = sorted(set(figures) - set(bad))
        if good:
            text += f"; batch {_listed(good)} holds and batch {_listed(bad)} does not"
        return text

    def broke(self, run: WorstRun) -> None:
        """One run gave nothing that can be scored, and so is the worst."""
        self._broken = run

    def worst_run(self) -> WorstRun | None:
        """The run that broke, or the one with the worst ratio; ``None`` if nothing was run."""
        entries = [(name, entry) for name in self._truths for entry in self._ratios[name]]
        if self._broken is not None or not entries:
            return self._broken
        name, entry = max(entries, key=lambda pair: pair[1].worst()[0])
        return WorstRun(name, entry.batch_size, tuple(entry.indices), entry.worst()[1])

    def evidence(self) -> dict[str, Any]:
        """What reports show and no manifest keeps."""
        run = self.worst_run()
        if run is None:
            return {}
        sample = self._samples[run.indices[run.slot]].name
        return {"worst_run": {**asdict(run), "indices": list(run.indices), "sample": sample}}

    def details(self) -> dict[str, Any]:
        """The figures by output and by input family, as plain data."""
        details: dict[str, Any] = {
            "limits": self._limits.in_force(),
            "outputs": {name: self._output_details(name) for name in self._truths if self._ratios[name]},
            "families": self._by_family(),
        }
        if self._ties is not None:
            details["top1"] = dict(self._top1)
        return details

    def _output_details(self, name: str) -> dict[str, Any]:
        figures = self._figures(name)
        return {
            "worst_ratio": max(figure[0] for figure in figures.values()),
            "p95_ratio": max(figure[1] for figure in figures.values()),
            "yardstick": float(self._truths[name].yardsticks.max()),
            "by_batch_size": {
                str(size): {"worst_ratio": worst, "p95_ratio": p95}
                for size, (worst, p95) in sorted(figures.items())
            },
        }

    def _by_family(self) -> dict[str, float]:
        """The worst ratio by family of inputs."""
        families: dict[str, float] = {}
        for entries in self._ratios.values():
            for entry in entries:
                for index, ratios in zip(entry.indices, entry.ratios, strict=True):
                    family = self._samples[index].family
                    families[family] = max(families.get(family, 0.0), float(ratios.max()))
        return families


def within(value: float, limit: float | None) -> bool:
    """Whether a figure holds a limit; one that is not in force always does, and NaN holds none."""
    return limit is None or value <= limit


def _limited(limit: float | None) -> str:
    return "" if limit is None else f" (limit {limit:g})"


def _listed(sizes: Sequence[int]) -> str:
    return " and ".join(map(str, sizes))
