"""What there is to measure in a bundle: its artefacts and its reference weights, and what each takes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from vit_deploy import registry
from vit_deploy.errors import ParityFailed, UsageFailed
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.contract import network_is_dynamic
from vit_deploy.model.module_config import ModuleConfig, shapes_text
from vit_deploy.spec import EAGER_PRECISIONS, PRECISIONS, artefact_name, size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from vit_deploy.bench.grid import Grid
    from vit_deploy.bundle.manifest import ArtefactRecord
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.spec import Contract, IOSpec, Precision

    Size = tuple[int, int]

REFERENCE_FORMAT = "pytorch"
"""The format of the reference weights, which only the eager runtime opens."""

BOUND_FORMATS = frozenset({"tensorrt"})
"""The formats that take nothing outside the range they were built for. The others take any batch where it is
free, and are verified inside the range."""

_NOT_OF_A_CASE = frozenset({"spec"})


@dataclass(frozen=True)
class Subject:
    """An artefact, or the reference weights at a precision; most fields are those of a ``Case``.

    Attributes:
        spec: its inputs and outputs.
    """

    artefact: str
    format: str
    precision: Precision
    contract: Contract
    verified: bool
    worst_ratio: float | None
    files: Mapping[str, str]
    spec: IOSpec

    @property
    def is_reference(self) -> bool:
        """Whether it is the reference weights."""
        return self.format == REFERENCE_FORMAT

    def described(self) -> dict[str, Any]:
        """The fields that a ``Case`` has too."""
        names = (entry.name for entry in fields(self) if entry.name not in _NOT_OF_A_CASE)
        return {name: getattr(self, name) for name in names}

    def check(self, bundle: Bundle, batch_size: int, image_size: Size) -> tuple[str, ...]:
        """Refuse a batch or an image size that it does not take.

        Args:
            bundle: holds it.
            batch_size: images in one inference.
            image_size: ``(height, width)`` of what the network sees; zeros where it sees no picture.

        Returns:
            What a reader of the figures must know.

        Raises:
            UsageFailed: saying what it takes, and which export would take this.
        """
        remarks = self._check_batch(bundle, batch_size, image_size)
        if image_size != bundle.config.image_size:
            self._check_size(bundle, batch_size, image_size)
        if self.contract == "image" and self.spec.sizes is not None:
            remarks.append(f"pictures of {size_text(self.spec.sizes.optimum)}")
        return tuple(remarks)

    def _check_batch(self, bundle: Bundle, batch_size: int, image_size: Size) -> list[str]:
        batch = self.spec.batch
        fits = batch.minimum <= batch_size <= batch.maximum
        if fits or (self.is_reference and not batch.is_fixed):
            return []
        held = str(batch.minimum) if batch.is_fixed else f"{batch.minimum} to {batch.maximum}"
        if not batch.is_fixed and self.format not in BOUND_FORMATS:
            return [f"beyond the verified batch ({held})"] if self.verified else []
        own = bundle.config.io_spec().batch  # where it is fixed, the model's code has that number in it
        raise UsageFailed(
            f"{self.artefact} is made for a batch of {held}, not of {batch_size}",
            expected=f"--batch-size {held}",
            next_command=f"--batch-size {own.minimum}"
            if own.is_fixed
            else self._export_command(bundle, batch_size, image_size),
        )

    def _check_size(self, bundle: Bundle, batch_size: int, image_size: Size) -> None:
        if self.is_reference:
            from vit_deploy.weights.resize import resized

            resized(bundle.model(), image_size)  # refuses what an export at that size would refuse
            return
        own = size_text(bundle.config.image_size)
        sizes = self.spec.sizes if network_is_dynamic(self.spec) else None
        if sizes is not None and sizes.holds(image_size):
            return
        if sizes is not None:
            held = f"is made for images of {size_text(sizes.minimum)} to {size_text(sizes.maximum)}"
            held += f", in steps of {sizes.step}" if sizes.step > 1 else ""
        elif self.contract == "image":
            held = f"makes every picture one of {own} itself"
        else:
            held = f"is made for images of {own}"
        raise UsageFailed(
            f"{self.artefact} {held}: it is not measured at {size_text(image_size)}",
            expected=f"--image-size {own}" if sizes is None else "an --image-size inside that range",
            next_command=self._export_command(bundle, batch_size, image_size),
        )

    def _export_command(self, bundle: Bundle, batch_size: int, image_size: Size) -> str:
        """The export of an artefact that takes that batch and image size."""
        own, spec = bundle.config.image_size, self.spec
        words = ["vit-deploy export -m MODEL"]
        most = max(spec.batch.maximum, batch_size)
        if image_size != own and not isinstance(bundle.config, ViTConfig):
            words.append(f"--input-shape {size_text(image_size)}")
        elif image_size != own and self.contract == "image":
            words.append(f"--image-size {size_text(image_size)}")
        elif image_size != own or network_is_dynamic(spec):
            held = (spec.sizes.minimum, spec.sizes.maximum) if spec.sizes else (own,)
            (low, high), (left, right) = (
                (min(sides), max(sides)) for sides in zip(image_size, *held, strict=True)
            )
            least = min(spec.batch.minimum, batch_size)
            words += ["--dynamic-image-size", f"--minShapes {self._shape(bundle, least, (low, left))}"]
            words.append(f"--maxShapes {self._shape(bundle, most, (high, right))}")
        else:
            largest = spec.sizes.maximum if spec.sizes else own  # with `image` the sizes are the pictures'
            words.append(f"--maxShapes {self._shape(bundle, most, largest)}")
        where = () if "--image-size" in words[1] else (bundle.path,)  # another size is another bundle
        return " ".join([*words, *export_flags([self.format], [self.precision], [self.contract], *where)])

    def _shape(self, bundle: Bundle, batch_size: int, image_size: Size) -> str:
        """The shapes of the inputs as trtexec writes them: ``1x3x224x224``."""
        config = bundle.config
        if isinstance(config, ModuleConfig):
            return shapes_text(config.inputs, batch_size)
        one = (config.in_channels, *image_size)
        taken = one if self.contract == "pixel_values" else (*image_size, config.in_channels)
        return "x".join(map(str, (batch_size, *taken)))


def export_flags(
    formats: Iterable[str],
    precisions: Sequence[Precision] = (),
    contracts: Sequence[Contract] = (),
    path: Path | None = None,
) -> list[str]:
    """The flags of an export to formats, and what they are built from, at the first of each, into a bundle."""
    known = registry.formats()
    wanted = [
        entry
        for name in formats
        for entry in (registry.exporter(name).needs if name in known else "", name)
        if entry
    ]
    told = [f"--format {','.join(dict.fromkeys(wanted))}"]
    told += [f"--dtype {name}" for name in precisions[:1] if name != "fp32"]
    told += [f"--input {name}" for name in contracts[:1] if name != "pixel_values"]
    return told + ([f"-o {shlex.quote(str(path))}"] if path else [])


def find_subjects(bundle: Bundle, formats: frozenset[str], grid: Grid) -> list[Subject]:
    """What a backend that opens ``formats`` has in a bundle, the reference first.

    Args:
        bundle: what is measured; the hash of every file of what is found is checked.
        formats: those that the backend opens.
        grid: its filters leave artefacts out.

    Raises:
        HostileInput: when a file is missing or was changed.
        ParityFailed: when the manifest says that an artefact failed.
    """
    found = _references(bundle, grid) if REFERENCE_FORMAT in formats else []
    records = [
        record for record in bundle.records.values() if record.format in formats and _let_in(record, grid)
    ]
    return found + [_from_record(bundle, record) for record in records]


def _let_in(record: ArtefactRecord, grid: Grid) -> bool:
    filters = (
        (record.format, grid.formats),
        (record.precision, grid.precisions),
        (record.contract, grid.contracts),
    )
    return all(not wanted or value in wanted for value, wanted in filters)


def _references(bundle: Bundle, grid: Grid) -> list[Subject]:
    wanted = [name for name in PRECISIONS if name in grid.precisions and name in EAGER_PRECISIONS]
    weights = bundle.manifest.model.weights
    own = bundle.config.io_spec()
    bundle.reference(own)  # the hash of the weights is checked
    return [
        Subject(
            artefact=artefact_name(REFERENCE_FORMAT, precision),
            format=REFERENCE_FORMAT,
            precision=precision,
            contract="pixel_values",
            verified=True,
            worst_ratio=None,
            files={weights.name: weights.sha256},
            spec=own,
        )
        for precision in wanted or EAGER_PRECISIONS[:1]
    ]


def _from_record(bundle: Bundle, record: ArtefactRecord) -> Subject:
    if record.parity.passed is False:
        raise ParityFailed(
            f"the manifest says that {record.name} is not equal to eager PyTorch: {record.parity.reason}",
            expected="parity before a time counts",
            next_command=f"vit-deploy export --format {record.format} again",
        )
    artefact = bundle.artefact(record.name)
    return Subject(
        artefact=artefact.name,
        format=artefact.format,
        precision=artefact.precision,
        contract=artefact.spec.contract,
        verified=record.parity.passed is True,
        worst_ratio=record.parity.worst_ratio,
        files={file.name: file.sha256 for file in record.files},
        spec=artefact.spec,
    )
