"""Runtimes for cases: around a real session, or with settings that a user may choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

from vit_deploy import registry
from vit_deploy.errors import RunFailed
from vit_deploy.facts import Availability, Device, RuntimeFacts
from vit_deploy.protocols import BaseSession

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vit_deploy.protocols import Arrays, Artefact, Runtime, Session, SessionOptions, Step

Outputs = dict[str, "NDArray[Any]"]
Alter = Callable[[Outputs, int], Outputs]
"""From what a session gave, and how many runs there were before, to what comes out."""


class _AlteredSession(BaseSession):
    def __init__(self, artefact: Artefact, inner: Session, alter: Alter) -> None:
        super().__init__(artefact)
        self.inner, self.alter, self.count = inner, alter, 0
        self.facts = inner.facts

    def _run(self, inputs: Arrays) -> Arrays:
        given = {name: array.copy() for name, array in self.inner.run(inputs).items()}
        self.count += 1
        return self.alter(given, self.count - 1)

    def stage(self, inputs: Arrays) -> Step:
        return self.inner.stage(inputs)

    def close(self) -> None:
        self.inner.close()


@dataclass(frozen=True)
class Around:
    """A real runtime whose outputs are altered.

    Attributes:
        inner: the real runtime's name.
        alter: makes the alteration, anew for each session.
        threads: CPU threads in place of those asked for.
    """

    inner: str
    alter: Callable[[], Alter] = lambda: lambda outputs, _: outputs
    threads: int | None = None

    description: ClassVar[str] = "a real runtime, its outputs altered"
    cuda_graphs: ClassVar[bool] = False

    @property
    def _runtime(self) -> Runtime:
        return registry.runtime(self.inner)

    @property
    def name(self) -> str:
        """The real runtime's: nothing else is known of it."""
        return self._runtime.name

    @property
    def formats(self) -> frozenset[str]:
        """The real runtime's."""
        return self._runtime.formats

    def available(self, device: Device | None = None) -> Availability:
        """As the real runtime is."""
        return self._runtime.available(device)

    def devices(self) -> tuple[Device, ...]:
        """The CPU."""
        return (Device(),)

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> Session:
        """The real session, wrapped."""
        options = replace(options, threads=self.threads or options.threads)
        return _AlteredSession(artefact, self._runtime.open(artefact, device, options), self.alter())


@dataclass(frozen=True)
class ConfiguredOnnxRuntime(Around):
    """ONNX Runtime with settings of its own that this library does not offer.

    Attributes:
        level: of graph optimisation, by the name of ``onnxruntime.GraphOptimizationLevel``.
        entries: session config entries.
    """

    inner: str = "onnxruntime"
    level: str = ""
    entries: Mapping[str, str] = field(default_factory=dict)

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> Session:
        """A session that was opened with these settings."""
        import onnxruntime as ort

        plain = ort.SessionOptions

        def configured() -> Any:
            chosen = plain()
            if self.level:
                chosen.graph_optimization_level = getattr(ort.GraphOptimizationLevel, self.level)
            for name, value in self.entries.items():
                chosen.add_session_config_entry(name, value)
            return chosen

        with mock.patch.object(ort, "SessionOptions", configured):
            return super().open(artefact, device, options)


class _TorchSession(BaseSession):
    def __init__(self, artefact: Artefact, call: Callable[[Any], Any]) -> None:
        super().__init__(artefact)
        self.call = call
        self.facts = RuntimeFacts("torch", "1", "cpu", artefact.precision)

    def _run(self, inputs: Arrays) -> Mapping[str, NDArray[np.generic]]:
        import torch

        (values,) = inputs.values()
        with torch.inference_mode():
            results = self.call(torch.from_numpy(values))
        results = results if isinstance(results, tuple) else (results,)
        names = self.artefact.spec.output_names
        if len(names) != len(results):  # taps were asked for, and a function has no inside
            raise RunFailed(f"a function gave {len(results)} outputs", expected=", ".join(names))
        return {name: result.numpy() for name, result in zip(names, results, strict=True)}

    def stage(self, inputs: Arrays) -> Step:  # noqa: ARG002
        raise RunFailed("a function of a tensor is not timed")


@dataclass(frozen=True)
class TorchRuntime:
    """Any function of a torch tensor as a runtime; it is said to compute as it is declared."""

    call: Callable[[Any], Any]
    name: str = "torch"
    description: ClassVar[str] = "a function of a tensor"
    formats: ClassVar[frozenset[str]] = frozenset({"onnx", "torchscript", "pytorch"})
    cuda_graphs: ClassVar[bool] = False

    def available(self, device: Device | None = None) -> Availability:  # noqa: ARG002
        """Always."""
        return Availability.yes("1")

    def devices(self) -> tuple[Device, ...]:
        """The CPU."""
        return (Device(),)

    def open(self, artefact: Artefact, device: Device, options: SessionOptions) -> Session:  # noqa: ARG002
        """The function as a session."""
        return _TorchSession(artefact, self.call)
