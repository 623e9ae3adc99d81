"""TorchScript: the model traced, frozen and saved. A legacy format, which PyTorch has deprecated.

It is for those who still serve with ``torch.jit.load`` or libtorch. PyTorch does not support it on
Python 3.14 and later. An archive is code: open one only from a bundle that you trust.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections import Counter
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from vit_deploy.errors import BackendMissing, ExportFailed, OutputFailed
from vit_deploy.exporters._torchscript_archive import rewrite_archive
from vit_deploy.facts import Availability
from vit_deploy.protocols import ExportedFiles, NoOptions
from vit_deploy.registry import formats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

    from vit_deploy.protocols import Artefact, Progress
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model

ARCHIVE_NAME = "model.pt"
"""The file's name: the one that Triton Inference Server expects of a TorchScript model."""


class TorchScriptExporter:
    """Traces the export layout, freezes it and writes a reproducible archive."""

    format: ClassVar[str] = "torchscript"
    description: ClassVar[str] = "TorchScript, traced and frozen (legacy: deprecated by PyTorch)"
    Options: ClassVar[type] = NoOptions
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32"})
    needs: ClassVar[str] = ""

    def available(self) -> Availability:
        """See :class:`vit_deploy.protocols.Exporter`."""
        version = metadata.version("torch")
        if sys.version_info >= (3, 14):
            successor = "pt2" if "pt2" in formats() else "onnx"
            return Availability.no(
                "PyTorch does not support TorchScript on Python 3.14 and later",
                f"vit-deploy export --format {successor}, or Python 3.13 or earlier",
                version,
            )
        return Availability.yes(version)

    def export(
        self,
        model: Model,
        spec: IOSpec,
        options: NoOptions,  # noqa: ARG002 - there are none
        staging: Path,
        progress: Progress,
        source: Artefact | None = None,  # noqa: ARG002 - it is built from the model itself
        precision: Precision = "fp32",  # noqa: ARG002 - see there
    ) -> ExportedFiles:
        """See :class:`vit_deploy.protocols.Exporter`.

        Raises:
            BackendMissing: on a Python that TorchScript does not support.
        """
        import torch

        found = self.available()
        if not found.ok:
            raise BackendMissing(found.reason, next_command=found.mend)
        _begin(progress, "Reading the weights")
        twin = model.loaded(spec)
        _begin(progress, "Tracing")
        frozen = trace_and_freeze(twin, spec)
        del twin
        _begin(progress, "Writing the TorchScript archive")
        path = staging / ARCHIVE_NAME
        _save(frozen, path)
        return ExportedFiles(
            files=(ARCHIVE_NAME,),
            spec=spec,
            facts=_facts(frozen),
            tools={"torch": torch.__version__},
        )


def _begin(progress: Progress, phase: str) -> None:
    if progress.cancelled:
        raise ExportFailed("the TorchScript export was cancelled", next_command="run the same command again")
    progress.phase(phase)


@contextlib.contextmanager
def quiet_deprecation() -> Iterator[None]:
    """Hold back PyTorch's word that TorchScript is deprecated: the format's description says it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
        yield


def trace_and_freeze(model: torch.nn.Module, spec: IOSpec) -> Any:
    """The frozen TorchScript module of a model in evaluation mode.

    Whether it equals eager PyTorch at every batch size is for the parity check to say; here, what
    the tracer itself warns of (a Python value taken from a tensor) is refused.

    Raises:
        ExportFailed: when the model cannot be traced, or the trace would bake a value in.
    """
    import torch

    from vit_deploy.graph.capture import example_shapes

    examples = tuple(
        torch.zeros(shape, dtype=getattr(torch, tensor.dtype))
        for tensor, shape in zip(spec.inputs, example_shapes(spec), strict=True)
    )
    # The trace writes these settings into each convolution; fp32 means fp32, so no TF32.
    settings = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False)
    baked: list[str] = []
    try:
        with _collected_tracer_warnings(baked), settings, torch.no_grad():
            traced = torch.jit.trace(model, examples, check_trace=False)  # type: ignore[no-untyped-call]
            frozen = torch.jit.freeze(traced)
    except RuntimeError as error:
        raise _untraceable(str(error)) from error
    if baked:
        raise _untraceable("; ".join(baked))
    return frozen


def _untraceable(reason: str) -> ExportFailed:
    return ExportFailed(
        f"the model cannot be traced: {reason}",
        expected="a forward pass without Python values taken from tensors",
        next_command="vit-deploy export --format onnx",
    )


@contextlib.contextmanager
def _collected_tracer_warnings(baked: list[str]) -> Iterator[None]:
    """Gather what the tracer warns of; other warnings go on their way, but for the deprecation.

    They cannot be made errors: they are issued from C++, which turns that into a SystemError.
    """
    import torch

    tracer_warning: type[Warning] = torch.jit.TracerWarning  # type: ignore[attr-defined]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    with quiet_deprecation():
        for entry in caught:
            if issubclass(entry.category, tracer_warning):
                baked.append(str(entry.message).partition("\n")[0])
            else:
                warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)


def _save(frozen: Any, path: Path) -> None:
    import torch

    raw = path.with_name(f"raw-{path.name}")
    try:
        with quiet_deprecation():
            torch.jit.save(frozen, str(raw))
        rewrite_archive(raw, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise OutputFailed(
            f"the TorchScript archive cannot be written: {error}",
            next_command="free some space, or choose another folder with -o",
        ) from error
    finally:
        raw.unlink(missing_ok=True)


def _facts(frozen: Any) -> dict[str, Any]:
    """Node counts by operator, and the constants (the weights) by dtype, read from the frozen graph."""
    operators: Counter[str] = Counter()
    constants: Counter[str] = Counter()
    for node in frozen.graph.nodes():
        if node.kind() != "prim::Constant":
            operators[node.kind()] += 1
        elif node.output().type().kind() == "TensorType":
            constants[str(node.t("value").dtype).removeprefix("torch.")] += 1
    return {"operators": dict(sorted(operators.items())), "constants": dict(sorted(constants.items()))}


EXPORTER = TorchScriptExporter()
