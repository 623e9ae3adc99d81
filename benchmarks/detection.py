"""Does `vit-deploy bench` see a 2 % slow-down, and does it see one where there is none?

Two kinds of trials, each with processes of its own, all of one artefact (a ViT in ONNX Runtime with random
weights, exported here):

- *power*: two cases, one of which is slower by a busy-wait of 2 % of the median inside each inference (see
  ``_slowed_worker.py``; the product knows nothing of it), under the product's own settings, A/A included. It
  is detected when the interval of the ratio lies wholly above 1, and the whole run, start-up and all, took
  no longer than --seconds.
- *alarm*: the same with a wait of 0: A/A. It is a false alarm when the interval excludes 1. So that there can
  be many, each has only --alarm-seconds, and no A/A of its own.

The delay is 2 % of the median that a run of its own finds first. Shares are given with their 95 %
Clopper-Pearson intervals. The script exits with 5 where fewer than 90 % of the slow-downs are seen, or more
than 5 % of the alarms are false. Run it on a machine that does nothing else.

    python benchmarks/detection.py
    python benchmarks/detection.py --output benchmarks/results/detection.json

The trials may be parted over processes with a core each, and their documents put together:

    taskset -c 0 python benchmarks/detection.py --power-trials 0 --alarm-trials 150 --output 1.json &
    taskset -c 1 python benchmarks/detection.py --alarm-trials 50 --seed 1000 --output 2.json; wait
    python benchmarks/detection.py --merge 1.json 2.json --output benchmarks/results/detection.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from _slowed_worker import VARIABLE

from vit_deploy import registry
from vit_deploy.bench import BenchResult, Case, Settings, run_bench
from vit_deploy.bench.cases import cases_for
from vit_deploy.bench.grid import Grid
from vit_deploy.bench.process import CaseWorker
from vit_deploy.bundle import Bundle
from vit_deploy.deploy.export import export_model
from vit_deploy.environment import environment
from vit_deploy.facts import Device
from vit_deploy.parity.binomial import clopper_pearson
from vit_deploy.weights import load_model

HERE = Path(__file__).resolve().parent
SLOWED = "slowed"
POWER, ALARMS = 0.9, 0.05


@dataclass(frozen=True)
class Trial:
    """One run of two cases.

    Attributes:
        kind: ``power`` or ``alarm``.
        seed: of the order of turns.
        ratio: of the slowed case to the other, or of the second to the first.
        interval: its 95 % interval.
        seconds: the whole run, from the first process started to the last one ended.
        rounds: how many there were.
        p50_ms: the median of the case that was not slowed.
        sound: what the run's own A/A said; ``None`` where it had none.
        disturbed: what the run said of other processes.
        error: why there is no ratio; empty where there is one.
    """

    kind: str
    seed: int
    ratio: float | None
    interval: tuple[float, float] | None
    seconds: float
    rounds: int
    p50_ms: float | None
    sound: bool | None
    disturbed: tuple[str, ...]
    error: str

    @property
    def excludes_one(self) -> bool:
        """Whether it says that the two cases differ."""
        return self.interval is not None and not self.interval[0] <= 1 <= self.interval[1]


def make_case(arch: str, folder: Path) -> Case:
    """Export the architecture and plan the one case."""
    export_model(load_model(arch), folder, ["onnx"], verify=False)
    cases, _ = cases_for(Bundle.open(folder), registry.runtime("onnxruntime"), Device("cpu"), Grid())
    (case,) = cases
    return case


def starter(delay_ns: int) -> Callable[[Case], CaseWorker]:
    """Starts workers that may be slowed; those of cases with the remark are, by ``delay_ns``."""
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]

    def start(case: Case) -> CaseWorker:
        told = {"PYTHONPATH": os.pathsep.join(paths), VARIABLE: str(delay_ns if SLOWED in case.remarks else 0)}
        return CaseWorker(case, "_slowed_worker", variables=told)

    return start


def run_trial(kind: str, case: Case, settings: Settings, delay_ns: int) -> Trial:
    """Measure the case against itself, the second time slowed."""
    began = time.monotonic()
    slowed = replace(case, remarks=(SLOWED,))
    result = run_bench([case, slowed], settings, start_worker=starter(delay_ns))
    seconds = time.monotonic() - began
    if result.interrupted:
        raise KeyboardInterrupt
    return read_trial(kind, settings.seed, seconds, result)


def read_trial(kind: str, seed: int, seconds: float, result: BenchResult) -> Trial:
    """The figures of a run that matter here."""
    plain, slowed = result.rows
    return Trial(
        kind=kind,
        seed=seed,
        ratio=slowed.ratio,
        interval=slowed.ratio_interval,
        seconds=seconds,
        rounds=len(slowed.round_lengths),
        p50_ms=plain.p50_ms,
        sound=result.soundness["sound"] if result.soundness else None,
        disturbed=(*plain.disturbed, *slowed.disturbed),
        error=plain.error or slowed.error or "",
    )


def alarm_settings(case: Case, seconds: float) -> Settings:
    """Settings under which a whole run of two takes about ``seconds``: what starting leaves is cut in two."""
    probe = Settings(duration_s=1.0, soundness=False, precision_target=1e-9)
    began = time.monotonic()
    result = run_bench([case, case], probe, start_worker=starter(0))
    # Turns and what lies between them; the rest is starting, warming up and ending.
    measuring = result.machine["measuring_s"]
    starting = time.monotonic() - began - measuring
    share = sum(sum(row.round_elapsed_ns) for row in result.rows) / 1e9 / measuring
    return replace(Settings(soundness=False), duration_s=max(0.5, (seconds - starting) * share / 2))


def summary(trials: Sequence[Trial], limit_s: float) -> dict[str, Any]:
    """Shares with their intervals, and how long the runs took."""
    told: dict[str, Any] = {}
    for kind in ("power", "alarm"):
        mine = [trial for trial in trials if trial.kind == kind]
        if not mine:
            continue
        seen = [
            trial
            for trial in mine
            if trial.excludes_one
            and (kind == "alarm" or (trial.interval is not None and trial.interval[0] > 1))
            and (kind == "alarm" or trial.seconds <= limit_s)
        ]
        ratios = [trial.ratio for trial in mine if trial.ratio]
        widths = [
            (trial.interval[1] - trial.interval[0]) / 2 / trial.ratio
            for trial in mine
            if trial.interval and trial.ratio
        ]
        told[kind] = {
            "trials": len(mine),
            "seen": len(seen),
            "share": len(seen) / len(mine),
            "share_interval": clopper_pearson(len(seen), len(mine), 0.95),
            "median_ratio": statistics.median(ratios) if ratios else None,
            "median_half_width": statistics.median(widths) if widths else None,
            # More than the intervals promise would be what differs from process to process.
            "deviation": statistics.stdev(map(math.log, ratios)) if len(ratios) > 1 else None,
            "promised_deviation": math.hypot(*widths) / math.sqrt(len(widths)) / 1.96 if widths else None,
            "seconds": quartiles([trial.seconds for trial in mine]),
            "within_limit": sum(trial.seconds <= limit_s for trial in mine),
            "unsound": sum(trial.sound is False for trial in mine),
            "disturbed": sum(bool(trial.disturbed) for trial in mine),
            "failed": sum(bool(trial.error) for trial in mine),
        }
    return told


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """The shortest, the quartiles and the longest."""
    cuts = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return dict(
        zip(("lowest", "q1", "median", "q3", "highest"), [min(values), *cuts, max(values)], strict=True)
    )


def show(number: int, trial: Trial) -> None:
    """A line for a trial that is done."""
    low, high = trial.interval or (float("nan"), float("nan"))
    print(
        f"{trial.kind:6} {number:4}  ratio {trial.ratio or float('nan'):.4f} ({low:.4f} to {high:.4f})  "
        f"{'differs' if trial.excludes_one else 'equal  '}  {trial.rounds:4} rounds  {trial.seconds:5.1f} s  "
        f"{'; '.join([*trial.disturbed, trial.error]).strip('; ')}",
        flush=True,
    )


def run_all(given: argparse.Namespace, case: Case, trials: list[Trial]) -> dict[str, Any]:
    """All trials; what was done is in ``trials`` even when the user stops them.

    Returns:
        What was injected, and the settings.
    """
    calm = run_bench([case], replace(Settings(), soundness=False), start_worker=starter(0)).rows[0]
    if calm.p50_ms is None:
        raise SystemExit(f"the case cannot be measured: {calm.error}")
    delay_ns = round(given.slow_down * calm.p50_ms * 1e6)
    power, alarm = Settings(), alarm_settings(case, given.alarm_seconds)
    print(f"median {calm.p50_ms:.3f} ms; a delay of {delay_ns / 1e3:.1f} µs is injected", flush=True)
    told = {"calm_p50_ms": calm.p50_ms, "delay_ns": delay_ns, "power": asdict(power), "alarm": asdict(alarm)}
    plan = [("power", power, delay_ns)] * given.power_trials + [("alarm", alarm, 0)] * given.alarm_trials
    try:
        for number, (kind, settings, delay) in enumerate(plan):
            trials.append(run_trial(kind, case, replace(settings, seed=given.seed + number), delay))
            show(number, trials[-1])
    except KeyboardInterrupt:
        print("stopped; what was measured is told", file=sys.stderr)
    return told


def merged(paths: Sequence[Path], trials: list[Trial]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trials of several documents of one machine go into ``trials``; their settings, and where they ran."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    for document in documents:
        for told in document["trials"]:
            bounds = told["interval"]
            kept = {**told, "disturbed": tuple(told["disturbed"]), "interval": bounds and tuple(bounds)}
            trials.append(Trial(**kept))
    if any(document["environment"] != documents[0]["environment"] for document in documents):
        raise SystemExit("the documents are of different machines or versions")
    if len({(trial.kind, trial.seed) for trial in trials}) < len(trials):
        raise SystemExit("the documents have trials in common: give each part a --seed of its own")
    return {"parts": [document["settings"] for document in documents]}, documents[0]["environment"]


def verdict(told: dict[str, Any]) -> bool:
    """Whether what was shown is good enough."""
    power, alarm = told.get("power"), told.get("alarm")
    return (power is None or power["share"] >= POWER) and (alarm is None or alarm["share"] <= ALARMS)


def main() -> int:
    """Run the trials, tell the shares, write the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vit_tiny_patch16_224", help="a named architecture")
    parser.add_argument("--slow-down", type=float, default=0.02, help="the share that is injected")
    parser.add_argument("--power-trials", type=int, default=40)
    parser.add_argument("--alarm-trials", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0, help="the longest a power trial may take")
    parser.add_argument("--alarm-seconds", type=float, default=14.0, help="about how long an A/A trial takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="documents to put together instead")
    given = parser.parse_args()
    trials: list[Trial] = []
    if given.merge:
        told, where = merged(given.merge, trials)
    else:
        with tempfile.TemporaryDirectory() as folder:
            told = run_all(given, make_case(given.arch, Path(folder) / "bundle"), trials)
        where = environment()
    found = summary(trials, given.seconds)
    ok = verdict(found)
    print(json.dumps(found, indent=2))
    if given.output:
        document = {
            "schema": "vit-deploy/detection/1",
            "environment": where,
            "arch": given.arch,
            "slow_down": given.slow_down,
            "limits": {"power": POWER, "alarms": ALARMS, "seconds": given.seconds},
            "settings": told,
            **found,
            "ok": ok,
            "trials": [asdict(trial) for trial in trials],
        }
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return 0 if ok else 5


if __name__ == "__main__":
    sys.exit(main())
