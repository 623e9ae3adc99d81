"""Which backends are measured on what: names become cases, or reasons why not."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vit_deploy import registry
from vit_deploy.bench.cases import REFERENCE_FORMAT, cases_for
from vit_deploy.environment import usable_cores
from vit_deploy.errors import BackendMissing, UsageFailed
from vit_deploy.facts import Device
from vit_deploy.model.module_config import ModuleConfig
from vit_deploy.weights.module import code_not_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bench.cases import Case
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
    """A backend that is left out: why, and what mends it."""

    backend: str
    reason: str
    mend: str


def choose_backends(names: Sequence[str], device: Device | None = None) -> tuple[list[Chosen], list[Skipped]]:
    """The backends that are meant by ``names``, and those that ``all`` had to leave out.

    Args:
        names: names or aliases; ``all``, or none at all, means what this machine can run.
        device: where they run; each one's best device when ``None``.

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
            chosen.append(Chosen(runtime, best, name in named))
        elif name in named:
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
    bundle: Bundle, chosen: Sequence[Chosen], batch_sizes: Sequence[int], threads: int, code: str = ""
) -> tuple[list[Case], list[Skipped]]:
    """The cases of the chosen backends, and the backends for which the bundle holds nothing.

    Args:
        bundle: what is measured.
        chosen: the backends.
        batch_sizes: images in one inference.
        threads: CPU threads of each worker.
        code: the ``package.module:factory`` that the user has named; eager needs it where the bundle was
            made from one.

    Raises:
        UsageFailed: for a backend that was named and has no artefact in the bundle, or lacks its code.
        HostileInput: when a file was changed.
    """
    cases: list[Case] = []
    skipped = []
    for entry in chosen:
        lacking = _lacks_code(bundle, entry, code)
        if lacking is not None:
            if entry.named:
                raise lacking
            skipped.append(Skipped(entry.runtime.name, lacking.found, lacking.next_command))
            continue
        found = cases_for(bundle, entry.runtime, entry.device, batch_sizes, threads, code)
        cases += found
        if found:
            continue
        reason = f"the bundle at {str(bundle.path)!r} holds no artefact that {entry.runtime.name} opens"
        mend = f"vit-deploy export -m MODEL --format {' or '.join(entry.formats)} -o {str(bundle.path)!r}"
        if entry.named:
            held = ", ".join(bundle.records) or "none"
            raise UsageFailed(
                reason, expected=f"format {' or '.join(entry.formats)}; it holds {held}", next_command=mend
            )
        skipped.append(Skipped(entry.runtime.name, reason, mend))
    return sorted(cases, key=lambda case: batch_sizes.index(case.batch_size)), skipped


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


def default_threads() -> int:
    """``OMP_NUM_THREADS`` where the user has set it, else all usable cores."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if re.fullmatch("[1-9][0-9]{0,3}", told) else usable_cores()
