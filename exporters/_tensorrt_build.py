"""From a TensorRT network to a plan: builder settings, the timing cache, and progress.

``trt`` is the module of either flavour throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ExportFailed, OutputFailed, UsageFailed, unknown_name
from vit_deploy.exporters._tensorrt_progress import BuildProgress, progress_monitor
from vit_deploy.protocols import option
from vit_deploy.tensorrt_flavours import find_gpus

if TYPE_CHECKING:
    from vit_deploy.protocols import Progress
    from vit_deploy.spec import IOSpec
    from vit_deploy.tensorrt_flavours import Flavour, Messages

HARDWARE_LEVELS = {"none": "NONE", "ampere+": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}


@dataclass(frozen=True)
class TensorRTOptions:
    """How an engine is built. Precision is no option: it is what the ONNX graph says."""

    flavour: str = option(
        "auto",
        help="the package that builds: tensorrt (data centre, needs the GPU) or rtx (PCs, needs none)",
        choices=("auto", "tensorrt", "rtx"),
        flag="--trt-flavour",
    )
    compute_capabilities: str = option(
        "",
        help="rtx: the GPUs to build for, such as 8.9,12.0, or 'current'; the package's own range if not given",
        flag="--trt-compute-capabilities",
    )
    workspace: int = option(
        0, help="scratch memory in MiB that kernels may use; no limit if 0", flag="--trt-workspace"
    )
    timing_cache: str = option(
        "",
        help="tensorrt: a file that keeps kernel timings between builds",
        flag="--timing-cache",
        recorded=False,
    )
    version_compatible: bool = option(
        False, help="tensorrt: the engine also runs on later versions", flag="--trt-version-compatible"
    )
    hardware_compatibility: str = option(
        "none",
        help="tensorrt: the engine also runs on other GPUs",
        choices=tuple(HARDWARE_LEVELS),
        flag="--trt-hardware-compatibility",
    )


def check_options(flavour: Flavour, options: TensorRTOptions) -> None:
    """Refuse the flags that a flavour cannot honour.

    Raises:
        UsageFailed: naming the flag and the flavour that has it.
    """
    refused = {
        "--timing-cache": bool(options.timing_cache) and not flavour.keeps_timing_cache,
        "--trt-version-compatible": options.version_compatible and not flavour.carries_on,
        "--trt-hardware-compatibility": options.hardware_compatibility != "none" and not flavour.carries_on,
        "--trt-compute-capabilities": bool(options.compute_capabilities)
        and not flavour.picks_compute_capabilities,
    }
    other = "tensorrt" if flavour.name == "rtx" else "rtx"
    for flag, is_refused in refused.items():
        if is_refused:
            raise UsageFailed(
                f"{flavour.title} has nothing like {flag}",
                expected=f"{flag} with --trt-flavour {other} only",
                next_command=f"leave {flag} out, or add --trt-flavour {other}",
            )
    if options.workspace < 0:
        raise UsageFailed(f"--trt-workspace is {options.workspace} MiB", expected="0 (no limit) or more")
    if options.hardware_compatibility not in HARDWARE_LEVELS:
        raise unknown_name("hardware compatibility", options.hardware_compatibility, HARDWARE_LEVELS)


def configure(
    trt: Any, builder: Any, flavour: Flavour, spec: IOSpec, options: TensorRTOptions
) -> tuple[Any, dict[str, Any]]:
    """The builder's settings, and those of them that the manifest should record.

    Raises:
        UsageFailed: for compute capabilities that TensorRT does not know.
    """
    config = builder.create_builder_config()
    # TF32 is on unless cleared, and fp32 means fp32: the graph says the precision, not the builder.
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace << 20)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatibility != "none":
        level = HARDWARE_LEVELS[options.hardware_compatibility]
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    capabilities = _set_capabilities(trt, config, flavour, options.compute_capabilities)
    profile = _add_profile(builder, config, spec)
    return config, {
        "compute_capabilities": capabilities,
        "profile": profile,
        "tf32": bool(config.get_flag(trt.BuilderFlag.TF32)),
        "version_compatible": options.version_compatible,
        "hardware_compatibility": options.hardware_compatibility,
    }


def _set_capabilities(trt: Any, config: Any, flavour: Flavour, wanted: str) -> list[str]:
    """Set the GPUs to build for; gives them back as ``["8.9"]``, or ``["default"]``."""
    if not flavour.picks_compute_capabilities:
        return list(find_gpus().capabilities[:1])
    if not wanted:
        return ["default"]
    names = sorted({part.strip().lower() for part in wanted.split(",") if part.strip()})
    known = {
        f"{name[2:-1]}.{name[-1]}": name for name in trt.ComputeCapability.__members__ if name.startswith("SM")
    }
    if names == ["current"]:
        if not find_gpus().capabilities:
            raise UsageFailed(
                f"--trt-compute-capabilities current: {find_gpus().reason}",
                expected=f"one or more of {', '.join(known)}",
                next_command="leave the flag out, to build for the package's own range of GPUs",
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
        return list(find_gpus().capabilities[:1])
    for name in names:
        if name not in known:
            raise unknown_name("compute capability", name, [*known, "current"], "vit-deploy export --help")
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(getattr(trt.ComputeCapability, known[name]), index)
    return names


def _add_profile(builder: Any, config: Any, spec: IOSpec) -> dict[str, list[list[int]]]:
    """Add the one optimisation profile; gives back min, opt and max shapes by input."""
    profile = builder.create_optimization_profile()
    batch, sizes = spec.batch, spec.sizes
    least = spec.free_at(batch.minimum, sizes.minimum if sizes else None)
    usual = spec.free_at(batch.optimum, sizes.optimum if sizes else None)
    most = spec.free_at(batch.maximum, sizes.maximum if sizes else None)
    shapes = {}
    for tensor in spec.inputs:
        low, best, high = (tensor.at(free) for free in (least, usual, most))
        profile.set_shape(tensor.name, low, best, high)
        shapes[tensor.name] = [list(low), list(best), list(high)]
    config.add_optimization_profile(profile)
    return shapes


def build_plan(
    trt: Any, builder: Any, network: Any, config: Any, messages: Messages, progress: Progress
) -> Any:
    """Build; the plan is in host memory and has the buffer interface.

    Raises:
        ExportFailed: when TensorRT cannot, with its own words, or when the user cancelled.
    """
    reporter = BuildProgress(progress)
    config.progress_monitor = monitor = progress_monitor(trt, reporter)
    plan = builder.build_serialized_network(network, config)
    del monitor  # named, so that it outlives the build: TensorRT keeps only a plain pointer
    if reporter.interruption is not None:
        raise reporter.interruption
    if reporter.was_cancelled or progress.cancelled:
        raise cancelled()
    if plan is None:
        raise ExportFailed(
            f"TensorRT could not build the engine: {messages.reason()}",
            expected="a network that it has kernels for",
            next_command="export again at another --opset (17 spells attention out), "
            "or with other --trt-compute-capabilities",
        )
    return plan


def cancelled() -> ExportFailed:
    """The error for a build that the user stopped."""
    return ExportFailed("the TensorRT build was cancelled", next_command="run the same command again")


def load_timing_cache(trt: Any, config: Any, path: str) -> None:
    """Start from the timings in a file, or from none where it is not there yet.

    The cache is made editable, which also makes repeated builds choose the same kernels.

    Raises:
        UsageFailed: when the file is not a timing cache for this GPU and this version.
    """
    if not path:
        return
    try:
        stored = Path(path).read_bytes() if Path(path).exists() else b""
    except OSError as error:
        raise UsageFailed(f"the timing cache {path} cannot be read: {error.strerror}") from error
    config.set_flag(trt.BuilderFlag.EDITABLE_TIMING_CACHE)
    cache = config.create_timing_cache(stored)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise UsageFailed(
            f"TensorRT refused the timing cache {path}",
            expected="a cache that this version wrote on a GPU of this kind",
            next_command=f"name another file with --timing-cache, or delete {path}",
        )


def save_timing_cache(config: Any, path: str) -> None:
    """Keep the timings for the next build; the file is replaced in one step.

    Raises:
        OutputFailed: when it cannot be written.
    """
    if not path:
        return
    target = Path(path)
    staged = target.with_name(f"{target.name}.part")
    try:
        staged.write_bytes(memoryview(config.get_timing_cache().serialize()))
        staged.replace(target)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise OutputFailed(
            f"the timing cache {path} cannot be written: {error.strerror}",
            next_command="name a file in a folder that can be written with --timing-cache",
        ) from error
