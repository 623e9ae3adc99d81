"""The whole road on the built-in digits model: export, prove, measure, predict. Offline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy import registry
from vit_deploy.deploy.choose import REFERENCE, choose
from vit_deploy.deploy.export import export_model
from vit_deploy.deploy.predict import classify
from vit_deploy.errors import BackendMissing
from vit_deploy.facts import Device
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.bench import Row
    from vit_deploy.bundle import Bundle
    from vit_deploy.deploy.job import Outcome
    from vit_deploy.facts import Verdict
    from vit_deploy.protocols import Progress

FORMATS = ("onnx", "torchscript", "tensorrt")
"""What the demo shows; a format that this machine cannot make is told with its reason."""


@dataclass(frozen=True)
class DemoRow:
    """One line of the demo's table.

    Attributes:
        name: the artefact.
        verdict: its parity verdict; ``None`` for eager PyTorch, which is the reference.
        nbytes: bytes of its files; ``None`` if it was not made.
        p50_ms: median latency of one image, where this machine can run it.
        right: sample images classified right, and how many there are; ``None`` where it cannot run.
        note: what is to be said, such as why it cannot run.
    """

    name: str
    verdict: Verdict | None = None
    nbytes: int | None = None
    p50_ms: float | None = None
    right: tuple[int, int] | None = None
    note: str = ""


def run_demo(output: Path, *, seconds: float = 2.0, progress: Progress | None = None) -> list[DemoRow]:
    """Export the digits model to every format, and show what each artefact does.

    Args:
        output: the bundle's directory.
        seconds: time for the samples of each artefact's latency.
        progress: told how far it is.

    Returns:
        Eager PyTorch first, then a row for each format.

    Raises:
        ParityFailed: if an artefact is not equal to eager PyTorch.
    """
    from vit_deploy.assets import digits_directory
    from vit_deploy.bundle import Bundle
    from vit_deploy.weights import load_model

    progress = progress or Silent()
    outcomes = export_model(load_model(str(digits_directory())), output, FORMATS, progress=progress)
    for outcome in outcomes:
        if outcome.error and not isinstance(outcome.error, BackendMissing):
            raise outcome.error
    bundle = Bundle.open(output)
    latencies = _latencies(bundle, seconds, progress)
    progress.phase("Classifying the sample images")
    weights = bundle.manifest.model.weights
    reference = DemoRow(REFERENCE, nbytes=weights.bytes, p50_ms=latencies.get(REFERENCE))
    rows = [_with_predictions(reference, bundle)]
    for outcome in outcomes:
        rows.append(_with_predictions(_row(outcome, latencies), bundle))
    return rows


def _row(outcome: Outcome, latencies: dict[str, float]) -> DemoRow:
    if outcome.record is None:
        return DemoRow(outcome.name, note=outcome.error.in_a_line if outcome.error else "")
    return DemoRow(
        outcome.name,
        outcome.verdict,
        outcome.record.nbytes,
        latencies.get(outcome.name),
        note=outcome.verdict.reason if outcome.verdict else "",
    )


def _with_predictions(row: DemoRow, bundle: Bundle) -> DemoRow:
    """The row with how many sample images its artefact gets right, where it can run here."""
    from dataclasses import replace

    from vit_deploy.assets import sample_images

    if row.nbytes is None:
        return row
    try:
        choice = choose(bundle, artefact=row.name)
    except BackendMissing:
        return row
    images = sample_images()
    predictions = list(classify(bundle, images, choice, top_k=1))
    right = sum(
        bool(entry.top) and entry.top[0].label == image.name.partition("_")[0]
        for entry, image in zip(predictions, images, strict=True)
    )
    return replace(row, right=(right, len(images)))


def _latencies(bundle: Bundle, seconds: float, progress: Progress) -> dict[str, float]:
    """Median latency in ms of one image by artefact, for what this machine can run."""
    from vit_deploy.bench import Settings, run_bench
    from vit_deploy.bench.grid import Grid
    from vit_deploy.bench.plan import choose_backends, plan_cases

    runnable = [name for name in registry.backends() if registry.runtime(name).available(Device("cpu")).ok]
    chosen, _ = choose_backends(runnable, Device("cpu"))
    held = {record.format for record in bundle.records.values()} | {"pytorch"}
    fitting = [entry for entry in chosen if entry.runtime.formats & held]
    cases, _ = plan_cases(bundle, fitting, Grid())
    settings = Settings(duration_s=seconds, soundness=False)
    rows: tuple[Row, ...] = run_bench(cases, settings, progress=progress).rows
    return {row.artefact: row.p50_ms for row in rows if row.p50_ms is not None}
