"""What is measured: a :class:`Case` is one artefact on one backend at one batch size."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from vit_deploy import registry
from vit_deploy.bench.subjects import REFERENCE_FORMAT, find_subjects
from vit_deploy.errors import RunFailed, UsageFailed
from vit_deploy.facts import Device
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.contract import network_is_dynamic
from vit_deploy.spec import BatchRange, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.bench.grid import Grid
    from vit_deploy.bench.subjects import Subject
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.facts import RuntimeFacts
    from vit_deploy.protocols import Artefact, Runtime
    from vit_deploy.spec import Contract, Precision

Role = Literal["case", "twin", "ceiling"]
"""What a worker measures for: a row of the table; the same artefact again, against itself (A/A); or the
matrix products that bound all others."""


@dataclass(frozen=True)
class Case:
    """One row of the result to be.

    Attributes:
        bundle: path of the bundle.
        artefact: name of the artefact; ``pytorch-<precision>`` for the reference weights.
        format: its format.
        precision: its declared precision.
        backend: the runtime's full name.
        device: as :meth:`vit_deploy.facts.Device.parse` reads it.
        batch_size: images in one inference.
        threads: CPU threads of the worker, all its streams together.
        verified: whether parity with eager PyTorch was proven; false where it could not be checked.
        files: SHA-256 of each file of the artefact, the one a runtime opens first.
        cuda_graph: whether inferences are replayed as a CUDA graph.
        code: the ``package.module:factory`` that the user has named, to be imported for eager.
        streams: inferences that run side by side, each with its share of the threads.
        image_size: ``(height, width)`` of the pictures; ``None`` where the model has no such thing.
        contract: what the artefact takes.
        worst_ratio: of its parity verdict, where it has one.
        role: what it is measured for.
        remarks: what a reader of its figures must know, found out when it was planned.
    """

    bundle: str
    artefact: str
    format: str
    precision: Precision
    backend: str
    device: str
    batch_size: int
    threads: int
    verified: bool
    files: Mapping[str, str]
    cuda_graph: bool = False
    code: str = ""
    streams: int = 1
    image_size: tuple[int, int] | None = None
    contract: Contract = "pixel_values"
    worst_ratio: float | None = None
    role: Role = "case"
    remarks: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What tells a case from all others of a run, and finds it again in another run's result."""
        parts = [self.artefact, self.backend, self.device, f"b{self.batch_size}"]
        parts += [size_text(self.image_size)] if self.image_size else []
        parts += [f"t{self.threads}"] if self.device == "cpu" else []
        parts += [f"s{self.streams}", *(["graph"] if self.cuda_graph else [])]
        return "/".join(parts) + ("" if self.role == "case" else f"#{self.role}")

    @property
    def sha256(self) -> str:
        """The hash of the file that a runtime opens."""
        return next(iter(self.files.values()))

    @property
    def peers(self) -> tuple[str, int, tuple[int, int] | None]:
        """What a case shares with those it is compared with: device, batch size and image size."""
        return self.device, self.batch_size, self.image_size

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as a worker is sent it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Case:
        """The inverse of :meth:`to_dict`."""
        given = {entry.name: data[entry.name] for entry in fields(cls)}
        size = given["image_size"]
        told = {"image_size": tuple(size) if size else None, "remarks": tuple(given["remarks"])}
        return cls(**{**given, **told})


def cases_for(
    bundle: Bundle, runtime: Runtime, device: Device, grid: Grid, code: str = ""
) -> tuple[list[Case], list[UsageFailed]]:
    """The cases of one backend: each artefact that it opens and the grid lets in, at each point of it.

    Every file is checked against the manifest's hash here, so a tampered bundle is refused
    before anything is measured; a worker checks its own files again when it opens them.

    Returns:
        The cases, and why an artefact has none at some batch or image size.

    Raises:
        HostileInput: when a file is missing or was changed.
        ParityFailed: when the manifest says that an artefact failed.
        UsageFailed: for threads and streams that do not go together.
    """
    lanes, _ = grid.lanes(on_cpu=device.kind == "cpu")
    shared: dict[str, Any] = {"bundle": str(bundle.path), "backend": runtime.name, "device": str(device)}
    own = bundle.config.image_size
    cases: list[Case] = []
    refused: list[UsageFailed] = []
    subjects = find_subjects(bundle, runtime.formats, grid)
    points = itertools.product(dict.fromkeys(grid.batch_sizes), dict.fromkeys(grid.image_sizes or (own,)))
    for batch_size, size in points:
        for subject in subjects:
            try:
                remarks = subject.check(bundle, batch_size, size)
                remarks += _emulated(subject, runtime, device, grid)
            except UsageFailed as error:
                refused.append(error)
                continue
            point = Case(
                **shared,
                **subject.described(),
                batch_size=batch_size,
                threads=1,
                image_size=size if any(size) else None,
                code=code if subject.is_reference else "",
                remarks=remarks,
            )
            cases += [replace(point, **lane._asdict()) for lane in lanes]
    return cases, refused


def _emulated(subject: Subject, runtime: Runtime, device: Device, grid: Grid) -> tuple[str, ...]:
    """What is to be said of a backend that computes an artefact in another precision.

    Raises:
        UsageFailed: where it cannot, or that was not asked for.
    """
    computed = registry.computes(runtime, subject.precision, device)
    if computed == subject.precision:
        return ()
    if computed is not None and grid.emulate:
        return (f"computed in {computed}",)
    does = f"computes {subject.precision} as {computed}" if computed else f"has no {subject.precision}"
    raise UsageFailed(
        f"{runtime.name} {does} on {device}: {subject.artefact} is not measured there",
        expected="a backend that computes in the artefact's precision",
        next_command="add --emulate, to measure it all the same" if computed else "name another --backend",
    )


def reference(
    bundle: Bundle,
    batch_size: int,
    code: str = "",
    precision: Precision = "fp32",
    image_size: tuple[int, int] | None = None,
) -> Artefact:
    """The reference weights, with the outputs that the bundle's artefacts have.

    Args:
        bundle: holds them.
        batch_size: images in one inference.
        code: the ``package.module:factory`` that the user has named.
        precision: the one to compute in.
        image_size: ``(height, width)``; the model's own when ``None``.
    """
    records = list(bundle.records.values())
    outputs = tuple(entry.name for entry in records[0].outputs) if records else ()
    config = bundle.config
    own = config.io_spec().batch
    batch = own if own.is_fixed else BatchRange(1, batch_size, max(8, batch_size))
    if image_size is not None and isinstance(config, ViTConfig):
        config = replace(config, image_size=image_size)
    return bundle.reference(config.io_spec(outputs, batch), precision, code)


def open_artefact(case: Case) -> Artefact:
    """The artefact of a case, its hashes checked, and fit for its batch size.

    Raises:
        HostileInput: when a file was changed since.
        RunFailed: when the artefact has another, fixed batch size.
    """
    from vit_deploy.bundle.reader import Bundle

    bundle = Bundle.open(case.bundle)
    eager = case.format == REFERENCE_FORMAT
    artefact = (
        reference(bundle, case.batch_size, case.code, case.precision, case.image_size)
        if eager
        else bundle.artefact(case.artefact)
    )
    fixed = artefact.spec.batch.minimum
    if artefact.spec.batch.is_fixed and fixed != case.batch_size:
        raise RunFailed(
            f"{case.artefact} is made for a batch of {fixed}, not of {case.batch_size}",
            expected=f"--batch-size {fixed}",
            next_command=f"vit-deploy export --format {case.format} --maxShapes with {case.batch_size} in it",
        )
    return artefact


def free_sizes(artefact: Artefact, case: Case) -> dict[str, int]:
    """The size of each free dimension of the inputs that a case is measured on.

    Where the network takes several sizes it is the case's own. Where the pictures do and the network does
    not (``image``), it is the size that the artefact was made to be fastest at.
    """
    spec = artefact.spec
    size = spec.sizes.optimum if spec.sizes else None
    if network_is_dynamic(spec):
        size = case.image_size or artefact.config.image_size
    return spec.free_at(case.batch_size, size)


def check_facts(facts: RuntimeFacts, case: Case) -> None:
    """Compare what was asked with what the backend says it does.

    Raises:
        RunFailed: for another precision, device, or number of threads or streams.
    """
    asked = {"precision": case.precision, "device": case.device, "streams": str(case.streams)}
    if Device.parse(case.device).kind == "cpu":
        asked["threads"] = str(case.threads)
    for name, want in asked.items():
        have = str(getattr(facts, name))
        if have != want:
            raise RunFailed(
                f"{case.backend} reports {name} {have} for {case.artefact}",
                expected=f"{name} {want}, as was asked",
                next_command=f"vit-deploy bench with another --{name}" if name != "precision" else "",
            )
