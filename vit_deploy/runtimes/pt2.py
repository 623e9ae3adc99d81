"""AOTInductor packages, opened by PyTorch on the kind of processor or GPU that they were compiled for.

A package is machine code: it is opened only from a bundle, which has checked its hash by then, and only where
the manifest says that it was compiled for what is here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from vit_deploy.errors import BackendMissing, RunFailed, UsageFailed
from vit_deploy.facts import Availability, Device, RuntimeFacts
from vit_deploy.pt2_target import Target, check_target, supported
from vit_deploy.runtimes._pt2_package import REBUILD, Package, code_in_memory, read_package
from vit_deploy.runtimes.eager import (
    TorchSession,
    cuda_availability,
    refuse_cuda_graph,
    require_device,
    set_threads,
)

if TYPE_CHECKING:
    import torch

    from vit_deploy.protocols import Arrays, Artefact, SessionOptions

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_FUSED = (
    "scaled_dot_product_flash_attention",
    "scaled_dot_product_efficient_attention",
    "scaled_dot_product_cudnn_attention",
    "scaled_dot_product_fused_attention_overrideable",
)
"""PyTorch's attentions that are one kernel, as they are called in compiled code."""


class Pt2Session(TorchSession):
    """A package that is loaded; it takes and gives what its spec says, whatever it computes in."""

    def _tensors(self, inputs: Arrays) -> tuple[torch.Tensor, ...]:
        import torch

        given = (torch.from_numpy(inputs[spec.name]) for spec in self.artefact.spec.inputs)
        return tuple(tensor.to(str(self.device)) for tensor in given)

    def close(self) -> None:
        """Release the code and its weights."""
        self.module = None


class Pt2Runtime:
    """See the module."""

    name: ClassVar[str] = "pt2"
    description: ClassVar[str] = "PyTorch's compiled packages (AOTInductor)"
    formats: ClassVar[frozenset[str]] = frozenset({"pt2"})
    cuda_graphs: ClassVar[bool] = False

    def available(self, device: Device | None = None) -> Availability:
        """See :class:`vit_deploy.protocols.Runtime`."""
        found = supported()
        return found if not found.ok or device is None or device.kind == "cpu" else cuda_availability()

    def devices(self) -> tuple[Device, ...]:
        """See :class:`vit_deploy.protocols.Runtime`."""
        if not self.available().ok:
            return ()
        return (Device("cuda"), Device("cpu")) if cuda_availability().ok else (Device("cpu"),)

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> Pt2Session:
        """See :class:`vit_deploy.protocols.Runtime`.

        Raises:
            BackendMissing: on another machine, or with another version of PyTorch, than it was compiled for.
            UsageFailed: for another kind of device, a CUDA graph, or a package without its optimisations.
            RunFailed: for what is no package, or is none of the declared precision.
        """
        found = self.available()
        if not found.ok:
            raise BackendMissing(found.reason, next_command=found.mend)
        require_device(device)
        refuse_cuda_graph(self.name, options)
        _refuse(options)
        target = Target.from_facts(artefact.facts, artefact.name)
        _check_device(target, device, artefact.name)
        check_target(target, artefact.name)
        package = read_package(artefact.path)
        threads = set_threads(options, device)
        runner = _load(package, device, options.streams)
        facts = _facts(runner, package, artefact, device, threads)
        return Pt2Session(artefact, _caller(runner), device, replace(facts, streams=options.streams))


def _refuse(options: SessionOptions) -> None:
    if not options.optimise:
        raise UsageFailed(
            "a compiled package cannot be run without its optimisations: they are what it is made of",
            expected="the same model in a format that is a graph",
            next_command="run the ONNX artefact with --backend onnxruntime",
        )


def _check_device(target: Target, device: Device, name: str) -> None:
    if target.device != device.kind:
        raise UsageFailed(
            f"{name} was compiled for the device {target.device}, and is to run on {device}",
            expected=f"--device {target.device}",
            next_command=f"add --device {target.device}, or {REBUILD} --compile-for {device.kind}",
        )


def _load(package: Package, device: Device, streams: int) -> Any:
    """The loaded code, with a place for each inference that may run at the same time."""
    import torch

    made: Any = torch._C._aoti
    try:
        with code_in_memory(package) as path:
            if device.kind == "cuda":
                return made.AOTIModelContainerRunnerCuda(path, streams, str(device))
            return made.AOTIModelContainerRunnerCpu(path, streams)
    except RuntimeError as error:
        raise RunFailed(
            f"PyTorch refuses {package.path.name}: {str(error).splitlines()[0]}",
            expected="a package that was compiled here, or on a machine with an older or the same C library",
            next_command=REBUILD,
        ) from error


def _caller(runner: Any) -> Any:
    """A callable that takes tensors one by one."""

    def call(*tensors: torch.Tensor) -> Any:
        return runner.run(list(tensors))

    return call


def _facts(runner: Any, package: Package, artefact: Artefact, device: Device, threads: int) -> RuntimeFacts:
    """What the code says of itself, and what the manifest has of the program that it was compiled from.

    Raises:
        RunFailed: when it holds weights of another precision than is declared.
    """
    import torch

    from vit_deploy.graph.expected import expected_attentions

    dtypes = _weights(runner)
    kinds = {_PRECISIONS.get(name) for name in dtypes}
    if dtypes and kinds != {artefact.precision}:
        raise RunFailed(
            f"{artefact.name} holds weights of {', '.join(sorted(dtypes))}",
            expected=f"{artefact.precision} throughout, as the manifest declares",
            next_command=REBUILD,
        )
    fused = sum(count for name, count in package.calls.items() if name.startswith(_FUSED))
    of = expected_attentions(artefact.config, artefact.spec)
    on_cuda = device.kind == "cuda"
    return RuntimeFacts(
        backend="pt2",
        version=torch.__version__,
        device=str(device),
        precision=artefact.precision,
        threads=None if on_cuda else threads,
        placement={str(device): sum(dtypes.values())},
        tf32=torch.backends.cuda.matmul.allow_tf32 if on_cuda else None,
        dtypes=artefact.facts.get("layers", {}),
        fused_attention=None if of is None else {"fused": min(fused, of), "of": of},
        details={"calls": dict(sorted(package.calls.items())), "weights": dict(sorted(dtypes.items()))},
    )


def _weights(runner: Any) -> Counter[str]:
    """The floating weights that the code holds, by dtype; it is asked, not the manifest."""
    import torch

    numbers = {5: torch.float16, 6: torch.float32, 7: torch.float64, 15: torch.bfloat16}
    found = runner.get_constant_names_to_dtypes().values()
    return Counter(str(numbers[number]).removeprefix("torch.") for number in found if number in numbers)


RUNTIME = Pt2Runtime()
