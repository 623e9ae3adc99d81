"""Executing a TensorRT engine: device buffers, bindings, CUDA graphs, and facts read from the engine.

Buffers are PyTorch tensors and everything runs on one stream of the session's own: TensorRT adds
synchronisations of its own to the default stream. ``trt`` is the module of either flavour.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import RunFailed

if TYPE_CHECKING:
    import torch

    from vit_deploy.facts import Device
    from vit_deploy.protocols import Arrays
    from vit_deploy.tensorrt_flavours import Messages

WARM_UP_BEFORE_CAPTURE = 3
"""Inferences before a CUDA graph is captured: the first of a shape may still allocate."""


def torch_dtype(trt: Any, dtype: Any) -> torch.dtype:
    """The PyTorch dtype of a TensorRT tensor type.

    Raises:
        RunFailed: for a type that is none of a ViT's inputs or outputs.
    """
    import torch

    known = {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.BF16: torch.bfloat16,
        trt.DataType.UINT8: torch.uint8,
    }
    if dtype not in known:
        raise RunFailed(
            f"the engine has an input or output of type {dtype}", expected="a floating-point type, or uint8"
        )
    return known[dtype]


@dataclass(frozen=True)
class Buffers:
    """Device tensors for one batch size, by name, in the engine's own dtypes."""

    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]


class Executor:
    """One execution context of an engine, and which buffers it is bound to at present."""

    def __init__(
        self, trt: Any, engine: Any, context: Any, stream: torch.cuda.Stream, messages: Messages
    ) -> None:
        self.trt = trt
        self.engine = engine
        self.context = context
        self.stream = stream
        self.messages = messages
        self._bound: Buffers | None = None

    def _names(self, mode: Any) -> list[str]:
        names = (self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors))
        return [name for name in names if self.engine.get_tensor_mode(name) == mode]

    def allocate(self, inputs: Arrays, device: Device) -> Buffers:
        """Buffers for the shapes of ``inputs``, with those copied in; call it on the stream."""
        import torch

        held = {}
        for name in self._names(self.trt.TensorIOMode.INPUT):
            dtype = torch_dtype(self.trt, self.engine.get_tensor_dtype(name))
            held[name] = torch.from_numpy(inputs[name]).to(str(device), dtype)
        self._set_shapes(held)
        outputs = {}
        for name in self._names(self.trt.TensorIOMode.OUTPUT):
            dtype = torch_dtype(self.trt, self.engine.get_tensor_dtype(name))
            shape = tuple(int(size) for size in self.context.get_tensor_shape(name))
            outputs[name] = torch.empty(shape, dtype=dtype, device=str(device))
        return Buffers(held, outputs)

    def _set_shapes(self, inputs: dict[str, torch.Tensor]) -> None:
        self._bound = None
        for name, tensor in inputs.items():
            if not self.context.set_input_shape(name, tuple(tensor.shape)):
                raise RunFailed(f"the engine refused {name!r} of shape {tuple(tensor.shape)}: {self._reason()}")
        missing = self.context.infer_shapes()
        if missing:
            raise RunFailed(f"the engine cannot infer the shapes of {', '.join(missing)}: {self._reason()}")

    def bind(self, buffers: Buffers) -> None:
        """Point the context at ``buffers``, unless it is already."""
        if self._bound is buffers:
            return
        self._set_shapes(buffers.inputs)
        for name, tensor in (*buffers.inputs.items(), *buffers.outputs.items()):
            if not self.context.set_tensor_address(name, tensor.data_ptr()):
                raise RunFailed(f"the engine refused the buffer of {name!r}: {self._reason()}")
        self._bound = buffers

    def enqueue(self) -> None:
        """Start one inference on the stream."""
        if not self.context.execute_async_v3(self.stream.cuda_stream):
            raise RunFailed(f"TensorRT could not start an inference: {self._reason()}")

    def _reason(self) -> str:
        return self.messages.reason()


class EngineStep:
    """One inference from buffers on the device."""

    def __init__(self, executor: Executor, buffers: Buffers) -> None:
        self.executor = executor
        self.buffers = buffers

    def __call__(self) -> None:
        """Start one inference."""
        import torch

        with torch.cuda.stream(self.executor.stream):
            self.executor.bind(self.buffers)
            self.executor.enqueue()

    def synchronize(self) -> None:
        """Wait for the stream."""
        self.executor.stream.synchronize()


class GraphStep:
    """One inference captured as a CUDA graph.

    The executor must be this step's alone: a graph holds the addresses and the scratch memory of
    the context it was captured from.
    """

    def __init__(self, executor: Executor, buffers: Buffers) -> None:
        import torch

        self.executor = executor
        self.buffers = buffers
        eager = EngineStep(executor, buffers)
        for _ in range(WARM_UP_BEFORE_CAPTURE):
            eager()
        eager.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        try:
            # Only this thread is watched: another one may be allocating in peace.
            with torch.cuda.graph(self.graph, stream=executor.stream, capture_error_mode="thread_local"):
                executor.enqueue()
        except (RuntimeError, RunFailed) as error:
            raise RunFailed(
                f"the engine cannot be captured as a CUDA graph: {error}",
                next_command="leave --cuda-graph out",
            ) from error

    def __call__(self) -> None:
        """Start one inference."""
        import torch

        with torch.cuda.stream(self.executor.stream):
            self.graph.replay()

    def synchronize(self) -> None:
        """Wait for the stream."""
        self.executor.stream.synchronize()


def create_context(trt: Any, engine: Any, *, built_in_graphs: bool) -> tuple[Any, dict[str, str]]:
    """An execution context, and its settings as read back from it.

    TensorRT-RTX compiles kernels for a shape when it first meets it: eagerly here, so that what is
    timed is never the stand-in that runs while the right kernel is still being compiled. It has
    CUDA graphs of its own, which mind the shapes. Plain TensorRT has neither setting.
    """
    strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if strategies is None:
        context = engine.create_execution_context()
    else:
        config = engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        if built_in_graphs:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        context = engine.create_execution_context(config)
    if context is None:
        raise RunFailed(
            "TensorRT made no execution context",
            expected="enough free GPU memory for the engine's largest batch",
            next_command="nvidia-smi, to see what else uses the GPU",
        )
    if strategies is None:
        return context, {}
    read = context.get_runtime_config()
    return context, {
        "cuda_graph_strategy": _word(read.cuda_graph_strategy),
        "kernel_specialization": _word(read.dynamic_shapes_kernel_specialization_strategy),
    }


def describe_engine(trt: Any, engine: Any) -> dict[str, Any]:
    """What a deserialised engine says of itself: inputs, outputs, profile, layers."""
    tensors: dict[str, dict[str, Any]] = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        tensors[name] = {"dtype": _word(engine.get_tensor_dtype(name))}
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            low, best, high = engine.get_tensor_profile_shape(name, 0)
            tensors[name]["profile"] = [[int(size) for size in shape] for shape in (low, best, high)]
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return {"tensors": tensors, "engine_layers": int(engine.num_layers), **fused_regions(text)}


def fused_regions(text: str) -> dict[str, int]:
    """How many of an engine's layers are regions that TensorRT compiled as one, from its inspector.

    Args:
        text: the inspector's JSON; layers are names, or objects with a name, by verbosity.
    """
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return {}  # a flavour whose inspector tells nothing: the rest of the facts stand without it
    names = [layer.get("Name", "") if isinstance(layer, dict) else str(layer) for layer in layers]
    return {"fused_regions": sum("ForeignNode[" in name for name in names)}


def _word(value: Any) -> str:
    return str(value).rpartition(".")[2]
