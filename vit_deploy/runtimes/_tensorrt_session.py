"""A TensorRT engine that is open on a GPU: its context, stream and buffers, and what it says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.errors import BackendMissing, RunFailed
from vit_deploy.facts import RuntimeFacts
from vit_deploy.graph.expected import counted_attentions
from vit_deploy.protocols import BaseSession
from vit_deploy.runtimes._tensorrt_execution import (
    Buffers,
    EngineStep,
    Executor,
    GraphStep,
    create_context,
    describe_engine,
)
from vit_deploy.tensorrt_flavours import FLAVOURS, Flavour, logger_of

if TYPE_CHECKING:
    import numpy as np
    import torch

    from vit_deploy.facts import Device
    from vit_deploy.protocols import Arrays, Artefact, SessionOptions, Step

REBUILD = "vit-deploy export --format onnx,tensorrt, on this machine"
"""What to do about an engine that does not fit this machine."""


def flavour_of(artefact: Artefact) -> Flavour:
    """The flavour that built an engine.

    Raises:
        RunFailed: when the facts name none that is known.
    """
    name = artefact.facts.get("flavour")
    if name not in FLAVOURS:
        raise RunFailed(
            f"{artefact.name} does not say which flavour of TensorRT built it: {name!r}",
            expected=f"one of {', '.join(FLAVOURS)}, in the manifest's facts",
            next_command=REBUILD,
        )
    return FLAVOURS[name]


class TensorRTSession(BaseSession):
    """An engine on a GPU, with one CUDA stream and one context for plain inferences.

    Where several inferences are to run side by side, each step has a stream and a context of its own: a
    context takes one inference at a time.
    """

    def __init__(self, trt: Any, artefact: Artefact, device: Device, options: SessionOptions) -> None:
        import torch

        super().__init__(artefact)
        self.trt = trt
        self.device = device
        self.cuda_graph = options.cuda_graph
        self.streams = options.streams
        # TensorRT-RTX captures graphs itself; plain TensorRT is captured from outside.
        self._captures_itself = hasattr(trt, "CudaGraphStrategy")
        self._logger, self._messages = logger_of(flavour_of(artefact))
        with torch.cuda.device(device.index):
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._runtime = trt.Runtime(self._logger)
            self._engine = self._deserialise()
            self._executor, self._settings = self._new_executor(self._stream)
            self.facts = self._read_facts()
        self._buffers: Buffers | None = None

    def _deserialise(self) -> Any:
        facts, path = self.artefact.facts, self.artefact.path
        if facts.get("version_compatible"):
            # Such a plan carries code for the host, which a later version needs in order to run it.
            self._runtime.engine_host_code_allowed = True
        plan = path.read_bytes()
        self._check_validity(plan)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise RunFailed(
                f"TensorRT could not open {path.name}: {self._messages.reason()}",
                expected="an engine built on this machine's kind of GPU and driver",
                next_command=REBUILD,
            )
        return engine

    def _check_validity(self, plan: bytes) -> None:
        """Ask TensorRT itself about the plan's header, where it can tell.

        See https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/, ``getEngineValidity``. It is a
        check of fit, not of integrity.
        """
        if not hasattr(self._runtime, "get_engine_validity"):
            return
        validity, diagnostics = self._runtime.get_engine_validity(plan)
        if validity == self.trt.EngineValidity.INVALID:
            known = self.trt.EngineInvalidityDiagnostics.__members__
            causes = [name.lower() for name, bit in known.items() if int(diagnostics) & int(bit)]
            raise BackendMissing(
                f"TensorRT says that {self.artefact.name} does not fit this machine: "
                f"{', '.join(causes) or self._messages.reason()}",
                expected="the version, driver and GPU that it was built for",
                next_command=REBUILD,
            )

    def _new_executor(self, stream: torch.cuda.Stream) -> tuple[Executor, dict[str, str]]:
        built_in = self.cuda_graph and self._captures_itself
        context, settings = create_context(self.trt, self._engine, built_in_graphs=built_in)
        return Executor(self.trt, self._engine, context, stream, self._messages), settings

    def _read_facts(self) -> RuntimeFacts:
        described = describe_engine(self.trt, self._engine)
        facts = self.artefact.facts
        precision = facts.get("precision")
        if precision != self.artefact.precision:
            raise RunFailed(
                f"{self.artefact.name} was built from a network in {precision}",
                expected=f"{self.artefact.precision}, as the manifest declares",
                next_command=REBUILD,
            )
        if self.cuda_graph and self._captures_itself:
            strategy = self._settings.get("cuda_graph_strategy")
            if strategy != "WHOLE_GRAPH_CAPTURE":
                raise RunFailed(
                    f"TensorRT-RTX reports the CUDA graph strategy {strategy}",
                    expected="WHOLE_GRAPH_CAPTURE, as asked for by --cuda-graph",
                    next_command="leave --cuda-graph out",
                )
        return RuntimeFacts(
            backend="tensorrt",
            version=str(self.trt.__version__),
            device=str(self.device),
            # Strongly typed networks are built as they are typed: the network's type is the engine's.
            precision=self.artefact.precision,
            streams=self.streams,
            placement={str(self.device): int(self._engine.num_layers)},
            tf32=bool(facts.get("tf32")),
            dtypes=facts.get("dtypes", {}),
            fused_attention=counted_attentions(self.artefact),
            details={
                "flavour": facts.get("flavour"),
                "attention": facts.get("attention"),
                "cuda_graph": self.cuda_graph,
                **described,
                **self._settings,
            },
        )

    def _check_shapes(self, inputs: Arrays) -> None:
        for name, array in inputs.items():
            low, _, high = self.facts.details["tensors"][name]["profile"]
            outside = [
                axis
                for axis, (least, size, most) in enumerate(zip(low, array.shape, high, strict=True))
                if not least <= size <= most
            ]
            if outside:
                what = "a batch" if outside[0] == 0 else f"a dimension {outside[0]} of {name!r}"
                raise RunFailed(
                    f"{what} of {array.shape[outside[0]]} is outside the engine's profile",
                    expected=f"{what} of {low[outside[0]]} to {high[outside[0]]}",
                    next_command="vit-deploy export --format onnx,tensorrt, with --minShapes and --maxShapes "
                    "that hold it",
                )

    def _run(self, inputs: Arrays) -> Arrays:
        import torch

        self._check_shapes(inputs)
        try:
            with torch.cuda.stream(self._stream):
                self._buffers = self._filled(inputs)
                self._executor.bind(self._buffers)
                self._executor.enqueue()
                # The copy to the host is on the same stream, so it waits for the inference.
                results = {name: tensor.float().cpu() for name, tensor in self._buffers.outputs.items()}
        except RuntimeError as error:
            raise RunFailed(f"TensorRT failed on {self.artefact.name}: {error}") from error
        return {name: self._array(results, name) for name in self.artefact.spec.output_names}

    def _filled(self, inputs: Arrays) -> Buffers:
        """Buffers that hold ``inputs``: the last ones where the shapes are the same."""
        import torch

        held = self._buffers
        if held and all(tuple(held.inputs[name].shape) == inputs[name].shape for name in held.inputs):
            for name, tensor in held.inputs.items():
                tensor.copy_(torch.from_numpy(inputs[name]))
            return held
        return self._executor.allocate(inputs, self.device)

    def _array(self, results: dict[str, torch.Tensor], name: str) -> np.ndarray[Any, Any]:
        if name not in results:
            raise RunFailed(
                f"the engine has no output {name!r}", expected=f"one of {', '.join(sorted(results))}"
            )
        array: np.ndarray[Any, Any] = results[name].numpy()
        return array

    def stage(self, inputs: Arrays) -> Step:
        """See :class:`vit_deploy.protocols.Session`; with ``cuda_graph``, captured for these shapes."""
        import torch

        self._check_shapes(inputs)
        captured = self.cuda_graph and not self._captures_itself
        side_by_side = self.streams > 1
        try:
            with torch.cuda.device(self.device.index):
                stream = torch.cuda.Stream() if side_by_side else self._stream  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):
                # A captured graph must own its context; see GraphStep.
                alone = captured or side_by_side
                executor = self._new_executor(stream)[0] if alone else self._executor
                buffers = executor.allocate(inputs, self.device)
            return GraphStep(executor, buffers) if captured else EngineStep(executor, buffers)
        except RuntimeError as error:
            raise RunFailed(f"TensorRT cannot stage {self.artefact.name}: {error}") from error

    def close(self) -> None:
        """Wait for the stream, then release context, engine and runtime, in that order."""
        if self._runtime is None:
            return
        self._stream.synchronize()
        self._buffers = None
        del self._executor
        self._engine = None
        self._runtime = None
