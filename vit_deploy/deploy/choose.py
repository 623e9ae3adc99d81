"""Choose what is run, by what, and where: an artefact of a bundle, a backend that opens it, a device.

What ``vit-deploy tune`` found is used where the user says nothing else and it still holds.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vit_deploy import registry
from vit_deploy.bundle.default import MachineRecord
from vit_deploy.errors import BackendMissing, UsageFailed, unknown_name
from vit_deploy.facts import Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bundle import Bundle
    from vit_deploy.bundle.default import DefaultRecord
    from vit_deploy.protocols import Runtime
    from vit_deploy.spec import Contract, Precision

REFERENCE = "pytorch-fp32"
"""The name under which the reference weights themselves are run, by eager PyTorch."""


@dataclass(frozen=True)
class Choice:
    """What is going to be run, by what, and where.

    Attributes:
        name: the artefact, or :data:`REFERENCE`.
        verified: whether a parity verdict let it in; the reference needs none.
        code: the ``package.module:factory`` that the user has named, to be imported for the reference.
        contract: what it takes.
        threads: CPU threads; the backend's default when ``None``.
        batch_size: images in one inference; as many as the artefact takes when ``None``.
        notes: what came of the bundle's tuned default, a line each.
    """

    name: str
    runtime: Runtime
    device: Device
    verified: bool
    code: str = ""
    contract: Contract = "pixel_values"
    threads: int | None = None
    batch_size: int | None = None
    notes: tuple[str, ...] = ()


def choose(bundle: Bundle, *, backend: str = "", artefact: str = "", device: str = "") -> Choice:
    """Choose an artefact and what runs it, where these are not given.

    With neither given it is the bundle's tuned default, with the settings it was tuned with if this is the
    machine it was tuned on. A default that does not hold any more, or that this machine cannot run, is told
    of in the choice's notes and not used.

    Then, without a backend, it is the first that this machine can run among the artefacts that passed
    parity, and eager PyTorch where there is none. With one, it is the first artefact that the
    backend opens, those that passed parity before others.

    Raises:
        UsageFailed: for an unknown name, or a backend and an artefact that do not fit together.
        BackendMissing: when this machine cannot run what was asked for.
    """
    if artefact and artefact not in bundle.records and artefact != REFERENCE:
        raise unknown_name("artefact", artefact, [*bundle.records, REFERENCE])
    wanted = Device.parse(device) if device else None
    notes: tuple[str, ...] = ()
    if not artefact and not backend and bundle.manifest.default is not None:
        tuned, notes = _tuned(bundle, bundle.manifest.default, wanted)
        if tuned is not None:
            return tuned
    names = [artefact] if artefact else _by_verdict(bundle)
    if backend:
        return _with_backend(bundle, names, registry.runtime(backend), wanted)
    for name in names:
        if artefact or _passed(bundle, name):
            for runtime in registry.runtimes_for(_format(bundle, name), _precision(bundle, name)):
                if _computes(runtime, _precision(bundle, name), wanted):
                    return replace(_choice(bundle, name, runtime, wanted), notes=notes)
    raise _unrunnable(names[-1], _format(bundle, names[-1]), wanted)


def _tuned(
    bundle: Bundle, default: DefaultRecord, wanted: Device | None
) -> tuple[Choice | None, tuple[str, ...]]:
    """The tuned default as a choice, or ``None``, and what is to be told of it."""
    objection = default.objection(bundle.records) or _not_runnable(bundle, default, wanted)
    if objection:
        mend = f"run: vit-deploy tune {shlex.quote(str(bundle.path))}"
        return None, (f"the tuned default ({default.artefact}) is not used: {objection}; {mend}",)
    choice = _choice(bundle, default.artefact, registry.runtime(default.backend), Device.parse(default.device))
    here = MachineRecord.here(default.device)
    if here != default.environment:
        told = f"tuned default: {default.artefact} on {default.backend} ({default.device})"
        return replace(choice, notes=(f"{told}; {_elsewhere(default, here)}",)), ()
    threads = default.threads if choice.device.kind == "cpu" else None
    told = f"tuned default: {default}"
    if default.streams > 1:
        told += f"; one stream with all {default.threads} threads, as pictures are run batch after batch here"
    return replace(choice, threads=threads, batch_size=default.batch_size, notes=(told,)), ()


def _elsewhere(default: DefaultRecord, here: MachineRecord) -> str:
    return (
        f"its settings ({default.settings}) are left out, as it was tuned on another machine "
        f"({default.environment}; this one is {here})"
    )


def _not_runnable(bundle: Bundle, default: DefaultRecord, wanted: Device | None) -> str:
    """Why this machine, or the user's device, rules a default out; empty where nothing does."""
    if wanted is not None and str(wanted) != default.device:
        return f"it is for {default.device}, not for {wanted}"
    if default.backend not in registry.backends():
        return f"this version has no backend {default.backend!r}"
    runtime = registry.runtime(default.backend)
    if _format(bundle, default.artefact) not in runtime.formats:
        return f"{default.backend} does not open {default.artefact}"
    try:
        state = runtime.available(Device.parse(default.device))
    except UsageFailed as error:
        return error.found
    return "" if state.ok else f"{default.backend} cannot run on {default.device} here: {state.reason}"


def _by_verdict(bundle: Bundle) -> list[str]:
    """Every name that can be run: what passed parity, then the rest, then the reference."""
    return [*sorted(bundle.records, key=lambda name: not _passed(bundle, name)), REFERENCE]


def _passed(bundle: Bundle, name: str) -> bool:
    return name == REFERENCE or bundle.records[name].parity.passed is True


def _format(bundle: Bundle, name: str) -> str:
    return "pytorch" if name == REFERENCE else bundle.records[name].format


def _precision(bundle: Bundle, name: str) -> Precision:
    return "fp32" if name == REFERENCE else bundle.records[name].precision


def _computes(runtime: Runtime, precision: Precision, wanted: Device | None) -> bool:
    """Whether it can be run here, in its own precision: another one would be slower and prove nothing."""
    return runtime.available(wanted).ok and registry.computes(runtime, precision, wanted) == precision


def _with_backend(bundle: Bundle, names: Sequence[str], runtime: Runtime, wanted: Device | None) -> Choice:
    fitting = [name for name in names if _format(bundle, name) in runtime.formats]
    if not fitting:
        formats = sorted(runtime.formats)
        there = [name for name in names if name != REFERENCE]
        raise UsageFailed(
            f"{runtime.name} opens {', '.join(formats)} only; given: {', '.join(there) or 'no artefact'}",
            expected=f"an artefact that {runtime.name} opens",
            next_command=f"vit-deploy export --format {formats[0]}, or another --backend",
        )
    state = runtime.available(wanted)
    if not state.ok:
        raise BackendMissing(f"{runtime.name} cannot be used here: {state.reason}", next_command=state.mend)
    own = [name for name in fitting if _computes(runtime, _precision(bundle, name), wanted)]
    return _choice(bundle, (own or fitting)[0], runtime, wanted)


def _choice(bundle: Bundle, name: str, runtime: Runtime, wanted: Device | None) -> Choice:
    contract = "pixel_values" if name == REFERENCE else bundle.records[name].contract
    device = wanted or runtime.devices()[0]
    return Choice(name, runtime, device, _passed(bundle, name), contract=contract)


def _unrunnable(name: str, format: str, wanted: Device | None) -> BackendMissing:
    runtimes = registry.runtimes_for(format)
    states = [runtime.available(wanted) for runtime in runtimes]
    reasons = "; ".join(
        f"{runtime.name}: {state.reason}" for runtime, state in zip(runtimes, states, strict=True)
    )
    return BackendMissing(
        f"nothing here runs {name}: {reasons or 'no backend opens ' + format}",
        next_command=states[0].mend if states else "vit-deploy formats",
    )
