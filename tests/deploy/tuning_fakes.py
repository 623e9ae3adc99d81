"""A machine whose times are known exactly: what `run_bench` would give there, without a worker."""

from __future__ import annotations

import runpy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from vit_deploy.bench.result import BenchResult, Row
from vit_deploy.bench.statistics import median, tail_quantile

BUNDLES = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "fakes" / "bundles.py"))
MS = 1_000_000


@dataclass
class FakeMachine:
    """Gives rows as it is told: ``times`` in ms by artefact, or a function of the case.

    Attributes:
        times: the time of each step; a list is repeated, one for each round.
        memory: peak bytes by artefact; 100 MB where nothing is said.
        errors: why an artefact fails.
        samples: of one round; there are twelve.
        outlier_ms: the last sample of each round by artefact, if it is another.
        disturbed: what disturbed an artefact.
        unsound: why no run of it can be believed.
        seen: the cases of each run.
        settings: those of each run.
        interrupt_after: the run in which the user stops it.
    """

    times: dict = field(default_factory=dict)
    memory: dict = field(default_factory=dict)
    errors: dict = field(default_factory=dict)
    samples: int = 5
    outlier_ms: dict = field(default_factory=dict)
    unsound: str = ""
    disturbed: dict = field(default_factory=dict)
    seen: list = field(default_factory=list)
    settings: list = field(default_factory=list)
    interrupt_after: int = 10**9

    def __call__(self, cases, settings, *, progress=None):
        self.seen.append([case.key for case in cases])
        self.settings.append(settings)
        rows = tuple(self.row(case) for case in cases)
        told = {"sound": not self.unsound, "reason": self.unsound} if settings.soundness else None
        return BenchResult(rows, (), {}, soundness=told, interrupted=len(self.seen) >= self.interrupt_after)

    def row(self, case):
        told = self.times.get(case.artefact, 1.0)
        told = told(case) if callable(told) else told
        by_round = told if isinstance(told, list) else [told]
        rounds = [[int(by_round[n % len(by_round)] * MS)] * self.samples for n in range(12)]
        if case.artefact in self.outlier_ms:
            for entry in rounds:
                entry[-1] = int(self.outlier_ms[case.artefact] * MS)
        row = row_of(case, rounds, self.memory.get(case.artefact, 10**8), self.errors.get(case.artefact))
        return replace(row, disturbed=self.disturbed.get(case.artefact, ()))


def row_of(case, rounds, peak=10**8, error=None):
    """A row of a case with these nanoseconds, round by round."""
    values = dict.fromkeys((entry.name for entry in fields(Row)), None)
    values |= {name: getattr(case, name) for name in values if hasattr(case, name)}
    values |= {"ok": not error, "error": error, "exit_code": 1 if error else 0, "disturbed": (), "notes": ()}
    values |= {"round_lengths": (), "round_elapsed_ns": (), "launch_lengths": (), "samples_ns": ()}
    if not error:
        samples = [sample for entry in rounds for sample in entry]
        # Streams work side by side: a round lasts its share of the samples' time.
        elapsed = [sum(entry) // case.streams for entry in rounds]
        tails = {name: tail_quantile(samples, q) for name, q in (("p90", 0.9), ("p99", 0.99))}
        values |= {f"{name}_ms": value and value / MS for name, value in tails.items()}
        values |= {
            "p50_ms": median(samples) / MS,
            "images_per_s": case.batch_size * len(samples) * 1e9 / sum(elapsed),
            "peak_rss_bytes": peak,
            "round_lengths": tuple(map(len, rounds)),
            "round_elapsed_ns": tuple(elapsed),
            "launch_lengths": (len(rounds),),
            "samples_ns": tuple(samples),
            "facts": {"version": "1.0"},
        }
    return Row(**values)
