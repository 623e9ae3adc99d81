"""Our side in low precision: a bundle of every artefact that the comparison of precisions measures.

It lies beside the fp32 bundle of the same weights and is made anew on demand alone, so that measuring finds
what was prepared. What was calibrated, was calibrated on the same pictures that the peers are given.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.peers.measure import Entry
from benchmarks.peers.places import REPOSITORY
from benchmarks.peers.recipe import TOLERANCES
from benchmarks.peers.worker import make_pixels
from vit_deploy import registry
from vit_deploy.bench.cases import cases_for, reference
from vit_deploy.bench.grid import Grid
from vit_deploy.bundle.reader import Bundle
from vit_deploy.errors import VitDeployError
from vit_deploy.facts import Device
from vit_deploy.protocols import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.peers.ours import OurModel
    from vit_deploy.bench.cases import Case
    from vit_deploy.protocols import Artefact

CALIBRATION_IMAGES = 32
"""Of everyone: no time depends on how many there are."""
EXPORTS: tuple[tuple[str, str], ...] = (
    ("fp32", "onnx"),
    ("int8", "onnx"),
    ("int8", "openvino"),
    ("bf16", "onnx"),
    ("bf16", "openvino"),
    ("bf16", "pt2"),
)
"""What is made, by precision and format, in this order: a format that is made from another finds it."""
_SOURCES = (
    "exporters",
    "vit_deploy/graph",
    "vit_deploy/quantisation",
    "vit_deploy/model",
    "vit_deploy/weights",
)
_STAMP = "made.json"


@dataclass(frozen=True)
class Row:
    """A row of ours: an artefact on a backend."""

    artefact: str
    backend: str
    title: str

    @property
    def tool(self) -> str:
        """What tells it from all others."""
        return f"{self.artefact}:{self.backend}"

    @property
    def precision(self) -> str:
        """What it is declared in."""
        return self.artefact.rpartition("-")[2]


ROWS = (
    Row("pytorch-fp32", "eager", "eager PyTorch fp32 (ours)"),
    Row("pytorch-bf16", "eager", "eager PyTorch bf16 (ours)"),
    Row("onnx-fp32", "onnxruntime", "**vit-deploy** ONNX fp32, ONNX Runtime"),
    Row("onnx-fp32", "openvino", "**vit-deploy** ONNX fp32, OpenVINO f32"),
    Row("onnx-int8", "onnxruntime", "**vit-deploy** ONNX int8, ONNX Runtime"),
    Row("onnx-int8", "openvino", "**vit-deploy** ONNX int8, OpenVINO"),
    Row("openvino-int8", "openvino", "**vit-deploy** IR int8, OpenVINO"),
    Row("onnx-bf16", "openvino", "**vit-deploy** ONNX bf16, OpenVINO"),
    Row("openvino-bf16", "openvino", "**vit-deploy** IR bf16, OpenVINO"),
    Row("pt2-bf16", "pt2", "**vit-deploy** AOTInductor bf16"),
)
"""What of ours is measured, the baseline first."""


@dataclass(frozen=True)
class OurLowered:
    """A model's artefacts in every precision.

    Attributes:
        base: the model, its weights and its reference output.
        bundle: the artefacts.
        seconds: what each export took, by artefact.
        failed: why there is none, by artefact, or none on a backend, by tool.
        differences: how far each row is from eager in fp32, by tool.
        current: whether it was made by the source as it is now.
    """

    base: OurModel
    bundle: Path
    seconds: dict[str, float]
    failed: dict[str, str]
    differences: dict[str, dict[str, float]]
    current: bool

    def entries(self, batch_size: int, threads: int) -> list[Entry]:
        """The rows at a batch size, the baseline first."""
        cases = {f"{case.artefact}:{case.backend}": case for case in self._cases(batch_size, threads)}
        return [self._entry(row, cases) for row in ROWS]

    def _entry(self, row: Row, cases: dict[str, Case]) -> Entry:
        failed = self.failed.get(row.artefact) or self.failed.get(row.tool, "")
        if not failed and row.tool not in cases:
            failed = f"{row.artefact} is not for {row.backend} at this batch size"
        case = None if failed else cases[row.tool]
        apart = self.differences.get(row.tool, {})
        return Entry(row.tool, row.title, row.precision, case, None, failed, apart)

    def _cases(self, batch_size: int, threads: int) -> list[Case]:
        bundle = Bundle.open(self.bundle)
        grid = Grid(batch_sizes=(batch_size,), threads=(threads,), precisions=("fp32", "bf16", "int8"))
        found: list[Case] = []
        for name in dict.fromkeys(row.backend for row in ROWS):
            found += cases_for(bundle, registry.runtime(name), Device(), grid)[0]
        # Ours are held to what the others are held to: the distance from eager, which was measured.
        return [replace(case, verified=True) for case in found]


def prepare_lowered(base: OurModel, largest_batch: int, threads: int, *, remake: bool = False) -> OurLowered:
    """The artefacts of a model, made if they are not there or are to be made anew.

    Raises:
        VitDeployError: when not even the fp32 artefact can be made.
    """
    folder = base.folder / "lowered"
    stamp = folder / _STAMP
    wanted = {
        "sha256": base.sha256,
        "largest_batch": largest_batch,
        "calibration_images": CALIBRATION_IMAGES,
        "exports": [list(entry) for entry in EXPORTS],
        "rows": [row.tool for row in ROWS],
    }
    held = json.loads(stamp.read_text(encoding="utf-8")) if stamp.is_file() else {}
    if remake or held.get("wanted") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        source = source_digest()
        held = {"wanted": wanted, "source": source, **_make(base, folder / "bundle", largest_batch, threads)}
        stamp.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    told = {name: held[name] for name in ("seconds", "failed", "differences")}
    return OurLowered(base, folder / "bundle", **told, current=held["source"] == source_digest())


def source_digest() -> str:
    """Of the code that makes artefacts."""
    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def write_calibration(base: OurModel) -> None:
    """The pictures that we calibrate on, preprocessed, where the peers find them."""
    import numpy as np

    from vit_deploy.quantisation.samples import choose_samples
    from vit_deploy.weights import load_model

    path = base.reference.with_name("calibration.npy")
    if path.is_file() and len(np.load(path, mmap_mode="r")) == CALIBRATION_IMAGES:
        return
    model = load_model(str(base.checkpoint))
    spec = model.config.io_spec((base.model.output,), None)
    samples = choose_samples(model, "", CALIBRATION_IMAGES)
    batches = [next(iter(batch.values())) for batch in samples.batches(model, spec, 8)]
    np.save(path, np.concatenate(batches))


def _make(base: OurModel, bundle: Path, largest_batch: int, threads: int) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    for precision, format in EXPORTS:
        began = time.monotonic()
        try:
            _export(base, bundle, precision, format, largest_batch)
        except Exception as error:  # whatever it was, it is a row that says so
            if precision == "fp32":
                raise
            failed[f"{format}-{precision}"] = f"{type(error).__name__}: {error}"[:500]
            continue
        seconds[f"{format}-{precision}"] = time.monotonic() - began
    differences, refused = _differences(base, bundle, failed, largest_batch, threads)
    return {"seconds": seconds, "failed": {**failed, **refused}, "differences": differences}


def _export(base: OurModel, bundle: Path, precision: Any, format: str, largest_batch: int) -> None:
    from vit_deploy.deploy.export import export_model
    from vit_deploy.spec import BatchRange
    from vit_deploy.weights import load_model

    calibrated = precision == "int8" and format == "onnx"
    outcomes = export_model(
        load_model(str(base.checkpoint)),
        bundle,
        [format],
        precision=precision,
        outputs=(base.model.output,),
        batch=BatchRange(1, largest_batch, largest_batch),
        options={"calibration_images": CALIBRATION_IMAGES} if calibrated else {},
        verify=False,
    )
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error


def _differences(
    base: OurModel, path: Path, failed: dict[str, str], batch_size: int, threads: int
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """How far each row is from eager in fp32, by tool; and why one may not be measured."""
    import numpy as np

    bundle, pixels = Bundle.open(path), make_pixels(batch_size)
    wanted = np.load(base.reference)[:batch_size]
    found: dict[str, dict[str, float]] = {}
    refused: dict[str, str] = {}
    for row in ROWS:
        if row.artefact in failed:
            continue
        try:
            output = _run(bundle, row, pixels, threads)
        except VitDeployError as error:
            refused[row.tool] = str(error)[:500]
            continue
        apart = output.astype(np.float64) - wanted
        relative = float(np.linalg.norm(apart) / np.linalg.norm(wanted))
        found[row.tool] = {"max_abs_diff": float(np.abs(apart).max()), "relative_error": relative}
        if not relative <= TOLERANCES[row.precision]:  # NaN is not
            refused[row.tool] = f"the output is {relative:.2g} of its norm away from eager's"
    return found, refused


def _run(bundle: Bundle, row: Row, pixels: Any, threads: int) -> Any:
    """The one output of a row."""
    if row.backend == "eager":
        precision: Any = row.precision
        artefact: Artefact = reference(bundle, len(pixels), precision=precision)
    else:
        artefact = bundle.artefact(row.artefact)
    options = SessionOptions(threads=threads)
    with registry.runtime(row.backend).open(artefact, Device(), options) as session:
        (output,) = session.run({artefact.spec.inputs[0].name: pixels}).values()
        return output


def stale(models: Sequence[OurLowered]) -> list[str]:
    """The models whose artefacts other source has made."""
    return [model.base.model.title for model in models if not model.current]
