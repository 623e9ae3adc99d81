"""The ratios of one artefact, run by run, and what its limits say of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.parity.criterion import percentile, relative_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from vit_deploy.parity.criterion import Floats
    from vit_deploy.parity.inputs import Sample
    from vit_deploy.parity.limits import Limits
    from vit_deploy.parity.plan import Run
    from vit_deploy.parity.truth import Truth

BINS_PER_DECADE = 4
LEAST_RATIO = 1e-6
"""Where a histogram begins at the latest: what is bit-equal has a ratio of 0, and no logarithm."""


@dataclass(frozen=True)
class Scored:
    """The ratios of one output in one run: ``(batch_size, ...)``."""

    run: Run
    ratios: Floats

    def by_slot(self) -> Floats:
        """The worst ratio in each slot."""
        worst: Floats = self.ratios.reshape(self.run.batch_size, -1).max(axis=1)
        return worst


@dataclass(frozen=True)
class Worst:
    """The worst ratio of something, and where it stands."""

    ratio: float
    output: str
    run: Run
    slot: int


class Ratios:
    """Every ratio of one artefact.

    Args:
        samples: what is judged.
        truths: by output.
        limits: of the criterion.
        yardstick: what the yardstick is, in words.
    """

    def __init__(
        self, samples: Sequence[Sample], truths: Mapping[str, Truth], limits: Limits, yardstick: str
    ) -> None:
        self._yardstick = yardstick
        self._samples = samples
        self._truths = truths
        self._limits = limits
        self._scored: dict[str, list[Scored]] = {name: [] for name in truths}

    def add(self, run: Run, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Note one run; the outputs are finite, each ``(batch_size, ...)``."""
        chosen = list(run.indices)
        for name, truth in self._truths.items():
            errors = relative_errors(outputs[name], truth.exact[chosen])
            self._scored[name].append(Scored(run, errors / truth.yardsticks[chosen]))

    def _slots(self, names: Sequence[str]) -> Iterator[Worst]:
        for name in names:
            for entry in self._scored[name]:
                for slot, ratio in enumerate(entry.by_slot()):
                    yield Worst(float(ratio), name, entry.run, slot)

    def worst(self, name: str = "") -> Worst | None:
        """The worst ratio of an output, or of all; ``None`` if nothing was measured."""
        names = [name] if name else list(self._truths)
        return max(self._slots(names), key=lambda found: found.ratio, default=None)

    def by_sample(self) -> dict[int, Worst]:
        """The worst ratio of each sample that was judged."""
        worst: dict[int, Worst] = {}
        for found in self._slots(list(self._truths)):
            index = found.run.indices[found.slot]
            if index not in worst or found.ratio > worst[index].ratio:
                worst[index] = found
        return worst

    def p95(self, name: str = "") -> float | None:
        """The 95th percentile over all runs of an output; the largest of any output where none is named."""
        names = [name] if name else list(self._truths)
        measured = [other for other in names if self._scored[other]]
        return max((percentile(self._pool(other)) for other in measured), default=None)

    def _pool(self, name: str, batch_size: int = 0) -> Floats:
        """The ratios of an output, at one batch size or at all; runs done again are left out."""
        import numpy as np

        entries = [entry for entry in self._scored[name] if batch_size in (0, entry.run.batch_size)]
        once = [entry for entry in entries if not entry.run.again]
        return np.concatenate([entry.ratios.reshape(-1) for entry in once or entries])

    def _figures(self, name: str) -> dict[int, tuple[float, float]]:
        """The worst ratio and the 95th percentile of an output at each batch size."""
        sizes = sorted({entry.run.batch_size for entry in self._scored[name]})
        figures = {}
        for size in sizes:
            worst = max(entry.ratios.max() for entry in self._scored[name] if entry.run.batch_size == size)
            figures[size] = float(worst), percentile(self._pool(name, size))
        return figures

    def broken(self) -> tuple[str, ...]:
        """What breaks a limit, a sentence for each output."""
        return tuple(
            self._explain(name) for name in self._truths if self._scored[name] and not self._holds(name)
        )

    def _holds(self, name: str) -> bool:
        worst, p95 = self.worst(name), self.p95(name)
        return (
            worst is not None
            and p95 is not None
            and within(worst.ratio, self._limits.worst)
            and within(p95, self._limits.p95)
        )

    def _explain(self, name: str) -> str:
        found, p95 = self.worst(name), self.p95(name)
        if found is None or p95 is None:
            raise ValueError(f"nothing was measured of {name}")
        sample = self._samples[found.run.indices[found.slot]]
        text = (
            f"{name}: {found.ratio:,.4g} times {self._yardstick} at the worst{_limited(self._limits.worst)}, "
            f"{p95:,.4g} times at the 95th percentile{_limited(self._limits.p95)}; "
            f"worst on {sample.name!r} in slot {found.slot} of batch {found.run.batch_size}"
        )
        held = {
            size: within(worst, self._limits.worst) and within(at_95, self._limits.p95)
            for size, (worst, at_95) in self._figures(name).items()
        }
        good, bad = ([size for size, holds in held.items() if holds is wanted] for wanted in (True, False))
        if good and bad:
            text += f"; batch {_listed(good)} holds and batch {_listed(bad)} does not"
        return text

    def details(self) -> dict[str, Any]:
        """The figures by output."""
        return {name: self._output_details(name) for name in self._truths if self._scored[name]}

    def _output_details(self, name: str) -> dict[str, Any]:
        figures = self._figures(name)
        return {
            "worst_ratio": max(figure[0] for figure in figures.values()),
            "p95_ratio": self.p95(name),
            "yardstick": float(self._truths[name].yardsticks.max()),
            "by_batch_size": {
                str(size): {"worst_ratio": worst, "p95_ratio": p95} for size, (worst, p95) in figures.items()
            },
        }

    def by_family(self) -> dict[str, float]:
        """The worst ratio by family of inputs."""
        families: dict[str, float] = {}
        for index, found in sorted(self.by_sample().items()):
            family = self._samples[index].family
            families[family] = max(families.get(family, 0.0), found.ratio)
        return families

    def histograms(self) -> dict[str, dict[str, list[float]]]:
        """How many ratios of each output lie between powers of ten: edges are their exponents."""
        return {name: _histogram(self._pool(name)) for name in self._truths if self._scored[name]}


def _histogram(ratios: Floats) -> dict[str, list[float]]:
    import numpy as np

    exponents = np.log10(np.maximum(ratios, LEAST_RATIO)) * BINS_PER_DECADE
    low = int(np.floor(exponents.min()))
    high = max(low + 1, int(np.floor(exponents.max())) + 1)
    counts, _ = np.histogram(exponents, bins=np.arange(low, high + 1))
    return {
        "edges": [step / BINS_PER_DECADE for step in range(low, high + 1)],
        "counts": [int(count) for count in counts],
    }


def within(value: float, limit: float | None) -> bool:
    """Whether a figure holds a limit; one that is not in force always does, and NaN holds none."""
    return limit is None or value <= limit


def _limited(limit: float | None) -> str:
    return "" if limit is None else f" (limit {limit:g})"


def _listed(sizes: Sequence[int]) -> str:
    return " and ".join(map(str, sizes))
