"""TensorRT engines, built from the ONNX artefact by either flavour of TensorRT.

The network is strongly typed, so the engine computes in the types that the ONNX graph says; the
batch range becomes one optimisation profile of minimum, optimum and maximum shapes, under
trtexec's names.

Limits: TensorRT-RTX 1.7 gives equal bytes for equal input where the model has one output; several
it writes in an order that differs from build to build, and into the first build after one that
failed in the same process it carries some kernels over. The data-centre flavour chooses kernels by
timing them, so its engines differ too, unless a ``--timing-cache`` is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from vit_deploy.errors import ExportFailed, OutputFailed, UsageFailed
from vit_deploy.exporters._tensorrt_build import (
    TensorRTOptions,
    build_plan,
    cancelled,
    check_options,
    configure,
    load_timing_cache,
    save_timing_cache,
)
from vit_deploy.exporters._tensorrt_network import (
    check_network,
    describe_network,
    mark_attention,
    parse_network,
)
from vit_deploy.protocols import ExportedFiles
from vit_deploy.spec import PRECISIONS
from vit_deploy.tensorrt_flavours import (
    FLAVOURS,
    best_availability,
    choose_flavour,
    logger_of,
    plan_header,
)

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.facts import Availability
    from vit_deploy.protocols import Artefact, Progress
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.tensorrt_flavours import Flavour
    from vit_deploy.weights.imported import Model

PLAN_NAME = "model.plan"
"""The file's name: the one that Triton Inference Server expects of a plan."""


class TensorRTExporter:
    """Builds engines with ``tensorrt`` or ``tensorrt_rtx``."""

    format: ClassVar[str] = "tensorrt"
    description: ClassVar[str] = "TensorRT engine, for one range of NVIDIA GPUs and one version of TensorRT"
    Options: ClassVar[type] = TensorRTOptions
    precisions: ClassVar[frozenset[Precision]] = frozenset(PRECISIONS)
    needs: ClassVar[str] = "onnx"

    def available(self) -> Availability:
        """See :class:`vit_deploy.protocols.Exporter`."""
        return best_availability([flavour.can_build() for flavour in FLAVOURS.values()])

    def export(
        self,
        model: Model,
        spec: IOSpec,
        options: TensorRTOptions,
        staging: Path,
        progress: Progress,
        source: Artefact | None = None,
        precision: Precision = "fp32",  # noqa: ARG002 - it is that of the source, whose graph carries it
    ) -> ExportedFiles:
        """See :class:`vit_deploy.protocols.Exporter`; ``source`` is the accepted ONNX artefact.

        Raises:
            BackendMissing: when the flavour cannot build here.
            UsageFailed: for a flag that the flavour does not have.
        """
        if source is None:
            raise ExportFailed(
                "a TensorRT engine is built from an ONNX artefact, and none was given",
                next_command="vit-deploy export --format onnx,tensorrt",
            )
        spec = as_in(spec, source.spec)
        _refuse_float64(model, spec)
        flavour = choose_flavour(options.flavour)
        check_options(flavour, options)
        if progress.cancelled:
            raise cancelled()
        trt = flavour.load()
        facts, plan = _build(trt, flavour, source, spec, options, progress)
        progress.phase("Writing the engine")
        path = staging / PLAN_NAME
        try:
            path.write_bytes(plan)
        except OSError as error:
            raise OutputFailed(
                f"the engine of {plan.nbytes} bytes cannot be written: {error.strerror}",
                next_command="free some space, or choose another folder with -o",
            ) from error
        facts["plan"] = plan_header(path)
        return ExportedFiles(
            files=(PLAN_NAME,), spec=spec, facts=facts, tools={flavour.module: str(trt.__version__)}
        )


def as_in(spec: IOSpec, built: IOSpec) -> IOSpec:
    """The spec with the dtypes of another one of the same tensors: an ONNX artefact's are an option.

    Args:
        spec: whose shapes are wanted.
        built: whose dtypes are; of a tensor that it does not have, the dtype stays.
    """
    dtypes = {entry.name: entry.dtype for entry in (*built.inputs, *built.outputs)}
    inputs, outputs = (
        tuple(replace(entry, dtype=dtypes.get(entry.name, entry.dtype)) for entry in entries)
        for entries in (spec.inputs, spec.outputs)
    )
    return replace(spec, inputs=inputs, outputs=outputs)


def _refuse_float64(model: Model, spec: IOSpec) -> None:
    """TensorRT computes float64 as float32 without a word, and a size that is off by one is another picture.

    Raises:
        UsageFailed: for pictures whose resize needs it.
    """
    from vit_deploy.model.contract import resizes_in_float64

    if spec.contract == "image" and resizes_in_float64(model.known_preprocessing):
        raise UsageFailed(
            f"this model's pictures are resized with {model.known_preprocessing.resize!r} and "
            f"{model.known_preprocessing.interpolation!r}, which takes float64, and TensorRT has none",
            expected="--input uint8 or --input pixel_values for TensorRT",
            next_command="vit-deploy export --format onnx,tensorrt --input uint8, and resize with Pillow",
        )


def _build(
    trt: Any, flavour: Flavour, source: Artefact, spec: IOSpec, options: TensorRTOptions, progress: Progress
) -> tuple[dict[str, Any], Any]:
    """The facts of an engine, and its plan as a memory view."""
    logger, messages = logger_of(flavour)
    messages.clear()
    progress.phase("Reading the ONNX graph into TensorRT")
    builder = trt.Builder(logger)
    network, parser = parse_network(trt, builder, logger, messages, source.path)
    described = describe_network(network)
    check_network(described, spec, source.precision)
    attention = mark_attention(trt, network)
    config, settings = configure(trt, builder, flavour, spec, options)
    load_timing_cache(trt, config, options.timing_cache)
    plan = build_plan(trt, builder, network, config, messages, progress)
    save_timing_cache(config, options.timing_cache)
    facts = {
        "flavour": flavour.name,
        "version": str(trt.__version__),
        **described,
        "attention": attention,
        **settings,
        "engine_bytes": int(plan.nbytes),
        "warnings": sorted(messages.warnings),
    }
    del parser  # it owns the network's weights, so it had to outlive the build
    return facts, memoryview(plan)


EXPORTER = TensorRTExporter()
