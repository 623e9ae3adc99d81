"""One artefact on its way into a bundle: exported, judged, held to what was required, accepted or not."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.deploy.verify import Judged, Verification, judged_as
from vit_deploy.errors import BackendMissing, ExportFailed, ParityFailed, VitDeployError
from vit_deploy.facts import Verdict
from vit_deploy.spec import artefact_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.bundle import BundleEditor
    from vit_deploy.bundle.manifest import ArtefactRecord
    from vit_deploy.parity import ParityCheck
    from vit_deploy.parity.requirements import Requirement
    from vit_deploy.protocols import Artefact, Exporter, Progress
    from vit_deploy.spec import Contract, IOSpec, Precision

UNVERIFIED = Verdict(passed=None, reason="verification was switched off")


@dataclass(frozen=True)
class Outcome:
    """What became of one artefact.

    Attributes:
        name: as :func:`vit_deploy.spec.artefact_name` makes it.
        format: the exporter's name.
        precision: the declared precision.
        contract: what the artefact takes.
        record: the artefact as it stands in the bundle; ``None`` if it was not accepted.
        verdict: what the parity check found; ``None`` if there was nothing to check.
        error: why it was not accepted.
        export_s: seconds the export took.
        verify_s: seconds the verification took.
        notes: what else the user must know.
    """

    name: str
    format: str
    precision: Precision
    contract: Contract = "pixel_values"
    record: ArtefactRecord | None = None
    verdict: Verdict | None = None
    error: VitDeployError | None = None
    export_s: float = 0.0
    verify_s: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass
class Job:
    """Artefacts of one model at one precision into one bundle."""

    editor: BundleEditor
    spec: IOSpec
    precision: Precision
    options: Mapping[str, Any]
    progress: Progress
    check: ParityCheck | None
    required: Mapping[str, tuple[Requirement, ...]]

    def run(self, exporter: Exporter) -> Outcome:
        """Export, prove and accept one artefact; what fails becomes the outcome's error."""
        name = artefact_name(exporter.format, self.precision, self.spec.contract)
        try:
            return self._run(exporter, name)
        except VitDeployError as error:
            return Outcome(name, exporter.format, self.precision, self.spec.contract, error=error)

    def _run(self, exporter: Exporter, name: str) -> Outcome:
        found = exporter.available()
        if not found.ok:
            raise BackendMissing(
                f"{exporter.format} cannot be exported here: {found.reason}", next_command=found.mend
            )
        source = self._source(exporter)
        started = time.perf_counter()
        staging = self.editor.stage(name)
        options = self.options[exporter.format]
        exported = exporter.export(
            self.editor.model, self.spec, options, staging, self.progress, source, self.precision
        )
        candidate = self.editor.candidate(name, exporter.format, self.precision, exported)
        exported_at = time.perf_counter()
        judged = self._judge(candidate)
        judged_at = time.perf_counter()
        error = self._objection(judged, self.precision)
        record = None if error else self.editor.accept(candidate, exported, options, judged.verdict)
        return Outcome(
            name,
            exporter.format,
            self.precision,
            self.spec.contract,
            record=record,
            verdict=judged.verdict,
            error=error,
            export_s=exported_at - started,
            verify_s=judged_at - exported_at,
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        default, self.editor.dropped_default = self.editor.dropped_default, None
        if default is None:
            return ()
        told = f"the tuned default ({default}) is dropped, as {default.artefact} was exported anew"
        return (f"{told}; run: vit-deploy tune {shlex.quote(str(self.editor.path))}",)

    def _judge(self, candidate: Artefact) -> Judged:
        requirements = self.required.get(candidate.format, ())
        if self.check is None:
            return judged_as(candidate, 0, UNVERIFIED, requirements)
        self.progress.phase(f"{candidate.format}: verifying")
        return Verification(self.check, requirements=requirements).judge(candidate, 0, self.progress)

    def _objection(self, judged: Judged, precision: Precision) -> ParityFailed | None:
        """Why an artefact does not enter the bundle."""
        if judged.verdict.passed is False:
            return _parity_error(judged, precision)
        if not judged.unmet:
            return None
        return ParityFailed(
            f"{judged.name} was not built as it was required to be: {'. '.join(judged.unmet)}",
            expected=", ".join(map(str, self.required[judged.format])),
            next_command="export as said above, or leave out of --require what this artefact cannot be",
        )

    def _source(self, exporter: Exporter) -> Artefact | None:
        if not exporter.needs:
            return None
        name = artefact_name(exporter.needs, self.precision, self.spec.contract)
        source = self.editor.accepted(name)
        if source is None:
            raise ExportFailed(
                f"{exporter.format} is built from {exporter.needs}, which is not in the bundle",
                expected=f"an accepted {name} artefact",
                next_command=f"mend the {exporter.needs} export first",
            )
        return source


_REPORT = "vit-deploy doctor, and report the failure with its output"
_MENDS: Mapping[Precision, str] = {
    "int8": "--max-drop 1, which keeps the worst layers in fp32, or --dtype auto",
    "fp8": "--max-drop 1, which keeps the worst layers in fp32, or --dtype auto",
    "fp16": "--keep-fp32 with the layers named above, --dtype bf16, or --dtype auto",
}
"""What to try where a precision was too little for a model; for the others a failure is ours."""


def _parity_error(judged: Judged, precision: Precision) -> ParityFailed:
    culprit = f"; culprit: {judged.culprit.sentence}" if judged.culprit else ""
    return ParityFailed(
        f"{judged.name} is not equal to eager PyTorch: {judged.verdict.reason}{culprit}",
        expected="a relative error within the limits of docs/parity.md",
        next_command=_MENDS.get(precision, _REPORT),
    )
