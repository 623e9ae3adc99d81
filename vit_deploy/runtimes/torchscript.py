"""TorchScript archives, opened by ``torch.jit.load`` on a CPU or a CUDA device.

An archive is code: it is opened only from a bundle, which has checked its hash by then.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from vit_deploy.errors import BackendMissing, RunFailed
from vit_deploy.facts import Availability, Device, RuntimeFacts
from vit_deploy.model.precision import eager_dtype
from vit_deploy.runtimes._torchscript_layers import ATTENTION, SOFTMAX, count_layers, is_masked
from vit_deploy.runtimes.eager import (
    TorchSession,
    cuda_availability,
    refuse_cuda_graph,
    require_device,
    sdpa_is_fused,
    set_threads,
)

if TYPE_CHECKING:
    from vit_deploy.protocols import Artefact, SessionOptions

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


class TorchScriptRuntime:
    """The TorchScript interpreter inside PyTorch."""

    name: ClassVar[str] = "torchscript"
    description: ClassVar[str] = "PyTorch's TorchScript interpreter (legacy: deprecated by PyTorch)"
    formats: ClassVar[frozenset[str]] = frozenset({"torchscript"})
    cuda_graphs: ClassVar[bool] = False

    def available(self, device: Device | None = None) -> Availability:
        """See :class:`vit_deploy.protocols.Runtime`."""
        import torch

        if sys.version_info >= (3, 14):
            return Availability.no(
                "PyTorch does not support TorchScript on Python 3.14 and later",
                "vit-deploy export --format onnx, or Python 3.13 or earlier",
                torch.__version__,
            )
        return cuda_availability() if device and device.kind == "cuda" else Availability.yes(torch.__version__)

    def devices(self) -> tuple[Device, ...]:
        """See :class:`vit_deploy.protocols.Runtime`."""
        if not self.available().ok:
            return ()
        return (Device("cuda"), Device("cpu")) if cuda_availability().ok else (Device("cpu"),)

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> TorchSession:
        """See :class:`vit_deploy.protocols.Runtime`."""
        import torch

        found = self.available()
        if not found.ok:
            raise BackendMissing(found.reason, next_command=found.mend)
        require_device(device)
        refuse_cuda_graph(self.name, options)
        threads = set_threads(options, device)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
                module = torch.jit.load(str(artefact.path), map_location=str(device))  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise RunFailed(
                f"TorchScript refuses {artefact.path.name}: {error}",
                expected="an archive that `vit-deploy export --format torchscript` wrote",
                next_command="vit-deploy export --format torchscript",
            ) from error
        facts = replace(_facts(module, artefact, device, threads), streams=options.streams)
        call = module if options.optimise else functools.partial(_run_as_written, module)
        return TorchSession(artefact, call, device, facts)


def _run_as_written(module: Any, *tensors: Any) -> Any:
    """Interpret the graph of the archive as it is: the executor's rewrites are chosen call by call."""
    import torch

    with torch.jit.optimized_execution(should_optimize=False):  # type: ignore[attr-defined]
        return module(*tensors)


def _facts(module: Any, artefact: Artefact, device: Device, threads: int) -> RuntimeFacts:
    """What the loaded graph says of itself; the frozen graph's constants are the weights."""
    import torch

    nodes = list(module.graph.nodes())
    tensors = [
        node.t("value")
        for node in nodes
        if node.kind() == "prim::Constant" and node.output().type().kind() == "TensorType"
    ]
    # A number in the code (1.702 of the quick GELU) is a scalar in double precision, and no weight; so are
    # the whole numbers that tables are looked up by.
    tensors = [tensor for tensor in tensors if tensor.ndim and tensor.dtype.is_floating_point]
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors)
    precisions = {_PRECISIONS.get(dtype) for dtype in dtypes}
    # A module without weights computes in the dtype of its inputs.
    if dtypes and precisions != {artefact.precision}:
        raise RunFailed(
            f"{artefact.name} holds constants of {', '.join(sorted(dtypes))}",
            expected=f"{artefact.precision} throughout, as the manifest declares",
            next_command="vit-deploy export --format torchscript",
        )
    placement = Counter(str(tensor.device) for tensor in tensors)
    if placement and set(placement) != {str(device)}:
        raise RunFailed(
            f"{artefact.name} has weights on {', '.join(sorted(placement))}", expected=f"all on {device}"
        )
    on_cuda = device.kind == "cuda"
    dtype = eager_dtype(artefact.precision)
    # As the session feeds it: 8-bit pictures as they are, all else in the declared precision.
    given = [torch.uint8 if spec.dtype == "uint8" else dtype for spec in artefact.spec.inputs]
    return RuntimeFacts(
        backend="torchscript",
        version=torch.__version__,
        device=str(device),
        precision=artefact.precision,
        threads=None if on_cuda else threads,
        placement=dict(placement),
        tf32=torch.backends.cuda.matmul.allow_tf32 if on_cuda else None,
        dtypes=count_layers(module.graph, given),
        fused_attention=_fused_attention(module.graph, artefact, device),
        details={
            "attention": sum(node.kind() == ATTENTION for node in nodes),
            "nodes": len(nodes),
        },
    )


def _fused_attention(graph: Any, artefact: Artefact, device: Device) -> dict[str, int] | None:
    """The attentions that are one operator and for which PyTorch has a fused kernel, of all there are."""
    from vit_deploy.graph.expected import expected_attentions
    from vit_deploy.model.config import ViTConfig

    kinds = Counter(node.kind() for node in graph.nodes())
    of = expected_attentions(artefact.config, artefact.spec)
    of = kinds[ATTENTION] + kinds[SOFTMAX] if of is None else of
    if not kinds[ATTENTION]:
        return {"fused": 0, "of": of}
    if not isinstance(artefact.config, ViTConfig):
        return None  # what kernel is taken depends on the size of its heads
    dtype = eager_dtype(artefact.precision)
    fused = sdpa_is_fused(artefact.config.head_dim, dtype, device, masked=is_masked(graph))
    return None if fused is None else {"fused": kinds[ATTENTION] if fused else 0, "of": of}


RUNTIME = TorchScriptRuntime()
