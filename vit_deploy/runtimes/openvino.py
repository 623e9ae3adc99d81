"""OpenVINO's own IR and ONNX files through OpenVINO, on the CPU.

OpenVINO chooses the precision that it computes in itself, and where the processor has bf16 it chooses that,
whatever the file says. So it is always told, and both its word and the kernels that it chose are read back.
Its passes cannot be switched off.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

from vit_deploy.environment import usable_cores
from vit_deploy.errors import BackendMissing, RunFailed, UsageFailed
from vit_deploy.facts import Availability, Device, RuntimeFacts
from vit_deploy.openvino_library import REINSTALL, availability, first_line, load
from vit_deploy.protocols import BaseSession
from vit_deploy.runtimes._openvino_cache import Kept, ModelCache, is_on
from vit_deploy.runtimes._openvino_layers import count_layers, operators_by_name, origins_of
from vit_deploy.runtimes._streams import share_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from vit_deploy.graph.openvino_ir import IrGraph
    from vit_deploy.protocols import Arrays, Artefact, SessionOptions, Step
    from vit_deploy.runtimes._openvino_layers import RuntimeLayers
    from vit_deploy.spec import Precision

__all__ = ["HINTS", "RUNTIME", "OpenVinoRuntime", "OpenVinoSession", "OpenVinoStep", "load"]

IR = "openvino"
"""The format of OpenVINO's own files."""

HINTS: dict[str, Precision] = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
"""What OpenVINO calls the precisions that it computes in."""

_NEEDED: dict[Precision, str] = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
"""What a processor must be able to for each precision."""

_CAPABILITIES = {"bf16": "BF16", "f16": "FP16"}
"""What a processor must have for them. Without it the hint is changed to another one, and not always to f32."""


class OpenVinoStep:
    """One inference with its inputs in the request."""

    def __init__(self, request: Any, inputs: Arrays) -> None:
        self.request = request
        self.inputs = inputs  # the request has no memory of its own for them

    def __call__(self) -> None:
        """Make one inference; the outputs stay where they are."""
        self.request.infer(share_outputs=True)

    def synchronize(self) -> None:
        """Nothing to wait for: an inference is done when its call returns."""


class OpenVinoSession(BaseSession):
    """A graph compiled by OpenVINO."""

    def __init__(self, artefact: Artefact, compiled: Any, facts: RuntimeFacts) -> None:
        super().__init__(artefact)
        self.compiled = compiled
        self.facts = facts
        self._request = compiled.create_infer_request()

    def _run(self, inputs: Arrays) -> Arrays:
        try:
            self._fill(self._request, inputs)
            self._request.infer(share_outputs=True)
            return {
                name: self._request.get_tensor(name).data.copy() for name in self.artefact.spec.output_names
            }
        except RuntimeError as error:
            raise RunFailed(f"OpenVINO failed on {self.artefact.name}: {first_line(error)}") from error

    def stage(self, inputs: Arrays) -> Step:
        """See :class:`vit_deploy.protocols.Session`."""
        request = self.compiled.create_infer_request()
        try:
            self._fill(request, inputs)
        except RuntimeError as error:
            raise RunFailed(f"OpenVINO cannot stage {self.artefact.name}: {first_line(error)}") from error
        return OpenVinoStep(request, inputs)

    @staticmethod
    def _fill(request: Any, inputs: Arrays) -> None:
        openvino = load()
        for name, array in inputs.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def close(self) -> None:
        """Release what was compiled."""
        self._request = None
        self.compiled = None


class OpenVinoRuntime:
    """See the module.

    Args:
        hint: the precision to compute in, as OpenVINO calls it; that of the artefact when empty.
    """

    name: ClassVar[str] = "openvino"
    description: ClassVar[str] = "OpenVINO, on the CPU"
    formats: ClassVar[frozenset[str]] = frozenset({"onnx", "openvino"})
    cuda_graphs: ClassVar[bool] = False

    def __init__(self, hint: str = "") -> None:
        self.hint = hint

    def available(self, device: Device | None = None) -> Availability:
        """See :class:`vit_deploy.protocols.Runtime`."""
        state = availability()
        if not state.ok:
            return state
        if device is not None and device.kind != "cpu":
            return Availability.no(
                f"OpenVINO runs on the CPU here, and the device is {device}", "add --device cpu", state.version
            )
        try:
            found = load().Core().available_devices
        except (OSError, RuntimeError) as error:
            told = f"openvino does not load: {first_line(error)}"
            return Availability.no(told, REINSTALL, state.version)
        if "CPU" not in found:
            told = f"this OpenVINO has no CPU plugin, only {', '.join(found) or 'none'}"
            return Availability.no(told, REINSTALL, state.version)
        return state

    def devices(self) -> tuple[Device, ...]:
        """See :class:`vit_deploy.protocols.Runtime`."""
        return (Device(),) if self.available().ok else ()

    def computes(self, precision: Precision, device: Device | None = None) -> Precision | None:
        """See :class:`vit_deploy.protocols.Selective`; fp16 and bf16 are fp32 on a processor without them."""
        if not self.available(device).ok:
            return None
        if self.hint and precision != "int8":
            return HINTS[self.hint]
        able = load().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return precision if _NEEDED.get(precision) in able else "fp32"

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> OpenVinoSession:
        """See :class:`vit_deploy.protocols.Runtime`.

        Raises:
            UsageFailed: for a CUDA graph, and for a graph without OpenVINO's own optimisations.
            HostileInput: for an IR that is not whole, or reaches beyond its own two files.
        """
        from vit_deploy.graph.openvino_ir import read_ir

        found = self.available(device)
        if not found.ok:
            raise BackendMissing(f"OpenVINO cannot run on {device}: {found.reason}", next_command=found.mend)
        _refuse(options)
        if options.native:
            _refuse_other(artefact, self.computes(artefact.precision, device))
        # Before OpenVINO sees it: what it makes of a file that reaches elsewhere is not for us to find out.
        graph = read_ir(artefact.path) if artefact.format == IR else None
        core = load().Core()
        hint = self.hint or _hint(core, artefact.precision)
        threads = options.threads or usable_cores()
        share_of(threads, options.streams)
        settings = _settings(hint, threads, options.streams)
        try:
            model = core.read_model(artefact.path)
            names = operators_by_name(model)
            with _cache(artefact, settings, found.version, options) as kept:
                # It looks for what it kept by the file's name alone, and not for a model that was read.
                subject = str(artefact.path) if kept.settings else model
                compiled = core.compile_model(subject, "CPU", {**settings, **kept.settings})
                computed = compiled.get_runtime_model()
                kept.origins = kept.origins or origins_of(computed)
        except RuntimeError as error:
            raise RunFailed(
                f"OpenVINO refuses {artefact.path.name!r}: {first_line(error)}",
                next_command="vit-deploy doctor, or the ONNX artefact with --backend onnxruntime",
            ) from error
        _check_weights(artefact, graph)
        layers = count_layers(computed, names, kept.origins)
        facts = _facts(compiled, artefact, device, hint, layers, cached=bool(kept.settings))
        return OpenVinoSession(artefact, compiled, facts)


def _cache(
    artefact: Artefact, settings: Mapping[str, Any], version: str, options: SessionOptions
) -> AbstractContextManager[Kept]:
    """What makes OpenVINO keep what it compiles; nothing where it was not asked to, or could not."""
    if not options.cache or artefact.format != IR or not is_on():
        return contextlib.nullcontext(Kept())
    return ModelCache(artefact.path, settings, version)


def _refuse(options: SessionOptions) -> None:
    if options.cuda_graph:
        raise UsageFailed("a CUDA graph was asked for on the CPU", next_command="leave --cuda-graph out")
    if not options.optimise:
        raise UsageFailed(
            "OpenVINO cannot run a graph without its own optimisations: it has no switch for them",
            expected="another backend for the same file",
            next_command="run the ONNX artefact with --backend onnxruntime",
        )


def _refuse_other(artefact: Artefact, computed: Precision | None) -> None:
    """Refuse what would be computed in another precision than it is declared in."""
    if computed != artefact.precision:
        raise BackendMissing(
            f"OpenVINO computes {artefact.precision} as {computed} on this processor: "
            f"{artefact.name} is not for it",
            expected="a processor that computes in it: avx512_bf16 or amx_bf16 for bf16, amx_fp16 for fp16",
            next_command="use an fp32 or int8 artefact on this CPU",
        )


_ASKED: dict[Precision, str] = {"fp16": "f16", "int8": "bf16"}
"""What to ask for where it is not f32. A graph in bf16 is taken at its word with f32: with bf16 what it keeps
in fp32, and the resize in it, would be computed in bf16 too. Of one in int8 the rest is bf16, a tenth faster
than with f32 on a ViT-B/16; it is judged by decisions, and by those that were computed so."""


def _hint(core: Any, precision: Precision) -> str:
    """The precision to ask for: see :data:`_ASKED`; f32 where this processor does not compute in that."""
    asked = _ASKED.get(precision, "f32")
    needed = _CAPABILITIES.get(asked)
    able = needed is None or needed in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return asked if able else "f32"


def _settings(hint: str, threads: int, streams: int) -> dict[str, Any]:
    """So many inferences at a time, on that many threads in all, which are not bound to cores: neighbours use
    them, too. The number of streams overrides what the hint would make it.
    """
    return {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": "LATENCY",
    }


def _check_weights(artefact: Artefact, graph: IrGraph | None) -> None:
    """Whether a file carries the numbers that its artefact declares.

    Raises:
        RunFailed: when it carries others.
    """
    from vit_deploy.graph.scan import count_weights

    if graph is not None:
        held, weights = graph.precision, graph.floating
    else:
        census = count_weights(artefact.path)
        held, weights = census.precision, census.floating
    if weights and held != artefact.precision:
        raise RunFailed(
            f"the weights of {artefact.path.name!r} are {held or weights}",
            expected=f"{artefact.precision}, as {artefact.name} declares",
        )


def _facts(
    compiled: Any, artefact: Artefact, device: Device, hint: str, layers: RuntimeLayers, *, cached: bool
) -> RuntimeFacts:
    """What the compiled model says of itself.

    Raises:
        RunFailed: when it was told one precision and reports another.
    """
    from vit_deploy.graph.expected import expected_attentions

    told = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if told != hint:
        raise RunFailed(
            f"OpenVINO was told to compute in {hint} and says that it does in {told}",
            expected=hint,
            next_command="vit-deploy verify with --backend onnxruntime",
        )
    of = expected_attentions(artefact.config, artefact.spec)
    hit = bool(compiled.get_property("LOADED_FROM_CACHE"))
    return RuntimeFacts(
        backend="openvino",
        version=str(load().__version__),
        device=str(device),
        precision=layers.bulk or HINTS[told],
        threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
        streams=int(compiled.get_property("NUM_STREAMS")),
        placement=dict.fromkeys(compiled.get_property("EXECUTION_DEVICES"), layers.nodes),
        dtypes=layers.dtypes,
        fused_attention={
            "fused": layers.fused_attention,
            "of": layers.fused_attention + layers.softmaxes if of is None else of,
        },
        precision_hint=told,
        details={
            "attention_kernels": layers.attention_kernels,
            "low_precision_layers": layers.low_precision,
            "cpu_pinning": bool(compiled.get_property("ENABLE_CPU_PINNING")),
            "model_cache": ("hit" if hit else "miss") if cached else "off",
        },
    )


RUNTIME = OpenVinoRuntime()
