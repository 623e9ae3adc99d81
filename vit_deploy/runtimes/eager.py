"""Eager PyTorch as just another runtime: the reference that every artefact is compared with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from vit_deploy.errors import BackendMissing, HostileInput, RunFailed, UsageFailed
from vit_deploy.facts import Availability, Device, RuntimeFacts
from vit_deploy.model.module_config import PREFIX, ModuleConfig
from vit_deploy.model.precision import eager_dtype
from vit_deploy.protocols import BaseSession
from vit_deploy.runtimes._streams import share_of

if TYPE_CHECKING:
    import torch

    from vit_deploy.protocols import Arrays, Artefact, SessionOptions, Step


def cuda_availability() -> Availability:
    """Whether PyTorch can reach a CUDA device here."""
    import torch

    version = torch.__version__
    if torch.cuda.is_available():
        return Availability.yes(version)
    reason = "this PyTorch is a CPU build" if torch.version.cuda is None else "PyTorch finds no CUDA device"
    return Availability.no(
        reason, "run on a machine with an NVIDIA GPU, its driver and a CUDA build of torch", version
    )


def require_device(device: Device) -> None:
    """Refuse a device that PyTorch cannot reach.

    Raises:
        BackendMissing: saying why and what mends it.
    """
    if device.kind == "cuda":
        found = cuda_availability()
        if not found.ok:
            raise BackendMissing(f"device {device} cannot be used: {found.reason}", next_command=found.mend)


def refuse_cuda_graph(backend: str, options: SessionOptions) -> None:
    """PyTorch's own runtimes are not replayed as CUDA graphs here.

    Raises:
        UsageFailed: if that was asked for.
    """
    if options.cuda_graph:
        raise UsageFailed(
            f"{backend} is not run as a CUDA graph here",
            expected="--cuda-graph with a backend that has it: onnxruntime or tensorrt",
            next_command="leave --cuda-graph out, or use --backend tensorrt",
        )


class TorchStep:
    """One inference of a torch callable on tensors that are already on the device.

    Attributes:
        results: what the last call gave.
    """

    def __init__(self, call: Any, tensors: tuple[torch.Tensor, ...], device: Device) -> None:
        self.call = call
        self.tensors = tensors
        self.device = device
        self.results: Any = None

    def __call__(self) -> None:
        """Start one inference."""
        import torch

        with torch.inference_mode():
            self.results = self.call(*self.tensors)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.kind == "cuda":
            import torch

            torch.cuda.synchronize(self.device.index)


class StreamStep(TorchStep):
    """The same on a CUDA stream of its own, so that several run side by side."""

    def __init__(self, call: Any, tensors: tuple[torch.Tensor, ...], device: Device) -> None:
        import torch

        super().__init__(call, tensors, device)
        torch.cuda.synchronize(device.index)  # the inputs were copied on another stream
        self.stream = torch.cuda.Stream(device.index)  # type: ignore[no-untyped-call]

    def __call__(self) -> None:
        """Start one inference."""
        import torch

        with torch.cuda.stream(self.stream):
            super().__call__()

    def synchronize(self) -> None:
        """Wait for the stream."""
        self.stream.synchronize()


class TorchSession(BaseSession):
    """A callable torch module opened on a device: eager, TorchScript and ``.pt2`` share it."""

    def __init__(self, artefact: Artefact, module: Any, device: Device, facts: RuntimeFacts) -> None:
        super().__init__(artefact)
        self.module = module
        self.device = device
        self.facts = facts

    def _tensors(self, inputs: Arrays) -> tuple[torch.Tensor, ...]:
        import torch

        dtype = eager_dtype(self.artefact.precision)
        given = (torch.from_numpy(inputs[spec.name]) for spec in self.artefact.spec.inputs)
        # 8-bit pictures go in as they are: the artefact makes numbers of them itself.
        return tuple(
            tensor.to(str(self.device), dtype if tensor.is_floating_point() else tensor.dtype)
            for tensor in given
        )

    def _run(self, inputs: Arrays) -> Arrays:
        import torch

        try:
            with torch.inference_mode():
                results = self.module(*self._tensors(inputs))
        except RuntimeError as error:
            raise RunFailed(f"{self.facts.backend} failed on {self.artefact.name}: {error}") from error
        tensors = results if isinstance(results, (tuple, list)) else (results,)
        names = self.artefact.spec.output_names
        if len(tensors) != len(names):
            raise RunFailed(f"{self.artefact.name} gave {len(tensors)} outputs", expected=f"{', '.join(names)}")
        if self.artefact.precision == "fp32":
            for name, tensor in zip(names, tensors, strict=True):
                if tensor.dtype != torch.float32:
                    raise RunFailed(f"output {name!r} is {tensor.dtype}", expected="torch.float32")
        return {name: tensor.float().cpu().numpy() for name, tensor in zip(names, tensors, strict=True)}

    def stage(self, inputs: Arrays) -> Step:
        """See :class:`vit_deploy.protocols.Session`."""
        own_stream = self.device.kind == "cuda" and self.facts.streams > 1
        return (StreamStep if own_stream else TorchStep)(self.module, self._tensors(inputs), self.device)


def set_threads(options: SessionOptions, device: Device) -> int:
    """Set PyTorch's intra-op threads for this process, and read back how many all streams have together.

    The number is that of each calling thread: one that is new takes it over when it first computes, and
    has its own team of OpenMP's (``lazy_init_num_threads`` in aten/src/ATen/Parallel.h).

    Raises:
        UsageFailed: when the streams cannot share the threads evenly.
    """
    import torch

    streams = options.streams if device.kind == "cpu" else 1
    if options.threads is not None or streams > 1:
        torch.set_num_threads(share_of(options.threads or torch.get_num_threads(), streams))
    return torch.get_num_threads() * streams


class EagerRuntime:
    """The model in PyTorch, as it is written for people (einops layout)."""

    name: ClassVar[str] = "eager"
    description: ClassVar[str] = "PyTorch, module by module: the reference"
    formats: ClassVar[frozenset[str]] = frozenset({"pytorch"})
    cuda_graphs: ClassVar[bool] = False

    def available(self, device: Device | None = None) -> Availability:
        """See :class:`vit_deploy.protocols.Runtime`."""
        import torch

        return cuda_availability() if device and device.kind == "cuda" else Availability.yes(torch.__version__)

    def devices(self) -> tuple[Device, ...]:
        """See :class:`vit_deploy.protocols.Runtime`."""
        return (Device("cuda"), Device("cpu")) if cuda_availability().ok else (Device("cpu"),)

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> TorchSession:
        """See :class:`vit_deploy.protocols.Runtime`; the artefact is the bundle's reference weights."""

        require_device(device)
        refuse_cuda_graph(self.name, options)
        if artefact.spec.contract != "pixel_values":
            raise RunFailed(
                f"eager PyTorch runs the reference weights, and they do not take {artefact.spec.contract!r}",
                expected="a spec with pixel_values: the preprocessing is done outside",
            )
        threads = set_threads(options, device)
        dtype = eager_dtype(artefact.precision)
        build = _module if isinstance(artefact.config, ModuleConfig) else _vit
        model = build(artefact, device, dtype)
        facts = replace(_facts(model, artefact, device, threads), streams=options.streams)
        return TorchSession(artefact, model, device, facts)


def _vit(artefact: Artefact, device: Device, dtype: torch.dtype) -> torch.nn.Module:
    """Our ViT, made for the image size that the artefact's spec has, as ``vit-deploy export`` makes it."""
    import torch

    from vit_deploy.model.vit import ViT
    from vit_deploy.weights.resize import at_size
    from vit_deploy.weights.safetensors_file import read_safetensors

    config: Any = artefact.config
    weights = read_safetensors(artefact.path)
    height, width = artefact.spec.inputs[0].shape[2:]
    if isinstance(height, int) and isinstance(width, int) and (height, width) != config.image_size:
        config, weights = at_size(config, weights, (height, width))
    with torch.device("meta"):
        model = ViT(config, outputs=artefact.spec.output_names)  # type: ignore[arg-type]
    state = {name: tensor.read().to(str(device), dtype) for name, tensor in weights.items()}
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise HostileInput(
            f"the weights {artefact.path.name!r} do not fit the bundle's config",
            expected="the config and the weights of one export",
            next_command="vit-deploy export again",
        ) from error
    return model.requires_grad_(requires_grad=False).eval()


def _module(artefact: Artefact, device: Device, dtype: torch.dtype) -> torch.nn.Module:
    """The user's own module, whose code the user has named; a manifest's word alone imports nothing."""
    from vit_deploy.weights.imported import Model
    from vit_deploy.weights.module import code_not_named, with_code
    from vit_deploy.weights.safetensors_file import read_safetensors
    from vit_deploy.weights.source import Source

    config = artefact.config
    if not artefact.code and isinstance(config, ModuleConfig):
        raise code_not_named(config)
    source = Source("module", f"{PREFIX}{artefact.code}", "")
    described = Model(config, read_safetensors(artefact.path), None, (), source)
    live = with_code(described, artefact.code)
    return live.eager(dtype=dtype, outputs=artefact.spec.output_names, device=str(device))


def _facts(model: torch.nn.Module, artefact: Artefact, device: Device, threads: int) -> RuntimeFacts:
    import torch

    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    if len(dtypes) > 1:
        raise RunFailed(f"the model holds parameters of {len(dtypes)} dtypes: {sorted(map(str, dtypes))}")
    placement: dict[str, int] = {}
    for parameter in model.parameters():
        placement[str(parameter.device)] = placement.get(str(parameter.device), 0) + 1
    on_cuda = device.kind == "cuda"
    # A module without parameters computes in the dtype of its inputs.
    dtype = dtypes.pop() if dtypes else eager_dtype(artefact.precision)
    return RuntimeFacts(
        backend="eager",
        version=torch.__version__,
        device=str(device),
        precision=names[dtype],  # type: ignore[arg-type]
        threads=None if on_cuda else threads,
        placement=placement,
        tf32=torch.backends.cuda.matmul.allow_tf32 if on_cuda else None,
        dtypes=_layers(model, artefact, names[dtype]),
        fused_attention=_fused_attention(artefact, dtype, device),
    )


def _layers(model: torch.nn.Module, artefact: Artefact, dtype: str) -> dict[str, dict[str, int]]:
    """Modules by class; all compute in the one dtype of the parameters, which inputs are cast to."""
    from torch import nn
    from torch.nn.modules import activation

    from vit_deploy.graph.expected import expected_attentions
    from vit_deploy.model.mlp import QuickGELU

    kinds: dict[str, tuple[type, ...]] = {
        "linear": (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
        "layernorm": (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm),
        "softmax": (activation.Softmax, activation.LogSoftmax),
        "activation": (activation.GELU, activation.SiLU, activation.ReLU, activation.Tanh, QuickGELU),
    }
    counted = {
        kind: sum(isinstance(module, types) for module in model.modules()) for kind, types in kinds.items()
    }
    counted["attention"] = expected_attentions(artefact.config, artefact.spec) or 0
    counted["io"] = len(artefact.spec.inputs) + len(artefact.spec.outputs)
    return {kind: {dtype: count} for kind, count in counted.items() if count}


def _fused_attention(artefact: Artefact, dtype: torch.dtype, device: Device) -> dict[str, int] | None:
    """All of a ViT's, where PyTorch has a fused kernel for them; a module's own inside is not known."""
    from vit_deploy.graph.expected import expected_attentions
    from vit_deploy.model.config import ViTConfig

    config = artefact.config
    of = expected_attentions(config, artefact.spec)
    if of is None or not isinstance(config, ViTConfig):
        return None
    fused = sdpa_is_fused(config.head_dim, dtype, device, masked=config.relative_positions != "none")
    return None if fused is None else {"fused": of if fused else 0, "of": of}


def sdpa_is_fused(head_dim: int, dtype: torch.dtype, device: Device, *, masked: bool) -> bool | None:
    """Whether ``scaled_dot_product_attention`` takes a fused kernel, as PyTorch's own choice says.

    Args:
        head_dim: channels of a head.
        dtype: of queries, keys and values.
        device: where.
        masked: whether something is added to the scores.

    Returns:
        ``None`` where this PyTorch does not tell.
    """
    import torch
    from torch.nn.attention import SDPBackend

    choose = getattr(torch, "_fused_sdp_choice", None)
    if choose is None:
        return None
    heads = torch.zeros(1, 1, 8, head_dim, dtype=dtype, device=str(device))
    mask = torch.zeros(1, 1, 8, 8, dtype=dtype, device=str(device)) if masked else None
    with torch.inference_mode():
        return int(choose(heads, heads, heads, mask)) != SDPBackend.MATH.value


RUNTIME = EagerRuntime()
