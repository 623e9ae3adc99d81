"""TensorRT engines of either flavour on an NVIDIA GPU.

An engine runs on the version that built it and on the GPUs it was built for; both stand in the
artefact's facts and are compared before the engine is read. A plan is executable content: it is
opened only from a bundle, which has checked its hash by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vit_deploy.errors import BackendMissing, UsageFailed
from vit_deploy.facts import Availability, Device
from vit_deploy.runtimes._tensorrt_session import REBUILD, TensorRTSession, flavour_of
from vit_deploy.runtimes.eager import cuda_availability
from vit_deploy.tensorrt_flavours import (
    FLAVOURS,
    GPU_MEND,
    best_availability,
    check_plan,
    check_version,
    find_gpus,
)

if TYPE_CHECKING:
    from vit_deploy.protocols import Artefact, SessionOptions


class TensorRTRuntime:
    """Runs engines with the flavour that built them."""

    name: ClassVar[str] = "tensorrt"
    description: ClassVar[str] = "TensorRT or TensorRT-RTX, on an NVIDIA GPU"
    formats: ClassVar[frozenset[str]] = frozenset({"tensorrt"})
    cuda_graphs: ClassVar[bool] = True

    def available(self, device: Device | None = None) -> Availability:
        """See :class:`vit_deploy.protocols.Runtime`."""
        installed = best_availability([flavour.installed() for flavour in FLAVOURS.values()])
        return _gpu_availability(device, installed.version) if installed.ok else installed

    def devices(self) -> tuple[Device, ...]:
        """See :class:`vit_deploy.protocols.Runtime`."""
        if not self.available().ok:
            return ()
        return tuple(Device("cuda", index) for index in range(len(find_gpus().capabilities)))

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> TensorRTSession:
        """See :class:`vit_deploy.protocols.Runtime`.

        Raises:
            BackendMissing: when the flavour, its version, or a GPU that the engine was built for is missing.
            UsageFailed: for CPU threads, which it has no use for, and for an engine without optimisations.
        """
        if not options.optimise:
            raise UsageFailed(
                "a TensorRT engine cannot be run without TensorRT's optimisations: it is what they made",
                expected="another backend for the ONNX graph that it was built from",
                next_command="run the ONNX artefact with --backend onnxruntime",
            )
        found = self.available(device)
        if not found.ok:
            raise BackendMissing(f"{artefact.name} cannot run here: {found.reason}", next_command=found.mend)
        flavour = flavour_of(artefact)
        trt = flavour.load()
        if options.threads is not None:
            raise UsageFailed(
                f"{flavour.title} computes on the GPU and has no use for {options.threads} CPU threads",
                next_command="leave --threads out for this backend",
            )
        check_version(
            flavour,
            str(trt.__version__),
            str(artefact.facts.get("version")),
            later_is_fine=bool(artefact.facts.get("version_compatible")),
        )
        _check_gpu(artefact, find_gpus().capabilities[device.index])
        check_plan(artefact.path, dict(artefact.facts.get("plan", {})))
        return TensorRTSession(trt, artefact, device, options)


def _gpu_availability(device: Device | None, version: str) -> Availability:
    """Whether there is a GPU, and a PyTorch that reaches it."""
    gpus = find_gpus()
    if not gpus.capabilities:
        return Availability.no(gpus.reason, GPU_MEND, version)
    if device is not None and device.kind != "cuda":
        return Availability.no(
            f"TensorRT runs on NVIDIA GPUs, and the device is {device}", "add --device cuda", version
        )
    if device is not None and device.index >= len(gpus.capabilities):
        return Availability.no(
            f"there is no {device}: the driver shows {len(gpus.capabilities)} GPU(s)",
            "add --device cuda:0",
            version,
        )
    torch = cuda_availability()
    return (
        Availability.yes(version)
        if torch.ok
        else Availability.no(
            f"the buffers are PyTorch's, and {torch.reason}", "pip install torch, a CUDA build of it", version
        )
    )


def _check_gpu(artefact: Artefact, capability: str) -> None:
    """Refuse a GPU that the engine was not built for, as far as its facts can tell."""
    facts = artefact.facts
    built_for = [str(name) for name in facts.get("compute_capabilities", [])]
    carries_on = facts.get("hardware_compatibility", "none") != "none"
    # The package's own range, and compatible engines, are for TensorRT itself to judge.
    if carries_on or built_for == ["default"] or capability in built_for:
        return
    raise BackendMissing(
        f"{artefact.name} was built for compute capability {', '.join(built_for)}; this GPU has {capability}",
        expected=f"an engine for {capability}",
        next_command=REBUILD,
    )


RUNTIME = TensorRTRuntime()
