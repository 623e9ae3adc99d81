"""The system under test behind LoadGen: a queue, and one Python thread for each stream.

LoadGen calls :meth:`SystemUnderTest.issue`, which puts the samples' ids on a queue and returns, so that the
next query is issued on time. A stream's thread takes ids, runs a staged step, and tells LoadGen that they
are done. Both ends hold the GIL for a few microseconds; the step runs without it where its backend lets it
go. Where one query at a time is answered by one stream there is nothing to queue: LoadGen's own thread runs
the step, which saves the hand-over between threads.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import RunFailed, VitDeployError
from vit_deploy.garbage import collection_off

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from vit_deploy.protocols import Step

    Steps = Mapping[int, Step]
    """Staged steps of one stream by their batch size."""


class SystemUnderTest:
    """Answers LoadGen's queries with staged steps. A context manager: its threads live inside it.

    Args:
        streams: the steps of each stream.
        merge: whether a stream may put queries that wait into one batch (dynamic batching).
        inline: answer in LoadGen's thread; for one stream, one query at a time.

    Attributes:
        queries: how many were issued.
        samples: how many they held.
        batches: how often each batch size ran.
    """

    def __init__(self, streams: Sequence[Steps], *, merge: bool = False, inline: bool = False) -> None:
        import mlperf_loadgen as loadgen

        self._complete, self._response = loadgen.QuerySamplesComplete, loadgen.QuerySampleResponse
        self._streams = streams
        self._most = max(streams[0])
        self._fit = _fit(sorted(streams[0]))
        self._merge, self._inline = merge, inline
        self._waiting: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()
        self._ready = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._garbage = collection_off(collect_first=True)
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._began_ns = self._ended_ns = 0
        self.queries = self.samples = 0
        self.batches: Counter[int] = Counter()

    def issue(self, samples: Sequence[Any]) -> None:
        """LoadGen's ``issue_queries``: one query, of one sample or of many."""
        count = len(samples)
        if not self.queries:
            self._began_ns = time.perf_counter_ns()
        self.queries += 1
        self.samples += count
        if self._inline:
            self._answer(self._streams[0], [sample.id for sample in samples], self.batches)
            return
        # Offline's one query may hold millions: the streams begin while the rest is still being cut.
        put, share = self._waiting.put, self._share(count)
        ids = (sample.id for sample in samples)
        while part := list(itertools.islice(ids, share)):
            put(part)

    def _share(self, count: int) -> int:
        """How many samples of a query go to a stream at once: a full batch, or less to keep all busy."""
        return max(1, min(self._most, -(-count // len(self._streams))))

    def flush(self) -> None:
        """LoadGen's ``flush_queries``: nothing is held back here."""

    def check(self) -> None:
        """Tell of a step that failed.

        Raises:
            VitDeployError: what the step raised, or around it.
        """
        if isinstance(self._error, VitDeployError):
            raise self._error
        if self._error is not None:
            raise RunFailed(
                f"an inference failed: {type(self._error).__name__}: {self._error}"
            ) from self._error

    @property
    def elapsed_s(self) -> float:
        """From the first query's issue to the last one's end."""
        return (self._ended_ns - self._began_ns) / 1e9

    @property
    def rate(self) -> float:
        """Samples per second over that time."""
        return self.samples / max(self.elapsed_s, 1e-9)

    def _work(self, steps: Steps) -> None:
        mine: Counter[int] = Counter()
        try:
            for step in steps.values():  # a thread's first inference makes its pools
                step()
                step.synchronize()
        except Exception as error:
            self._error = error
        self._ready.release()
        while (ids := self._waiting.get()) is not None:
            if self._merge:
                self._gather(ids)
            self._answer(steps, ids, mine)
        with self._lock:
            self.batches += mine

    def _gather(self, ids: list[int]) -> None:
        """Add what waits already, up to a full batch."""
        waiting, most = self._waiting, self._most
        while len(ids) < most:
            try:
                more = waiting.get_nowait()
            except queue.Empty:
                return
            if more is None:  # the end is for every thread: put it back
                waiting.put(None)
                return
            ids += more

    def _answer(self, steps: Steps, ids: list[int], ran: Counter[int]) -> None:
        """Run the samples in batches that fit, the largest first; the last one is padded where it must be.

        After a failure all is answered unrun: LoadGen waits for every sample, and the test is void anyway.
        """
        response, done, total = self._response, 0, len(ids)
        while done < total:
            size = self._fit[min(total - done, self._most)]
            if self._error is None:
                try:
                    step = steps[size]
                    step()
                    step.synchronize()
                except Exception as error:
                    self._error = error
            self._complete([response(one, 0, 0) for one in ids[done : done + size]])
            done += size
            ran[size] += 1
        self._ended_ns = time.perf_counter_ns()

    def __enter__(self) -> Self:
        if not self._inline:
            for number, steps in enumerate(self._streams):
                thread = threading.Thread(
                    target=self._work, args=(steps,), name=f"stream-{number}", daemon=True
                )
                thread.start()
                self._threads.append(thread)
            for _ in self._threads:
                self._ready.acquire()
        self._garbage.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        self._garbage.__exit__(kind, error, trace)


def _fit(sizes: Sequence[int]) -> list[int]:
    """For each number of samples up to the largest size, the size to run: the largest that they fill.

    Args:
        sizes: rising. Fewer samples than the smallest are padded to it.
    """
    return [max((size for size in sizes if size <= count), default=sizes[0]) for count in range(sizes[-1] + 1)]
