"""Who takes part in an evaluation: artefacts of a bundle, each with what runs it, beside eager fp32."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vit_deploy import registry
from vit_deploy.deploy.choose import REFERENCE
from vit_deploy.deploy.predict import scores_output
from vit_deploy.errors import BackendMissing, UsageFailed, VitDeployError, unknown_name
from vit_deploy.evaluation.contest import Entrant
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bundle import Bundle
    from vit_deploy.evaluation.figures import Figures
    from vit_deploy.facts import Device, RuntimeFacts
    from vit_deploy.protocols import Artefact, Runtime

ALL = "all"
TIMEOUT_S = 600.0
BATCH_SIZE = 8


@dataclass(frozen=True)
class Wanted:
    """What is evaluated, and how.

    Attributes:
        backends: names; ``all`` for every one that opens an artefact here, none for the first that does.
        artefacts: names; all when empty.
        device: where; each backend's best when ``None``.
        threads: CPU threads; the backend's default when ``None``.
        batch_size: pictures in one inference.
        limit: how many pictures are used, evenly spread; all when ``None``.
        classes: how the data's names of classes are read, as :func:`match_classes` has it.
        outside: whether links and paths may lead out of the data's folder.
        strict: whether bad input is refused that is left out otherwise.
        timeout_s: how long one run may take.
        code: the ``package.module:factory`` that the user has named.
    """

    backends: tuple[str, ...] = ()
    artefacts: tuple[str, ...] = ()
    device: Device | None = None
    threads: int | None = None
    batch_size: int = BATCH_SIZE
    limit: int | None = None
    classes: str = "auto"
    outside: bool = False
    strict: bool = False
    timeout_s: float = TIMEOUT_S
    code: str = ""


@dataclass(frozen=True)
class Row:
    """One artefact in one backend.

    Attributes:
        name: of the artefact.
        format: of its files.
        dtype: that was declared.
        backend: what ran it; empty where nothing here does.
        device: where.
        figures: what it answered; ``None`` where ``error`` says why not.
        facts: what the backend says of itself.
        error: why there are no figures.
    """

    name: str
    format: str
    dtype: str
    backend: str
    device: str
    figures: Figures | None = None
    facts: RuntimeFacts | None = None
    error: VitDeployError | None = None

    @property
    def failed(self) -> bool:
        """Whether it could be run here, and was not to the end."""
        return self.error is not None and not isinstance(self.error, BackendMissing)

    @property
    def computed(self) -> str:
        """What the backend computed in, where that is not what was declared; empty otherwise."""
        found = self.facts.precision if self.facts is not None else self.dtype
        return "" if found == self.dtype else found


def reference_of(bundle: Bundle, wanted: Wanted) -> Entrant:
    """Eager fp32, which takes any batch."""
    spec = bundle.config.io_spec()
    spec = replace(spec, batch=BatchRange(1, 1, max(wanted.batch_size, spec.batch.maximum)))
    artefact = bundle.reference(spec, code=wanted.code)
    runtime = registry.runtime("eager")
    state = runtime.available(wanted.device)
    if not state.ok:
        raise BackendMissing(f"eager PyTorch cannot be used here: {state.reason}", next_command=state.mend)
    return Entrant(artefact, runtime, wanted.device or runtime.devices()[0], scores_output(artefact))


def entrants_of(bundle: Bundle, wanted: Wanted) -> tuple[list[Entrant], list[Row]]:
    """What is compared with the reference, and the artefacts that nothing here can run.

    Raises:
        UsageFailed: for an unknown name, or a backend that opens none of the artefacts.
        BackendMissing: for a backend that was named and cannot be used, or where there is nothing to run.
    """
    names = _artefact_names(bundle, wanted.artefacts)
    runtimes = _runtimes(bundle, names, wanted)
    entrants, refused = [], []
    for name in names:
        artefact = bundle.artefact(name)
        fitting = _fitting(artefact, runtimes, wanted)
        try:
            scored = scores_output(artefact)
        except UsageFailed as error:
            refused.append(_refused(artefact, error))
            continue
        entrants += [
            Entrant(artefact, runtime, wanted.device or runtime.devices()[0], scored) for runtime in fitting
        ]
        if not fitting and runtimes is None:
            refused.append(_refused(artefact, _unrunnable(artefact, wanted.device)))
    return entrants, refused


def _artefact_names(bundle: Bundle, asked: Sequence[str]) -> list[str]:
    for name in asked:
        if name not in bundle.records and name != REFERENCE:
            raise unknown_name("artefact", name, [*bundle.records, REFERENCE])
    return [name for name in bundle.records if not asked or name in asked]


def _runtimes(bundle: Bundle, names: Sequence[str], wanted: Wanted) -> list[Runtime] | None:
    """The backends that were named; ``None`` where any may do."""
    if not wanted.backends or ALL in wanted.backends:
        return None
    runtimes = [registry.runtime(name) for name in dict.fromkeys(wanted.backends)]
    named = [runtime for runtime in runtimes if runtime.name != "eager"]
    held = {bundle.records[name].format for name in names}
    for runtime in named:
        if not runtime.formats & held:
            raise UsageFailed(
                f"{runtime.name} opens {', '.join(sorted(runtime.formats))}, and the artefacts are "
                f"{', '.join(sorted(held)) or 'none'}",
                expected="a backend that opens one of them",
                next_command=f"vit-deploy export --format {sorted(runtime.formats)[0]}, or another --backend",
            )
        state = runtime.available(wanted.device)
        if not state.ok:
            raise BackendMissing(f"{runtime.name} cannot be used here: {state.reason}", next_command=state.mend)
    return named


def _fitting(artefact: Artefact, runtimes: Sequence[Runtime] | None, wanted: Wanted) -> list[Runtime]:
    """What runs an artefact: what was named, or what can, those that compute in its precision first."""
    if runtimes is not None:
        return [runtime for runtime in runtimes if artefact.format in runtime.formats]
    able = [
        found
        for found in registry.runtimes_for(artefact.format, artefact.precision)
        if found.available(wanted.device).ok
        and registry.computes(found, artefact.precision, wanted.device) is not None
    ]
    return able if ALL in wanted.backends else able[:1]


def _unrunnable(artefact: Artefact, device: Device | None) -> BackendMissing:
    found = registry.runtimes_for(artefact.format, artefact.precision)
    states = [(runtime.name, runtime.available(device)) for runtime in found]
    no_kernels = f"it has no kernels for {artefact.precision} here"
    reasons = "; ".join(f"{name}: {state.reason or no_kernels}" for name, state in states)
    return BackendMissing(
        f"nothing here runs it: {reasons or 'no backend opens ' + artefact.format}",
        next_command=(states[0][1].mend if states else "") or "vit-deploy formats",
    )


def _refused(artefact: Artefact, error: VitDeployError) -> Row:
    return Row(artefact.name, artefact.format, artefact.precision, "", "", error=error)


def num_classes_of(reference: Entrant) -> int:
    """How many classes the output of the reference has."""
    spec = reference.artefact.spec
    output = next(entry for entry in spec.outputs if entry.name == reference.scored)
    width = output.shape[-1]
    return width if isinstance(width, int) else reference.artefact.config.num_classes
