"""The worker: opens one case, and measures when it is told to.

It reads one JSON object per line on stdin and answers on the descriptor that it was given, never on
stdout, which libraries write to. While it waits it blocks on stdin; when stdin closes, it exits.

    open    {case, spawned_ns}          -> {facts, cold_start_ns}
    warm    {limit_ns, tolerance}       -> {steps, elapsed_ns, settled, step_ns}
    measure {budget_ns, minimum, maximum} -> {samples_ns, elapsed_ns, rested}
    scenario {name, settings} -> see vit_deploy.bench.scenarios.inside
    finish  {}                          -> {peak_rss_bytes, peak_device_bytes, gpu}, and it exits

What fails is answered as ``{error, exit_code}``, and the worker exits.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.cases import Case, check_facts, free_sizes, open_artefact
from vit_deploy.bench.gpu import GpuWatch
from vit_deploy.bench.timing import Streams, put_memory_in_order, rest, warm_up
from vit_deploy.errors import BackendMissing, VitDeployError
from vit_deploy.facts import Device
from vit_deploy.worker_process import run_worker, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vit_deploy.bench.scenarios.inside import Player
    from vit_deploy.protocols import Arrays, Artefact, Runtime, Session, Step


class Worker:
    """One case, from cold to finished."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._streams: Streams | None = None
        self._step_ns = 0
        self._opened: tuple[Case, Artefact] | None = None
        self._player: Player | None = None
        self._gpu = GpuWatch(Device())
        self._first: Step | None = None

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what one message asks.

        Raises:
            VitDeployError: when the case cannot be opened or run.
        """
        acts: dict[str, Callable[..., dict[str, Any]]] = {
            "open": self._open,
            "warm": self._warm,
            "measure": self._measure,
            "scenario": self._scenario,
            "finish": self._finish,
        }
        arguments = {name: value for name, value in message.items() if name != "command"}
        return acts[message["command"]](**arguments)

    def _open(self, case: dict[str, Any], spawned_ns: int) -> dict[str, Any]:
        """Open the case phase by phase; each phase lasts until the next one's stamp."""
        from vit_deploy.protocols import SessionOptions

        wanted = Case.from_dict(case)
        device = Device.parse(wanted.device)
        runtime = _import_runtime(wanted.backend, device)
        imported = time.monotonic_ns()
        artefact = open_artefact(wanted)
        checked = time.monotonic_ns()
        threads = wanted.threads if device.kind == "cpu" else None
        options = SessionOptions(
            threads=threads, streams=wanted.streams, cuda_graph=wanted.cuda_graph, spin=False
        )
        self._session = runtime.open(artefact, device, options)
        opened = time.monotonic_ns()
        check_facts(self._session.facts, wanted)
        self._opened = wanted, artefact
        inputs = make_inputs(artefact, free_sizes(artefact, wanted))
        staging = time.monotonic_ns()
        first = self._session.stage(inputs)
        first()
        first.synchronize()
        done = time.monotonic_ns()
        others = [self._session.stage(inputs) for _ in range(wanted.streams - 1)]
        self._streams = self.staged([first, *others])
        self._first, self._gpu = first, GpuWatch(device)
        phases = {
            "import": imported - spawned_ns,
            "check": checked - imported,
            "open": opened - checked,
            "first": done - staging,
        }
        rest()
        return {"facts": asdict(self._session.facts), "cold_start_ns": phases}

    def staged(self, steps: list[Step]) -> Streams:
        """What is timed: the staged steps, one for each stream. A worker that adds to them wraps them here."""
        return Streams(steps)

    def _opened_streams(self) -> Streams:
        if self._streams is None:
            raise VitDeployError("the worker was told to measure before it was told to open a case")
        return self._streams

    def _warm(self, limit_ns: int, tolerance: float) -> dict[str, Any]:
        result = warm_up(self._opened_streams(), limit_ns, tolerance)
        self._step_ns = result.step_ns
        put_memory_in_order()
        rest()
        return asdict(result)

    def _measure(self, budget_ns: int, minimum: int, maximum: int) -> dict[str, Any]:
        streams = self._opened_streams()
        streams.settle(self._step_ns)
        taken = streams.time(budget_ns, minimum, maximum)
        self._gpu.look()
        return {"samples_ns": taken.samples, "elapsed_ns": taken.elapsed_ns, "rested": rest()}

    def _scenario(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        from vit_deploy.bench.scenarios.inside import Player

        if self._session is None or self._opened is None:
            raise VitDeployError("the worker was told to play a scenario before it was told to open a case")
        case, artefact = self._opened

        def inputs_at(batch_size: int) -> Arrays:
            return make_inputs(artefact, free_sizes(artefact, replace(case, batch_size=batch_size)))

        if self._player is None:
            self._player = Player(self._session, case, artefact.spec, inputs_at)
        return self._player.play(name, settings)

    def _finish(self) -> dict[str, Any]:
        # The peaks come first: to time copies takes memory of its own.
        result: dict[str, Any] = {"peak_rss_bytes": peak_rss_bytes(), "peak_device_bytes": peak_device_bytes()}
        result["gpu"] = {**self._gpu.seen(), **self._parts()}
        if self._streams is not None:
            self._streams.close()
        self._streams = None
        self._first = None
        if self._session is not None:
            self._session.close()
        return result

    def _parts(self) -> dict[str, float]:
        """The split and the energy of an inference; of one stream, as several would blur each other's."""
        if self._opened is None or self._first is None or self._streams is None or len(self._streams) > 1:
            return {}
        case, artefact = self._opened
        return self._gpu.measure(self._first, artefact.spec, free_sizes(artefact, case))


def _import_runtime(name: str, device: Device) -> Runtime:
    """The runtime, its library and ours imported.

    Raises:
        BackendMissing: when this machine cannot run it.
    """
    import numpy as np  # noqa: F401 - its import belongs to this phase

    import vit_deploy.bundle.reader  # noqa: F401 - likewise
    from vit_deploy import registry

    runtime = registry.runtime(name)
    found = runtime.available(device)
    if not found.ok:
        raise BackendMissing(f"{name} cannot run on {device}: {found.reason}", next_command=found.mend)
    return runtime


def make_inputs(artefact: Artefact, free: Mapping[str, int]) -> Arrays:
    """Noise of the shapes and dtypes that the artefact takes, the same each time: normal, or of 8 bits.

    Preprocessed images have about zero mean and unit variance too. A dense model's time does not
    depend on the values, but subnormals and NaN would slow some kernels, and zeros flatter others.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    inputs: dict[str, np.ndarray[Any, Any]] = {}
    for entry in artefact.spec.inputs:
        shape = entry.at(free)
        if entry.dtype == "uint8":
            inputs[entry.name] = generator.integers(0, 256, size=shape, dtype=np.uint8)
        else:
            inputs[entry.name] = generator.standard_normal(shape, dtype=np.float32).astype(entry.dtype)
    return inputs


def peak_rss_bytes() -> int:
    """The most memory this process ever had resident.

    On Linux ``ru_maxrss`` will not do: a child starts with the peak of the process that made it.
    ``VmHWM`` starts anew with the program.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_device_bytes() -> int | None:
    """The most memory that PyTorch held on the GPU, or ``None`` where it used none.

    Buffers that another library allocates by itself are not counted.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_reserved())


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, VitDeployError):
        return {"error": str(error), "exit_code": error.exit_code}
    return {"error": f"{type(error).__name__}: {error}", "exit_code": 1}


def main(arguments: list[str] | None = None) -> None:
    """``python -m vit_deploy.bench.worker DESCRIPTOR``."""
    given = sys.argv[1:] if arguments is None else arguments
    run_worker(lambda: serve(int(given[0]), Worker().answer, _failure, last="finish"))


if __name__ == "__main__":
    main()
