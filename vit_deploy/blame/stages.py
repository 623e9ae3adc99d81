"""The stages between eager PyTorch and an artefact, walked on the inputs that the artefact fails on.

A *ladder* (one for each format, in :mod:`vit_deploy.blame.ladders`) tries rung after rung, from the model
towards the artefact; the first that does not hold is where the error came in. Each rung is one run of the
case at which the artefact failed, judged by the ratio and the limit of the parity criterion.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.blame.record import StageKind, StageReading
from vit_deploy.errors import ExportFailed, HostileInput, RunFailed, VitDeployError
from vit_deploy.model.contract import network_is_dynamic
from vit_deploy.parity.declared import Fault, check_outputs
from vit_deploy.spec import EAGER_PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from vit_deploy.facts import Device, RuntimeFacts
    from vit_deploy.parity import ParityCheck
    from vit_deploy.parity.check import Opener
    from vit_deploy.parity.ground import RunCase
    from vit_deploy.protocols import Arrays, Artefact, Progress, Runtime
    from vit_deploy.spec import IOSpec, TensorSpec

_BROKEN = (RunFailed, HostileInput, ExportFailed)
"""What says something against the stage that raises it; any other error says that it cannot be tried here."""


class Unable(Exception):
    """A rung cannot be tried, which by itself says nothing of the artefact."""


@dataclass(frozen=True)
class Fall:
    """The first rung that does not hold.

    Attributes:
        reading: what was read there.
        because: what that says, for a person, as the end of a sentence.
        broke: whether it gave no outputs at all.
        where: the tap that differs, where the rung itself shows it.
    """

    reading: StageReading
    because: str
    broke: bool = False
    where: str = ""


@dataclass(frozen=True)
class Tried:
    """A rung that was tried.

    Attributes:
        reading: what was read there.
        broke: whether it gave no outputs at all.
    """

    reading: StageReading
    broke: bool = False

    def fall(self, because: str) -> Fall | None:
        """What it means where it does not hold; nothing where it does, or cannot be told."""
        return Fall(self.reading, because, self.broke) if self.reading.holds is False else None


@dataclass
class Walk:
    """What every rung needs, and what was read on the way.

    Attributes:
        check: judges.
        artefact: that failed.
        case: the run that is done again.
        limit: the ratio that the artefact broke.
        runtime: that the artefact failed in.
        device: where.
        opener: opens a session.
        folder: for what has to be written; removed by whoever made it.
        progress: told which stage is tried.
        readings: at each stage that was tried, in the order of the stages.
        notes: what else a person should know.
    """

    check: ParityCheck
    artefact: Artefact
    case: RunCase
    limit: float
    runtime: Runtime
    device: Device
    opener: Opener
    folder: Path
    progress: Progress
    readings: list[StageReading] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def rung(
        self,
        kind: StageKind,
        name: str,
        run: Callable[[], Arrays],
        *,
        because: str,
        spec: IOSpec | None = None,
    ) -> Fall | None:
        """Try a rung and record it; gives what that means where it does not hold.

        Args:
            kind: whose fault an error that first shows here is.
            name: of the stage.
            run: gives outputs by name.
            because: what a fall means.
            spec: what the outputs must be to the letter; where ``None``, only what is judged must be there.
        """
        tried = self.measure(kind, name, run, spec)
        self.readings.append(tried.reading)
        return tried.fall(because)

    def measure(
        self, kind: StageKind, name: str, run: Callable[[], Arrays], spec: IOSpec | None = None
    ) -> Tried:
        """See :meth:`rung`; nothing is recorded."""
        self.progress.phase(f"{self.artefact.name}: {kind}, {name}")
        try:
            outputs = run()
        except Unable as error:
            return Tried(StageReading(kind, name, None, None, str(error)))
        except VitDeployError as error:
            broke = isinstance(error, _BROKEN)
            return Tried(StageReading(kind, name, None, False if broke else None, error.found), broke)
        fault = _fault(self, outputs, spec or self.artefact.spec, strict=spec is not None)
        ratio = self.check.ratio(self.artefact, outputs, self.case)
        if ratio == float("inf"):  # no number that JSON has; the fault says it
            return Tried(StageReading(kind, name, None, False, fault or "an output is missing or not finite"))
        return Tried(StageReading(kind, name, ratio, not fault and ratio <= self.limit, fault))

    def feed(self, artefact: Artefact | None = None) -> Arrays:
        """The inputs of the case, as an artefact takes them."""
        return self.check.feed(artefact or self.artefact, self.case)


def _fault(walk: Walk, outputs: Arrays, spec: IOSpec, *, strict: bool) -> str:
    """What is wrong with outputs whatever their values; dtypes and further outputs where it is strict."""
    names = [walk.check.samples[index].name for index in walk.case.indices]
    size = walk.check.model.config.image_size if network_is_dynamic(spec) else None
    given = dict(outputs)
    if not strict:
        given = {
            entry.name: outputs[entry.name].astype(entry.dtype)
            for entry in spec.outputs
            if entry.name in outputs
        }
    try:
        check_outputs(given, spec, names, size)
    except Fault as fault:
        return str(fault)
    return ""


def in_fp32(artefact: Artefact) -> Artefact:
    """The artefact as it would be declared in float32, its inputs and outputs too."""

    def plain(entries: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(replace(entry, dtype=entry.dtype.replace("float16", "float32")) for entry in entries)

    spec = artefact.spec
    raised = replace(spec, inputs=plain(spec.inputs), outputs=plain(spec.outputs))
    return replace(artefact, precision="fp32", spec=raised)


# Rungs that ladders share ---------------------------------------------------------------------------


def eager_rung(walk: Walk, *, layout: Any = None) -> Fall | None:
    """The model in eager PyTorch in float32, in the layout that is exported unless another is given."""
    spec = walk.artefact.spec
    name = "eager PyTorch, layout for export" if layout is None else "eager PyTorch"

    def run() -> Arrays:
        return run_module(walk.check.model.loaded(spec, layout=layout), walk.feed(), spec)

    because = f"the model itself is wrong in float32, in {name}: what was exported is not what is read"
    return walk.rung("model", name, run, because=because)


def run_module(module: nn.Module, feeds: Arrays, spec: IOSpec) -> Arrays:
    """Outputs of a PyTorch module in float32, by the names of ``spec``.

    Raises:
        RunFailed: when it does not run, or gives another number of outputs.
    """
    import torch

    from vit_deploy.weights.module.factory import foreign_code

    tensors = (torch.from_numpy(feeds[entry.name].copy()) for entry in spec.inputs)
    given = [tensor.float() if tensor.is_floating_point() else tensor for tensor in tensors]
    try:
        with torch.inference_mode(), foreign_code():
            results = module(*given)
    except RuntimeError as error:
        raise RunFailed(f"PyTorch does not run it: {str(error).splitlines()[0]}") from error
    outputs = results if isinstance(results, (tuple, list)) else (results,)
    if len(outputs) != len(spec.outputs):
        raise RunFailed(f"it gives {len(outputs)} outputs", expected=", ".join(spec.output_names))
    named = zip(spec.output_names, outputs, strict=True)
    return {name: output.float().cpu().numpy() for name, output in named}


def backend_rungs(walk: Walk, artefact: Artefact | None = None) -> Fall | None:
    """The artefact in its backend without the backend's optimisations, then with them.

    Args:
        walk: of the artefact.
        artefact: another form of it.
    """
    return backend_rung(walk, artefact, optimise=False) or backend_rung(walk, artefact, optimise=True)


def backend_rung(
    walk: Walk, artefact: Artefact | None = None, *, optimise: bool = True, kind: StageKind = "runtime"
) -> Fall | None:
    """One run of an artefact in its backend.

    A backend that computes in less than is declared is at fault for that, whatever the numbers.
    """
    from vit_deploy.protocols import SessionOptions

    chosen = artefact or walk.artefact
    facts: list[RuntimeFacts] = []

    def run() -> Arrays:
        options = SessionOptions(optimise=optimise)
        with walk.opener(walk.runtime, chosen, walk.device, options) as session:
            facts.append(session.facts)
            return session.run(walk.feed(chosen))

    name = f"{walk.runtime.name}, optimisations {'on' if optimise else 'off'}"
    if chosen.precision != walk.artefact.precision:
        name += f", in {chosen.precision}"
    elif kind == "precision":
        name = f"{walk.runtime.name}, in {chosen.precision} as declared"
    tried = walk.measure(kind, name, run, chosen.spec)
    lower = _lower(facts, chosen)
    if lower:
        found = replace(tried.reading, kind="precision", holds=False, note=tried.reading.note or lower)
        tried = replace(tried, reading=found)
    walk.readings.append(tried.reading)
    return tried.fall(lower or _blamed(walk, kind, optimise=optimise, broke=tried.broke))


def _lower(facts: list[RuntimeFacts], artefact: Artefact) -> str:
    """What a backend says of itself, where that is less than the artefact declares."""
    if not facts or artefact.precision not in EAGER_PRECISIONS:
        return ""
    effective = facts[0].precision
    if effective in (artefact.precision, "fp32") or effective not in EAGER_PRECISIONS:
        return ""
    return f"{facts[0].backend} computes in {effective} what is declared as {artefact.precision}"


def _blamed(walk: Walk, kind: StageKind, *, optimise: bool, broke: bool) -> str:
    backend = walk.runtime.name
    if kind == "precision":
        return f"the same graph holds in fp32, and does not in {walk.artefact.precision} on {backend}"
    wrong = "does not run" if broke else "computes wrongly"
    if not optimise:
        return f"{backend} {wrong} what holds up to there, with its optimisations off too"
    without = walk.readings[-2] if len(walk.readings) > 1 else None
    if without is not None and without.holds and without.name.startswith(f"{backend}, optimisations off"):
        return f"{backend} {wrong} what it computes rightly with its optimisations off"
    return f"{backend} {wrong} what holds up to there"


def generic_ladder(walk: Walk) -> Fall | None:
    """What can be told of any format: the model, and the backend without and with its optimisations."""
    return eager_rung(walk) or backend_rungs(walk)
