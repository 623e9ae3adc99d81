"""A grid of settings: every artefact that fits is measured at each point of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from vit_deploy.environment import usable_cores
from vit_deploy.errors import UsageFailed, unknown_name
from vit_deploy.spec import CONTRACTS, MAX_BATCH, PRECISIONS, Contract, Precision

if TYPE_CHECKING:
    from collections.abc import Iterable

AllCores = Literal["all"]
PerThread = Literal["threads"]


class Lane(NamedTuple):
    """CPU threads of a worker, and the inferences side by side that share them."""

    threads: int
    streams: int


@dataclass(frozen=True)
class Grid:
    """What is asked for. An empty filter lets everything in.

    Attributes:
        batch_sizes: images in one inference.
        image_sizes: ``(height, width)`` of what the network sees; the model's own when empty.
        threads: CPU threads of a worker, all its streams together; ``"all"`` is all usable cores. Where there
            are none it is what :func:`default_threads` says.
        streams: inferences side by side; ``"threads"`` is one for each thread.
        contracts: only artefacts that take these. The reference is measured whatever they say: it is what
            the others are compared with.
        precisions: only artefacts of these; the reference is measured in those of them that it computes in,
            and in fp32 where it computes in none.
        formats: only artefacts of these.
        emulate: whether artefacts are measured in backends that compute them in another precision, such as fp16
            in ONNX Runtime on a CPU.
        cuda_graph: whether inferences are replayed as CUDA graphs, in the backends that can.
    """

    batch_sizes: tuple[int, ...] = (1,)
    image_sizes: tuple[tuple[int, int], ...] = ()
    threads: tuple[int | AllCores, ...] = ()
    streams: tuple[int | PerThread, ...] = (1,)
    contracts: tuple[Contract, ...] = ()
    precisions: tuple[Precision, ...] = ()
    formats: tuple[str, ...] = ()
    cuda_graph: bool = False
    emulate: bool = False

    def __post_init__(self) -> None:
        _check_numbers("batch-size", self.batch_sizes, MAX_BATCH, ())
        _check_numbers("threads", self.threads or ("all",), None, get_args(AllCores))
        _check_numbers("streams", self.streams, None, get_args(PerThread))
        for size in self.image_sizes:
            _check_numbers("image-size", size, None, ())
        _check_names("contract", self.contracts, CONTRACTS)
        _check_names("precision", self.precisions, PRECISIONS)

    def thread_counts(self) -> list[int]:
        """The numbers of threads that are meant, each once.

        Raises:
            UsageFailed: for more than there are cores to use.
        """
        cores = usable_cores()
        asked = [cores if count == "all" else count for count in self.threads] or [default_threads()]
        for count in asked:
            if count > cores:
                raise UsageFailed(
                    f"--threads is {count}, and this process may use {_cores(cores)}: its threads would wait "
                    "for each other, and the times would be of that",
                    expected=f"--threads of at most {cores}",
                    next_command=f"--threads {cores}, or leave --threads out",
                )
        return list(dict.fromkeys(asked))

    def lanes(self, *, on_cpu: bool) -> tuple[list[Lane], list[UsageFailed]]:
        """Threads and streams that go together, and why others do not.

        Args:
            on_cpu: whether the streams share the threads; those of a GPU do not.

        Raises:
            UsageFailed: for more threads than cores, and when no combination is left.
        """
        counts = self.thread_counts()
        if not on_cpu:
            threads = max(counts)
            asked = [threads if streams == "threads" else streams for streams in self.streams]
            return [Lane(threads, streams) for streams in dict.fromkeys(asked)], []
        wanted = [
            Lane(threads, threads if streams == "threads" else streams)
            for threads in counts
            for streams in self.streams
        ]
        lanes = [lane for lane in dict.fromkeys(wanted) if not lane.threads % lane.streams]
        refused = [_uneven(lane) for lane in dict.fromkeys(wanted) if lane.threads % lane.streams]
        if not lanes:
            raise refused[0]
        return lanes, refused


def default_threads() -> int:
    """``OMP_NUM_THREADS`` where the user has set it, else all usable cores; never more than those."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(told), usable_cores()) if re.fullmatch("[1-9][0-9]{0,3}", told) else usable_cores()


def _cores(count: int) -> str:
    return f"{count} core{'s' if count != 1 else ''}"


def _uneven(lane: Lane) -> UsageFailed:
    """Why so many streams do not go with so many threads."""
    what = f"{lane.streams} streams and {lane.threads} thread{'s' if lane.threads != 1 else ''}"
    if lane.streams > lane.threads:
        return UsageFailed(
            f"{what}: each stream needs a thread of its own",
            expected=f"--streams of at most {lane.threads}",
            next_command=f"--streams {lane.threads}, or --threads {lane.streams} where there are the cores",
        )
    return UsageFailed(
        f"{what}: the streams cannot have the same number of threads each",
        expected="a number of --streams that divides that of --threads",
        next_command="--streams 1,threads",
    )


def _check_numbers(flag: str, values: Iterable[Any], most: int | None, words: tuple[str, ...]) -> None:
    """Refuse what is no number above 0, nor one of ``words``, and an empty list."""
    limit = f" of at most {most}" if most else ""
    allowed = ", or ".join([f"whole numbers above 0{limit}", *words])
    for value in values:
        number = type(value) is int and value > 0 and (most is None or value <= most)
        if not number and value not in words:
            raise UsageFailed(f"--{flag} is {value!r}", expected=allowed)
    if not list(values):
        raise UsageFailed(f"--{flag} is empty", expected=allowed)


def _check_names(kind: str, names: Iterable[str], valid: tuple[str, ...]) -> None:
    for name in names:
        if name not in valid:
            raise unknown_name(kind, name, valid)
