"""Which backends are measured on what: names become cases, or reasons why not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vit_deploy import registry
from vit_deploy.bench.cases import cases_for
from vit_deploy.bench.subjects import REFERENCE_FORMAT, export_flags
from vit_deploy.errors import BackendMissing, UsageFailed, unknown_name
from vit_deploy.facts import Device
from vit_deploy.model.module_config import ModuleConfig
from vit_deploy.weights.module import code_not_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.grid import Grid
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.protocols import Runtime

ALL = "all"


@dataclass(frozen=True)
class Chosen:
    """A backend that this machine can run, where it will run, and whether the user named it."""

    runtime: Runtime
    device: Device
    named: bool

    @property
    def formats(self) -> list[str]:
        """The formats that must have been exported for it; none for eager."""
        return sorted(self.runtime.formats - {REFERENCE_FORMAT})


@dataclass(frozen=True)
class Skipped:
    """What is left out of a backend, or of :data:`ALL`: why, and what mends it."""

    backend: str
    reason: str
    mend: str


def choose_backends(
    names: Sequence[str], device: Device | None = None, *, required: bool = True
) -> tuple[list[Chosen], list[Skipped]]:
    """The backends that are meant by ``names``, and those that had to be left out.

    Args:
        names: names or aliases; ``all``, or none at all, means what this machine can run.
        device: where they run; each one's best device when ``None``.
        required: whether what is named must run here, as it must where the user names it. A suite names
            what it is made for, wherever it is run: what does not run here is left out.

    Raises:
        UsageFailed: for an unknown name.
        BackendMissing: for a named backend that this machine cannot run.
    """
    named = list(dict.fromkeys(registry.runtime(name).name for name in names if name != ALL))
    everything = not names or ALL in names
    # Eager comes first: it is what the others are compared with.
    others = sorted(set(registry.backends()) - set(named), key=lambda name: (name != "eager", name))
    chosen, skipped = [], []
    for name in [*named, *(others if everything else [])]:
        runtime = registry.runtime(name)
        found = runtime.available(device)
        if found.ok:
            best = device or next(iter(runtime.devices()), Device("cpu"))
            chosen.append(Chosen(runtime, best, required and name in named))
        elif required and name in named:
            raise BackendMissing(
                f"backend {name!r} cannot run here: {found.reason}",
                expected="a machine that can run it",
                next_command=found.mend,
            )
        else:
            skipped.append(Skipped(name, found.reason, found.mend))
    if everything:
        chosen.sort(key=lambda entry: entry.runtime.name != "eager")
    return chosen, skipped


def plan_cases(
    bundle: Bundle, chosen: Sequence[Chosen], grid: Grid, code: str = ""
) -> tuple[list[Case], list[Skipped]]:
    """The cases of the chosen backends at each point of a grid, and what had to be left out.

    Args:
        bundle: what is measured.
        chosen: the backends.
        grid: batch and image sizes, threads and streams, and which artefacts.
        code: the ``package.module:factory`` that the user has named; eager needs it where the bundle was
            made from one.

    Raises:
        UsageFailed: for a backend that was named and of which nothing is left: the bundle holds no artefact
            for it, or none that takes these batch and image sizes, or its code is lacking; for more
            threads than cores; and when nothing is left at all.
        HostileInput: when a file was changed.
        ParityFailed: when the manifest says that an artefact failed.
    """
    held = {record.format for record in bundle.records.values()} | {REFERENCE_FORMAT, *registry.formats()}
    for name in grid.formats:
        if name not in held:
            raise unknown_name("format", name, sorted(held), "vit-deploy formats")
    cases: list[Case] = []
    skipped: list[Skipped] = []
    failures: list[UsageFailed] = []
    for entry in chosen:
        found, refused = _cases_of(bundle, entry, grid, code)
        cases += found
        failures += refused
        if refused and not found and entry.named:
            raise refused[0]
        skipped += [Skipped(entry.runtime.name, error.found, error.next_command) for error in refused]
    if not cases and failures:
        raise failures[0]
    if any(entry.device.kind == "cpu" for entry in chosen):
        _, uneven = grid.lanes(on_cpu=True)
        skipped += [Skipped(ALL, error.found, error.next_command) for error in uneven]
    # Those that are compared with each other follow one another.
    sizes = list(dict.fromkeys(case.image_size for case in cases))
    cases.sort(key=lambda case: (grid.batch_sizes.index(case.batch_size), sizes.index(case.image_size)))
    return (with_cuda_graphs(cases) if grid.cuda_graph else cases), list(dict.fromkeys(skipped))


def _cases_of(bundle: Bundle, entry: Chosen, grid: Grid, code: str) -> tuple[list[Case], list[UsageFailed]]:
    """The cases of one backend, and why there are none, or not at every point."""
    lacking = _lacks_code(bundle, entry, code)
    if lacking is not None:
        return [], [lacking]
    found, refused = cases_for(bundle, entry.runtime, entry.device, grid, code)
    if found or refused:
        return found, refused
    filters = _filters(grid)
    which = f" that {filters} lets in" if filters else ""
    formats = [name for name in entry.formats if not grid.formats or name in grid.formats]
    flags = export_flags(formats or entry.formats, grid.precisions, grid.contracts, bundle.path)
    return [], [
        UsageFailed(
            f"the bundle at {str(bundle.path)!r} holds no artefact{which} that {entry.runtime.name} opens",
            expected=f"format {' or '.join(entry.formats)}; it holds {', '.join(bundle.records) or 'none'}",
            next_command=" ".join(["vit-deploy export -m MODEL", *flags]),
        )
    ]


def _filters(grid: Grid) -> str:
    """The filters as the command line writes them."""
    told = {"--format": grid.formats, "--dtype": grid.precisions, "--input": grid.contracts}
    return " ".join(f"{flag} {','.join(names)}" for flag, names in told.items() if names)


def _lacks_code(bundle: Bundle, entry: Chosen, code: str) -> UsageFailed | None:
    """Why eager cannot run here: the bundle was made from code that the user has not named."""
    config = bundle.config
    if code or not isinstance(config, ModuleConfig) or REFERENCE_FORMAT not in entry.runtime.formats:
        return None
    return code_not_named(config)


def with_cuda_graphs(cases: Sequence[Case]) -> list[Case]:
    """The cases, replayed as CUDA graphs where backend and device can.

    Raises:
        UsageFailed: when none of them can.
    """
    able = [case.device != "cpu" and registry.runtime(case.backend).cuda_graphs for case in cases]
    if not any(able):
        named = ", ".join(f"{case.backend} on {case.device}" for case in cases)
        raise UsageFailed(
            f"--cuda-graph was given, and nothing that is measured can honour it: {named}",
            expected="onnxruntime or tensorrt on a CUDA device",
            next_command="leave --cuda-graph out",
        )
    return [replace(case, cuda_graph=can) for case, can in zip(cases, able, strict=True)]
