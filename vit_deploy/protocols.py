"""The few interfaces that every exporter and every runtime keeps, and the data that crosses them.

Adding a format is one file in ``exporters/`` that defines ``EXPORTER``; adding a backend is one
file in ``vit_deploy/runtimes/`` that defines ``RUNTIME``. Nothing else has to know of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from typing_extensions import Self

    from vit_deploy.facts import Availability, Device, RuntimeFacts
    from vit_deploy.model.kinds import Architecture
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model

    Arrays = Mapping[str, np.ndarray[Any, Any]]
    """Tensors by name, as numpy arrays in C order."""


def option(
    default: Any, help: str, choices: Sequence[Any] = (), flag: str = "", *, recorded: bool = True
) -> Any:
    """A field of an ``Options`` dataclass that the command line offers as a flag.

    Args:
        default: the value when the flag is not given.
        help: the flag's help text.
        choices: the values allowed; any when empty.
        flag: the flag's name; ``--field-name`` when empty.
        recorded: whether the manifest records it; a path on this machine is none of its business.
    """
    metadata = {"help": help, "choices": tuple(choices), "flag": flag, "recorded": recorded}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class NoOptions:
    """The options of an exporter or runtime that has none."""


class Progress(Protocol):
    """Told how far an act is; shows it, or not."""

    def phase(self, text: str, total: int | None = None) -> None:
        """A new phase begins, of ``total`` steps where that is known."""

    def advance(self, steps: int = 1) -> None:
        """``steps`` more of the present phase are done."""

    @property
    def cancelled(self) -> bool:
        """Whether the user asked to stop; a long native build polls this."""


class Silent:
    """A :class:`Progress` that shows nothing."""

    cancelled = False

    def phase(self, text: str, total: int | None = None) -> None:
        """Ignored."""

    def advance(self, steps: int = 1) -> None:
        """Ignored."""


@dataclass(frozen=True)
class ExportedFiles:
    """What an exporter made in its staging folder.

    Attributes:
        files: names relative to the staging folder; the first one is what a runtime opens.
        spec: the I/O of the artefact as it was made.
        facts: what was read back from what was built (node counts, fused attention, versions).
        tools: name and version of each tool that took part.
    """

    files: tuple[str, ...]
    spec: IOSpec
    facts: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Artefact:
    """One exported form of a model, where it lies.

    Attributes:
        name: as :func:`vit_deploy.spec.artefact_name` makes it.
        format: the exporter's name; ``pytorch`` for the reference weights themselves.
        precision: the declared precision.
        path: the file a runtime opens.
        spec: its inputs and outputs.
        config: the model's config.
        facts: what was read back when it was built.
        code: the ``package.module:factory`` that the user has named in this run, and that may be
            imported for it; empty for none. A manifest's word alone never imports anything.
    """

    name: str
    format: str
    precision: Precision
    path: Path
    spec: IOSpec
    config: Architecture
    facts: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""


@runtime_checkable
class Exporter(Protocol):
    """Makes artefacts of one format."""

    format: ClassVar[str]
    description: ClassVar[str]
    Options: ClassVar[type]
    precisions: ClassVar[frozenset[Precision]]
    needs: ClassVar[str]
    """The format that must be exported first (TensorRT is built from ``onnx``), or empty."""

    def available(self) -> Availability:
        """Whether this machine can export the format."""

    def export(
        self,
        model: Model,
        spec: IOSpec,
        options: Any,
        staging: Path,
        progress: Progress,
        source: Artefact | None = None,
        precision: Precision = "fp32",
    ) -> ExportedFiles:
        """Write the artefact's files into the empty folder ``staging``.

        Args:
            source: the accepted artefact of the format in ``needs``; ``None`` where that is empty.
            precision: one of ``precisions``; that of ``source`` where there is one.

        Raises:
            ExportFailed: when it cannot be made, or its linter refuses it.
        """


class Step(Protocol):
    """One inference with its inputs and outputs already on the device."""

    def __call__(self) -> None:
        """Start one inference; it may still run when this returns."""

    def synchronize(self) -> None:
        """Wait until all that was started is done."""


class Session(Protocol):
    """An artefact opened by a runtime on a device; a context manager."""

    @property
    def facts(self) -> RuntimeFacts:
        """What the backend says of itself, read back."""

    def run(self, inputs: Arrays) -> Arrays:
        """Numpy in, numpy out, by name.

        Raises:
            RunFailed: when the backend fails.
        """

    def stage(self, inputs: Arrays) -> Step:
        """Put ``inputs`` on the device and give the step that infers from them, for timing."""

    def close(self) -> None:
        """Release what the backend holds."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True)
class SessionOptions:
    """What every runtime is told; one that cannot honour a setting refuses it.

    Attributes:
        threads: CPU threads of the session, all its streams together; the backend's default when ``None``.
        streams: inferences that may run side by side, each with its share of the threads: so many steps
            may be staged, and each be called from a thread of its own.
        cuda_graph: replay inferences as a CUDA graph.
        spin: whether idle threads may spin; off, so that neighbours are not disturbed.
        optimise: whether the backend may rewrite the graph to be faster when it opens it, as it does by
            default. Off, to tell a fault of those rewrites from one of the file: never for speed.
        cache: whether what was compiled may be kept in the package's cache folder, and be taken from there.
            Off, so that a cold start is one and what is judged is the file; a backend without such a cache
            has nothing to do.
        native: whether to refuse an artefact whose precision the backend has no kernels for, and would compute
            in another one: that is slower than the other one itself, and shows nothing of the precision.
    """

    threads: int | None = None
    streams: int = 1
    cuda_graph: bool = False
    spin: bool = False
    optimise: bool = True
    cache: bool = False
    native: bool = False


@runtime_checkable
class Runtime(Protocol):
    """Runs artefacts of some formats."""

    name: ClassVar[str]
    description: ClassVar[str]
    formats: ClassVar[frozenset[str]]
    cuda_graphs: ClassVar[bool]
    """Whether it honours ``SessionOptions.cuda_graph`` on a CUDA device; it refuses it otherwise."""

    def available(self, device: Device | None = None) -> Availability:
        """Whether this machine can run it, on ``device`` if given; if not, why and what mends it."""

    def devices(self) -> tuple[Device, ...]:
        """The devices it can run on here, the best first."""

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> Session:
        """Open an artefact.

        Raises:
            BackendMissing: when this machine cannot.
            RunFailed: when the backend refuses the artefact, or falls back to something else.
        """


@runtime_checkable
class Selective(Protocol):
    """A :class:`Runtime` that does not compute in every precision; one without this does in all it opens."""

    def computes(self, precision: Precision, device: Device | None = None) -> Precision | None:
        """What an artefact of ``precision`` is computed in on ``device``, or on the best one here.

        Another precision where there are no kernels for that one, and ``None`` where it cannot be run.
        """


class BaseSession(ABC):
    """What all sessions share: checks of names, dtypes and shapes around one inner method."""

    def __init__(self, artefact: Artefact) -> None:
        self.artefact = artefact

    def run(self, inputs: Arrays) -> Arrays:
        """See :class:`Session`; checks the inputs, then calls :meth:`_run`."""
        import numpy as np

        from vit_deploy.errors import RunFailed

        contiguous = {}
        for spec in self.artefact.spec.inputs:
            if spec.name not in inputs:
                raise RunFailed(
                    f"input {spec.name!r} is missing; given: {sorted(inputs)}", expected="every input"
                )
            array = inputs[spec.name]
            fits = len(array.shape) == len(spec.shape) and all(
                isinstance(want, str) or have == want
                for have, want in zip(array.shape, spec.shape, strict=True)
            )
            if not fits or array.dtype.name != spec.dtype:
                raise RunFailed(
                    f"input {spec.name!r} is {array.dtype.name} of shape {array.shape}",
                    expected=f"{spec.dtype} of shape {spec.shape}",
                )
            contiguous[spec.name] = np.ascontiguousarray(array)
        self._check_size(contiguous)
        return self._run(contiguous)

    def _check_size(self, inputs: Arrays) -> None:
        """Refuse an image size that patches do not divide: a graph would cut the rest off without a word."""
        from vit_deploy.errors import RunFailed
        from vit_deploy.spec import HEIGHT, WIDTH, size_text

        spec = self.artefact.spec
        free = spec.free_of({name: array.shape for name, array in inputs.items()})
        if spec.sizes is None or HEIGHT not in free:
            return
        size = (free[HEIGHT], free[WIDTH])
        if not spec.sizes.fits(size):
            raise RunFailed(
                f"{self.artefact.name} was given images of {size_text(size)} pixels",
                expected=f"heights and widths that are multiples of {spec.sizes.step}, and at least one patch",
            )

    @abstractmethod
    def _run(self, inputs: Arrays) -> Arrays:
        """Infer; the inputs are complete, contiguous and of the right dtype and shape."""

    def close(self) -> None:  # noqa: B027 - most sessions hold nothing
        """Release what the backend holds; nothing, unless a session says otherwise."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def recorded_options(options: Any) -> dict[str, Any]:
    """The values of an ``Options`` instance that a manifest records."""
    return {
        entry.name: getattr(options, entry.name)
        for entry in fields(options)
        if entry.metadata.get("recorded", True)
    }


def option_fields(options: type) -> dict[str, Any]:
    """The fields of an ``Options`` dataclass by name, with what :func:`option` said of them."""
    return {entry.name: entry for entry in fields(options)}
