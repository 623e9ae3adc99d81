"""``manifest.json``: the only entry point of a bundle. What it does not name does not exist.

Same input, same bytes: no dates, no paths of the machine, sorted keys. Its JSON Schema is
published as ``docs/manifest.schema.json`` and kept equal to these classes by a test.
"""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from vit_deploy.bundle.default import DefaultRecord  # noqa: TC001 - pydantic reads it
from vit_deploy.errors import HostileInput, UsageFailed
from vit_deploy.facts import Verdict
from vit_deploy.spec import MAX_BATCH, BatchRange, Contract, IOSpec, Precision, SizeRange, TensorSpec

SCHEMA_VERSION: Final = 1
MANIFEST_NAME = "manifest.json"


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} does not stay inside the bundle")
    return name


InsidePath = Annotated[str, AfterValidator(_inside)]
"""A relative path with forward slashes that stays inside the bundle."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Record):
    """A file by name, size and hash."""

    name: InsidePath
    bytes: int = Field(ge=0, le=2**63 - 1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class SourceRecord(_Record):
    """Where the model came from."""

    kind: str
    name: str
    sha256: str


class ProofRecord(_Record):
    """The proof of import: the model beside the source library's own, in float64; ``null`` is infinite."""

    library: str
    library_version: str
    checkpoint_sha256: str
    code_version: str
    torch_version: str
    images: int = Field(ge=1)
    limit: float = Field(gt=0)
    errors: dict[str, float | None] = Field(min_length=1)
    not_compared: list[str] = []
    reason: str = ""
    passed: bool


class ModelRecord(_Record):
    """The model: what its checkpoint, or the user's own code, became."""

    kind: Literal["vit", "module"] = "vit"
    config: dict[str, Any]
    preprocessing: dict[str, Any] | None
    labels: list[str] = []
    source: SourceRecord
    weights: FileRecord
    proof: ProofRecord | None = None

    @model_validator(mode="after")
    def _is_of_this_checkpoint(self) -> ModelRecord:
        if self.proof and self.proof.checkpoint_sha256 != self.source.sha256:
            raise ValueError("the proof is of another checkpoint")
        return self


class TensorRecord(_Record):
    """One input or output; a dimension that is a word is free."""

    name: str
    dtype: Literal["float32", "float16", "bfloat16", "int64", "uint8"]
    shape: list[int | str]

    @classmethod
    def of(cls, spec: TensorSpec) -> TensorRecord:
        """From its plain form."""
        return cls(name=spec.name, dtype=spec.dtype, shape=list(spec.shape))  # type: ignore[arg-type]

    def spec(self) -> TensorSpec:
        """As its plain form."""
        return TensorSpec(self.name, self.dtype, tuple(self.shape))


class BatchRecord(_Record):
    """The batch sizes an artefact is made for."""

    minimum: int = Field(ge=1)
    optimum: int = Field(ge=1)
    maximum: int = Field(ge=1, le=MAX_BATCH)

    @model_validator(mode="after")
    def _is_in_order(self) -> BatchRecord:
        if not self.minimum <= self.optimum <= self.maximum:
            raise ValueError("the batch sizes are not in order")
        return self


class SizesRecord(_Record):
    """The sizes of pictures an artefact is made for, each height and width, where they are free."""

    minimum: tuple[int, int]
    optimum: tuple[int, int]
    maximum: tuple[int, int]
    patch_size: int
    step: int
    num_prefix_tokens: int

    @model_validator(mode="after")
    def _is_a_range(self) -> SizesRecord:
        try:
            self.sizes()
        except UsageFailed as error:
            raise ValueError(error.found) from error
        return self

    def sizes(self) -> SizeRange:
        """As its plain form."""
        return SizeRange(**dict(self))


class ParityRecord(_Record):
    """The verdict that let an artefact in; ``passed`` is null where it was not verified."""

    passed: bool | None
    backend: str = ""
    reason: str = ""
    worst_ratio: float | None = None
    p95_ratio: float | None = None
    samples: int = 0
    details: dict[str, Any] = {}

    @classmethod
    def of(cls, verdict: Verdict) -> ParityRecord:
        """From its plain form, rounded to four significant digits."""
        return cls(
            passed=verdict.passed,
            backend=verdict.backend,
            reason=verdict.reason,
            worst_ratio=_rounded(verdict.worst_ratio),
            p95_ratio=_rounded(verdict.p95_ratio),
            samples=verdict.samples,
            details={name: _rounded(value) for name, value in verdict.details.items()},
        )

    def verdict(self) -> Verdict:
        """As its plain form."""
        return Verdict(**self.model_dump())


class ArtefactRecord(_Record):
    """One exported form of the model."""

    name: str
    format: str
    precision: Precision
    contract: Contract = "pixel_values"
    directory: InsidePath
    files: list[FileRecord] = Field(min_length=1)
    inputs: list[TensorRecord] = Field(min_length=1)
    outputs: list[TensorRecord] = Field(min_length=1)
    batch: BatchRecord
    sizes: SizesRecord | None = None
    options: dict[str, Any] = {}
    tools: dict[str, str] = {}
    facts: dict[str, Any] = {}
    parity: ParityRecord

    @property
    def nbytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.bytes for file in self.files)

    def io_spec(self) -> IOSpec:
        """Its inputs and outputs as plain data."""
        return IOSpec(
            inputs=tuple(entry.spec() for entry in self.inputs),
            outputs=tuple(entry.spec() for entry in self.outputs),
            batch=BatchRange(self.batch.minimum, self.batch.optimum, self.batch.maximum),
            sizes=self.sizes.sizes() if self.sizes else None,
            contract=self.contract,
        )


class Manifest(_Record):
    """The whole manifest."""

    schema_version: Literal[1] = 1
    generator: dict[str, str] = {}
    model: ModelRecord
    artefacts: dict[str, ArtefactRecord] = {}
    default: DefaultRecord | None = None

    @model_validator(mode="after")
    def _names_agree(self) -> Manifest:
        for name, record in self.artefacts.items():
            if record.name != name:
                raise ValueError(f"the artefact {record.name!r} stands under the name {name!r}")
        return self

    def to_json(self) -> str:
        """The text of ``manifest.json``; the same manifest gives the same text."""
        # A bundle that was never tuned has no such word in it, as it had before there were defaults.
        data = self.model_dump(mode="json", exclude=None if self.default else {"default"})
        return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Read and check the text of ``manifest.json``.

        Raises:
            HostileInput: when it is no manifest, or one of another schema version.
        """
        try:
            return cls.model_validate(json.loads(text, parse_constant=_refuse_constant))
        except (ValueError, RecursionError) as error:
            raise HostileInput(
                f"{where!r} is no manifest that this version reads: {_first_complaint(error)}",
                expected=f"a manifest of schema version {SCHEMA_VERSION}, as vit-deploy wrote it",
                next_command="vit-deploy export again, with the version installed here",
            ) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _first_complaint(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"at {'.'.join(map(str, first['loc'])) or 'the top'}: {first['msg']}"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(entry) for entry in value]
    return value


def plain(value: Any) -> Any:
    """Plain JSON data of a dataclass or mapping; paths become names, so that no machine shows."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(entry) for name, entry in sorted(asdict(value).items())}
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(name): plain(entry) for name, entry in sorted(value.items())}
    if isinstance(value, (list, tuple, set, frozenset)):
        entries = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [plain(entry) for entry in entries]
    return value.name if isinstance(value, Path) else value
