"""What the library does with a specimen: one cell for each act, through its own interface.

A cell is what a user would see: the act passed, with its figure, or it was refused, with the message.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from vit_deploy.errors import BackendMissing, ParityFailed, VitDeployError
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.specimens.specimen import Specimen
    from vit_deploy.deploy.job import Outcome
    from vit_deploy.weights.imported import Model

Verdict = Literal["passed", "refused", "failed", "unavailable"]
"""``refused``: the library says why not; ``failed``: it promised and did not keep it; ``unavailable``:
this machine cannot measure it."""

BATCH_SIZES = (1, 2, 4)

ACTS: dict[str, str] = {
    "proved": "imported and proved",
    "onnx": "ONNX verified",
    "torchscript": "TorchScript verified",
    "tensorrt": "TensorRT-RTX built",
    "batch": "dynamic batch",
    "size": "dynamic size",
}
"""The columns of the table, and their titles."""


@dataclass(frozen=True)
class Cell:
    """What became of one act.

    Attributes:
        verdict: see :data:`Verdict`.
        figure: the worst relative error of a proof, or the worst ratio of a verification.
        reason: the message, where it did not pass.
        details: what else was measured.
    """

    verdict: Verdict
    figure: float | None = None
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def claim(self) -> tuple[str, str]:
        """What must be the same on every machine."""
        return self.verdict, self.reason

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", {})}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cell:
        """The inverse of :meth:`to_dict`."""
        return cls(**data)


def measure(specimen: Specimen, folder: Path) -> dict[str, Cell]:
    """Every cell of a specimen's row."""
    model, proved = prove(specimen, folder)
    if model is None:
        return {"proved": proved}
    return {"proved": proved, **export(model, folder / "out"), "size": export_any_size(model, folder / "any")}


def prove(specimen: Specimen, folder: Path) -> tuple[Model | None, Cell]:
    """Import a specimen and prove it; the model is ``None`` where the import was refused."""
    from vit_deploy.proof import prove_import
    from vit_deploy.weights import load_model
    from vit_deploy.weights.request import Request

    try:
        arguments = specimen.save(folder / "checkpoint")
        plain = specimen.save_plain(folder / "plain") if specimen.plain else arguments
        model = load_model(**arguments)
    except Exception as error:
        return None, refusal(error, folder)
    try:
        proof = prove_import(Request(**plain), model)
    except Exception as error:
        return model, refusal(error, folder)
    details = {"library": f"{proof.library} {proof.library_version}", "not_compared": list(proof.not_compared)}
    if proof.passed:
        return model, Cell("passed", proof.worst, details=details)
    return model, Cell("failed", proof.worst, proof.sentence, details)


def refusal(error: Exception, folder: Path) -> Cell:
    """The cell of an error; anything but the library's own is a failure."""
    if not isinstance(error, VitDeployError):
        return Cell("failed", reason=f"{type(error).__name__}: {error}".replace(str(folder), "…"))
    reason = re.sub(re.escape(str(folder)) + r"[-./\w]*", "…", error.in_a_line)
    if isinstance(error, BackendMissing):
        return Cell("unavailable", reason=reason)
    return Cell("failed" if isinstance(error, ParityFailed) else "refused", reason=reason)


def export(model: Model, folder: Path) -> dict[str, Cell]:
    """Every output in each format with a free batch, verified at several sizes of it."""
    from vit_deploy.deploy.export import export_model

    outcomes = _exported(
        folder,
        lambda: export_model(
            model,
            folder,
            ["onnx", "torchscript", "tensorrt"],
            outputs=model.config.output_names,
            batch=BatchRange(*BATCH_SIZES),
            options={"flavour": "rtx"},
        ),
    )
    if isinstance(outcomes, Cell):
        return dict.fromkeys(("onnx", "torchscript", "tensorrt", "batch"), outcomes)
    cells = {outcome.format: _cell(outcome, folder) for outcome in outcomes}
    return {**cells, "batch": _batch_cell(outcomes, cells)}


def _exported(folder: Path, act: Callable[[], list[Outcome]]) -> list[Outcome] | Cell:
    try:
        return act()
    except Exception as error:
        return refusal(error, folder)


def _cell(outcome: Outcome, folder: Path) -> Cell:
    if outcome.error is not None:
        return refusal(outcome.error, folder)
    verdict = outcome.verdict
    if verdict is None or outcome.record is None:
        return Cell("failed", reason="there is no verdict")
    # An engine is built without a GPU, and verified where there is one.
    if verdict.passed is None and outcome.format != "tensorrt":
        return Cell("unavailable", reason=verdict.reason)
    return Cell("passed", verdict.worst_ratio, details={"verified": bool(verdict.passed)})


def _batch_cell(outcomes: list[Outcome], cells: dict[str, Cell]) -> Cell:
    """Whether the formats that run here were right at every batch size that was asked for."""
    verified = [outcome for outcome in outcomes if outcome.format != "tensorrt"]
    for outcome in verified:
        if cells[outcome.format].verdict != "passed":
            return cells[outcome.format]
        sizes = sorted(_details(outcome).get("batch_sizes", []))
        if sizes != list(BATCH_SIZES):
            return Cell("failed", reason=f"{outcome.format} was verified at batch {sizes}")
    worst = max(cells[outcome.format].figure or 0.0 for outcome in verified)
    return Cell("passed", worst, details={"sizes": list(BATCH_SIZES)})


def export_any_size(model: Model, folder: Path) -> Cell:
    """Every output for free height and width, verified at the model's own size and at others."""
    from vit_deploy.deploy.export import export_model
    from vit_deploy.model.sizes import size_range

    formats = ["onnx", "torchscript"]
    outcomes = _exported(
        folder,
        lambda: export_model(
            model,
            folder,
            formats,
            outputs=model.config.output_names,
            batch=BatchRange(*BATCH_SIZES),
            image_sizes=size_range(model.config),
        ),
    )
    if isinstance(outcomes, Cell):
        return outcomes
    cells = [_cell(outcome, folder) for outcome in outcomes]
    refused = next((cell for cell in cells if cell.verdict != "passed"), None)
    if refused is not None:
        return refused
    sizes = [list(_details(outcome).get("image_sizes", {})) for outcome in outcomes]
    if len(sizes[0]) < 3 or any(other != sizes[0] for other in sizes):
        return Cell("failed", reason=f"{' and '.join(formats)} were verified at {sizes}")
    return Cell("passed", max(cell.figure or 0.0 for cell in cells), details={"sizes": sizes[0]})


def _details(outcome: Outcome) -> Mapping[str, Any]:
    return outcome.verdict.details if outcome.verdict else {}
