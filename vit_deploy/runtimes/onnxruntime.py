"""ONNX Runtime on the CPU or through its CUDA provider.

A session that would run elsewhere than it was asked to is an error: ONNX Runtime itself falls back
to another provider with no more than a log line.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, ClassVar

from vit_deploy.environment import package_version, usable_cores
from vit_deploy.errors import BackendMissing, RunFailed, UsageFailed
from vit_deploy.facts import Availability, Device, RuntimeFacts
from vit_deploy.protocols import BaseSession
from vit_deploy.runtimes._onnxruntime_cpu import computed_on_the_cpu, on_the_cpu, refuse_precision
from vit_deploy.runtimes._streams import share_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.graph.layers import LayerCensus
    from vit_deploy.protocols import Arrays, Artefact, SessionOptions, Step
    from vit_deploy.spec import Precision

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_QUIET = 3
"""ONNX Runtime's log level that shows errors only."""
_RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
_SHAPE_OPERATORS = {"Shape", "Concat", "Gather", "Squeeze", "Unsqueeze", "Cast", "Slice"}
"""ONNX Runtime puts arithmetic on shapes on the CPU by design, whatever the provider."""


class OnnxRuntimeStep:
    """One inference with its tensors bound to the device."""

    def __init__(self, session: Any, binding: Any) -> None:
        self.session = session
        self.binding = binding

    def __call__(self) -> None:
        """Start one inference."""
        self.session.run_with_iobinding(self.binding)

    def synchronize(self) -> None:
        """Wait for the device."""
        self.binding.synchronize_outputs()


class OnnxRuntimeSession(BaseSession):
    """An ONNX file opened by ONNX Runtime.

    Args:
        artefact: what was opened.
        sessions: ONNX Runtime's own: one that all streams share, or one for each; steps take them in turn.
        device: where they run.
        facts: what they say of themselves.
    """

    def __init__(
        self, artefact: Artefact, sessions: Sequence[Any], device: Device, facts: RuntimeFacts
    ) -> None:
        super().__init__(artefact)
        self.session = sessions[0]
        self.device = device
        self.facts = facts
        self._turns = itertools.cycle(sessions)

    def _run(self, inputs: Arrays) -> Arrays:
        names = [output.name for output in self.session.get_outputs()]
        try:
            results = self.session.run(names, dict(inputs))
        except Exception as error:  # ONNX Runtime's exceptions have no common root but Exception
            raise RunFailed(f"ONNX Runtime failed on {self.artefact.name}: {error}") from error
        return dict(zip(names, results, strict=True))

    def stage(self, inputs: Arrays) -> Step:
        """See :class:`vit_deploy.protocols.Session`."""
        import numpy as np
        import onnxruntime as ort

        session = next(self._turns)
        binding = session.io_binding()
        for name, array in inputs.items():
            value = ort.OrtValue.ortvalue_from_numpy(array, self.device.kind, self.device.index)
            binding.bind_ortvalue_input(name, value)
        # Outputs are bound once too, so that an inference allocates nothing.
        free = self.artefact.spec.free_of({name: array.shape for name, array in inputs.items()})
        for spec in self.artefact.spec.outputs:
            value = ort.OrtValue.ortvalue_from_shape_and_type(
                list(spec.at(free)), np.dtype(spec.dtype), self.device.kind, self.device.index
            )
            binding.bind_ortvalue_output(spec.name, value)
        return OnnxRuntimeStep(session, binding)

    def close(self) -> None:
        """Release the sessions and their memory."""
        self.session = None
        self._turns = itertools.cycle(())


class OnnxRuntimeRuntime:
    """See the module."""

    name: ClassVar[str] = "onnxruntime"
    description: ClassVar[str] = "ONNX Runtime, on the CPU or CUDA"
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    cuda_graphs: ClassVar[bool] = True

    def available(self, device: Device | None = None) -> Availability:
        """See :class:`vit_deploy.protocols.Runtime`."""
        cpu, gpu = package_version("onnxruntime"), package_version("onnxruntime-gpu")
        extra = "gpu" if device and device.kind == "cuda" else "cpu"
        if not cpu and not gpu:
            return Availability.no("onnxruntime is not installed", f"pip install 'vit-deploy[{extra}]'")
        try:
            import onnxruntime as ort

            providers = ort.get_available_providers()
        except (ImportError, AttributeError) as error:
            return Availability.no(
                f"onnxruntime does not import: {error}",
                f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'vit-deploy[{extra}]'",
            )
        if device and PROVIDERS[device.kind] not in providers:
            return Availability.no(
                f"this ONNX Runtime has no {PROVIDERS[device.kind]}, only {', '.join(providers)}",
                f"pip uninstall -y onnxruntime && pip install 'vit-deploy[{extra}]'",
                ort.__version__,
            )
        return Availability.yes(ort.__version__)

    def devices(self) -> tuple[Device, ...]:
        """See :class:`vit_deploy.protocols.Runtime`."""
        return tuple(device for device in (Device("cuda"), Device("cpu")) if self.available(device).ok)

    def computes(self, precision: Precision, device: Device | None = None) -> Precision | None:
        """See :class:`vit_deploy.protocols.Selective`."""
        kind = device.kind if device else next((found.kind for found in self.devices()), "cpu")
        return computed_on_the_cpu(precision) if kind == "cpu" else precision

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> OnnxRuntimeSession:
        """See :class:`vit_deploy.protocols.Runtime`."""
        found = self.available(device)
        if not found.ok:
            raise BackendMissing(
                f"ONNX Runtime cannot run on {device}: {found.reason}", next_command=found.mend
            )
        refuse_precision(artefact, self.computes(artefact.precision, device), native=options.native)
        import onnxruntime as ort

        on_cpu = device.kind == "cpu"
        share = share_of(options.threads or usable_cores(), options.streams if on_cpu else 1)
        try:
            sessions = [
                ort.InferenceSession(
                    str(artefact.path),
                    _session_options(share, options),
                    providers=[(PROVIDERS[device.kind], _provider_options(device, options))],
                )
                for _ in range(_sessions_needed(share, options.streams, on_cpu=on_cpu))
            ]
        except UsageFailed:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common root but Exception
            raise RunFailed(
                f"ONNX Runtime refuses {artefact.path.name!r}: {error}", next_command="vit-deploy doctor"
            ) from error
        facts = _facts(sessions, artefact, device, options)
        return OnnxRuntimeSession(artefact, sessions, device, facts)


def _sessions_needed(share: int, streams: int, *, on_cpu: bool) -> int:
    """How many sessions give each stream its share of the threads, or its own CUDA stream.

    A session of one thread has no pool: what calls it computes, and any number may. A larger one lends its
    pool to whoever calls, so that two inferences in it would have one share between them.
    """
    return 1 if on_cpu and share == 1 else streams


def _session_options(threads: int, options: SessionOptions) -> Any:
    import onnxruntime as ort

    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.log_severity_level = _QUIET
    if not options.optimise:
        chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    chosen.add_session_config_entry(_RECORD_PLACEMENT, "1")
    spin = "1" if options.spin else "0"
    chosen.add_session_config_entry("session.intra_op.allow_spinning", spin)
    chosen.add_session_config_entry("session.inter_op.allow_spinning", spin)
    return chosen


def _provider_options(device: Device, options: SessionOptions) -> dict[str, str]:
    if device.kind == "cpu":
        if options.cuda_graph:
            raise UsageFailed("a CUDA graph was asked for on the CPU", next_command="leave --cuda-graph out")
        return {}
    return {
        "device_id": str(device.index),
        "use_tf32": "0",
        "enable_cuda_graph": "1" if options.cuda_graph else "0",
    }


def _facts(
    sessions: Sequence[Any], artefact: Artefact, device: Device, options: SessionOptions
) -> RuntimeFacts:
    """What the sessions, which are alike, say of themselves, with the dtype that the file carries.

    Raises:
        RunFailed: when it stands on another provider than the one asked for, or the file carries
            another precision than the artefact declares.
    """
    import onnxruntime as ort

    from vit_deploy.graph.layers import count_layers
    from vit_deploy.graph.scan import count_weights, skeleton_of

    session, wanted = sessions[0], PROVIDERS[device.kind]
    placement = _placement(session, wanted)
    census = count_weights(artefact.path)
    layers = count_layers(skeleton_of(artefact.path))
    # A graph without floating weights computes in the dtype of its inputs.
    if census.floating and census.precision != artefact.precision:
        raise RunFailed(
            f"the weights of {artefact.path.name!r} are {census.precision or census.elements}",
            expected=f"{artefact.precision}, as {artefact.name} declares",
        )
    on_cpu = device.kind == "cpu"
    read_back = session.get_session_options()
    settings = session.get_provider_options().get(wanted, {})
    return RuntimeFacts(
        backend="onnxruntime",
        version=ort.__version__,
        device=str(device),
        precision=(computed_on_the_cpu(artefact.precision) if on_cpu else None) or artefact.precision,
        dtypes=on_the_cpu(layers.dtypes) if on_cpu else layers.dtypes,
        fused_attention=_fused_attention(session, artefact, layers),
        threads=read_back.intra_op_num_threads * options.streams if on_cpu else None,
        streams=options.streams,
        placement=placement,
        tf32=None if on_cpu else settings.get("use_tf32", "1") == "1",
        details={
            "spinning": options.spin,
            "sessions": len(sessions),
            "graph_optimisation": str(read_back.graph_optimization_level).rpartition(".")[2],
            "shape_nodes": {name: count for name, count in placement.items() if name != wanted},
        },
    )


def _placement(session: Any, wanted: str) -> dict[str, int]:
    """Nodes by provider, as ONNX Runtime assigned them.

    Raises:
        RunFailed: when the provider asked for is not the first, or arithmetic was put elsewhere.
    """
    from collections import Counter

    providers = session.get_providers()
    if providers[0] != wanted:
        raise RunFailed(
            f"ONNX Runtime fell back to {providers[0]}", expected=wanted, next_command="vit-deploy doctor"
        )
    counted: Counter[str] = Counter()
    strays: Counter[str] = Counter()
    for provider, operator in _assigned(session):
        counted[provider] += 1
        if provider != wanted and operator not in _SHAPE_OPERATORS:
            strays[operator] += 1
    if strays:
        raise RunFailed(
            f"ONNX Runtime put {sum(strays.values())} nodes elsewhere than on {wanted}: {dict(strays)}",
            expected=f"every node but shape arithmetic on {wanted}",
            next_command="vit-deploy export with another --opset",
        )
    return dict(counted)


def _assigned(session: Any) -> list[tuple[str, str]]:
    """The provider and the operator of each node that a kernel was found for; empty where it cannot tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):  # before ONNX Runtime 1.24
        return []
    parts = session.get_provider_graph_assignment_info()
    return [(part.ep_name, node.op_type) for part in parts for node in part.get_nodes()]


def _fused_attention(session: Any, artefact: Artefact, layers: LayerCensus) -> dict[str, int]:
    """How many attentions a kernel was found for, of how many the model has.

    An operator without a kernel is replaced by its definition before kernels are assigned, so that it is
    not among those any more. What ONNX Runtime fuses later on is not seen; of a ViT it fuses none.
    """
    from vit_deploy.graph.expected import expected_attentions
    from vit_deploy.graph.layers import ATTENTION_OPERATORS

    assigned = _assigned(session)
    native = sum(operator in ATTENTION_OPERATORS for _, operator in assigned)
    of = expected_attentions(artefact.config, artefact.spec)
    return {
        "fused": native if assigned else layers.attentions,
        "of": layers.attentions + layers.spelled_out if of is None else of,
    }


RUNTIME = OnnxRuntimeRuntime()
