"""TensorRT's build phases as our :class:`vit_deploy.protocols.Progress`, and the way to stop a build."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_deploy.protocols import Progress


class BuildProgress:
    """TensorRT's tree of build phases, told to a :class:`Progress` that shows one phase at a time.

    TensorRT calls from several threads, and an exception must never cross its C++ frames: what is
    raised here (Ctrl-C arrives inside a callback) is kept, stops the build, and is raised after it.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.was_cancelled = False
        self.interruption: BaseException | None = None
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._shown = ""
        self._lock = threading.RLock()

    def start(self, name: str, total: int) -> None:
        """A phase of ``total`` steps begins."""
        with self._lock:
            self._totals[name], self._done[name] = total, 0
            self._show(name)

    def step(self, name: str) -> bool:
        """One step of a phase is done; whether to go on."""
        with self._lock:
            self._done[name] = self._done.get(name, 0) + 1
            if self._shown == name:
                self.progress.advance()
            else:  # an inner phase was shown in between
                self._show(name)
            self.was_cancelled = self.was_cancelled or self.progress.cancelled
            return not self.was_cancelled and self.interruption is None

    def finish(self, name: str) -> None:
        """A phase ends, complete or not."""
        with self._lock:
            self._totals.pop(name, None)
            if self._shown == name:
                self._shown = ""

    def _show(self, name: str) -> None:
        self._shown = name
        self.progress.phase(f"TensorRT: {name}", self._totals.get(name))
        if self._done[name]:
            self.progress.advance(self._done[name])


def progress_monitor(trt: Any, reporter: BuildProgress) -> Any:
    """TensorRT's interface around ``reporter``; it must outlive the build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, total: int) -> None:  # noqa: ARG002
            try:
                reporter.start(name, total)
            except BaseException as error:
                reporter.interruption = error

        def step_complete(self, name: str, step: int) -> bool:  # noqa: ARG002
            try:
                return reporter.step(name)
            except BaseException as error:
                reporter.interruption = error
                return False

        def phase_finish(self, name: str) -> None:
            try:
                reporter.finish(name)
            except BaseException as error:
                reporter.interruption = error

    return Monitor()
