"""What can be tried: each proven artefact on each backend that opens it here, with each setting.

Limits: CUDA graphs are not tried; on a GPU neither are threads and streams.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from vit_deploy import registry
from vit_deploy.bench.cases import Case
from vit_deploy.bundle.default import MAX_THREADS, hashes_of
from vit_deploy.environment import usable_cores
from vit_deploy.errors import UsageFailed
from vit_deploy.facts import Device

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vit_deploy.bundle.default import Objective
    from vit_deploy.bundle.manifest import ArtefactRecord
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.protocols import Runtime


class Candidate(Case):
    """A case that is compared with every other one of its device, whatever their batch sizes."""

    @property
    def peers(self) -> tuple[str, int, tuple[int, int] | None]:
        """The same for all of a device: so their workers take turns with each other."""
        return self.device, 0, None


@dataclass(frozen=True)
class LeftOut:
    """What is not tried: an artefact, or a backend for it; why, and what mends it."""

    name: str
    reason: str
    mend: str = ""


@dataclass(frozen=True)
class Wish:
    """What the user restricts the search to; an empty field restricts nothing.

    Attributes:
        backends: names or aliases of runtimes.
        device: as :meth:`vit_deploy.facts.Device.parse` reads it.
        batch_sizes: images in one inference.
        threads: CPU threads, all streams together.
        streams: inferences side by side.
    """

    backends: Sequence[str] = ()
    device: str = ""
    batch_sizes: Sequence[int] = ()
    threads: Sequence[int] = ()
    streams: Sequence[int] = ()

    def __post_init__(self) -> None:
        most = usable_cores()
        for name, given, limit in (
            ("threads", self.threads, most),
            ("streams", self.streams, most),
            ("batch-size", self.batch_sizes, None),
        ):
            for count in given:
                if count < 1 or (limit is not None and count > min(limit, MAX_THREADS)):
                    raise UsageFailed(
                        f"--{name} is {count}",
                        expected=f"from 1 to {limit}, the cores that this process may use"
                        if limit
                        else "at least 1",
                    )


def candidates_of(
    bundle: Bundle, objective: Objective, wish: Wish | None = None
) -> tuple[list[Candidate], list[LeftOut]]:
    """Everything to be tried, the most promising first, and what is left out with the reason.

    Raises:
        UsageFailed: for an unknown backend or device, or settings that go together nowhere.
        HostileInput: when a file was changed.
    """
    wish = wish or Wish()
    named = [registry.runtime(name).name for name in wish.backends]
    device = Device.parse(wish.device) if wish.device else None
    found: list[Candidate] = []
    left_out: list[LeftOut] = []
    for record in bundle.records.values():
        reason = _unproven(record)
        if reason:
            left_out.append(LeftOut(record.name, reason, f"vit-deploy verify {bundle.path}"))
            continue
        bundle.artefact(record.name)  # its hashes are checked before anything is spent on it
        for runtime in registry.runtimes_for(record.format):
            if named and runtime.name not in named:
                continue
            state = runtime.available(device)
            if not state.ok:
                left_out.append(LeftOut(f"{record.name} on {runtime.name}", state.reason, state.mend))
                continue
            if registry.computes(runtime, record.precision, device) != record.precision:
                why = f"it computes {record.precision} in another precision here, or not at all"
                left_out.append(LeftOut(f"{record.name} on {runtime.name}", why, "name another --backend"))
                continue
            base = _base(bundle, record, runtime, device or runtime.devices()[0])
            sizes, misfit = _batch_sizes(record, objective, wish.batch_sizes)
            left_out += [misfit] if misfit else []
            found += _with_settings(base, objective, wish, sizes)
    return sorted(found, key=lambda case: _promise(case, objective)), left_out


def _unproven(record: ArtefactRecord) -> str:
    if record.parity.passed is True:
        return ""
    why = f": {record.parity.reason}" if record.parity.reason else ""
    word = "failed its parity check" if record.parity.passed is False else "was never verified"
    return f"it {word}{why}"


def _base(bundle: Bundle, record: ArtefactRecord, runtime: Runtime, device: Device) -> Candidate:
    size = bundle.config.image_size
    return Candidate(
        bundle=str(bundle.path),
        artefact=record.name,
        format=record.format,
        precision=record.precision,
        backend=runtime.name,
        device=str(device),
        batch_size=1,
        threads=usable_cores(),
        verified=True,
        files=hashes_of(record),
        image_size=size if any(size) else None,
        contract=record.contract,
        worst_ratio=record.parity.worst_ratio,
    )


def powers_up_to(most: int) -> list[int]:
    """1, 2, 4 … and ``most`` itself."""
    powers = [1 << place for place in range(most.bit_length()) if 1 << place <= most]
    return powers if most in powers else [*powers, most]


def _batch_sizes(
    record: ArtefactRecord, objective: Objective, wanted: Sequence[int]
) -> tuple[list[int], LeftOut | None]:
    """The batch sizes at which an artefact was verified that are wanted of it."""
    judged = [size for size in record.parity.details.get("batch_sizes", ()) if isinstance(size, int)]
    least, most = record.batch.minimum, min(record.batch.maximum, max(judged, default=record.batch.maximum))
    asked: Iterable[int] = wanted or (powers_up_to(most) if objective == "throughput" else [1])
    fitting = [size for size in dict.fromkeys(asked) if least <= size <= most]
    if not fitting and objective == "throughput" and not wanted:
        fitting = [most]
    if fitting:
        return fitting, None
    verified = str(most) if least == most else f"{least} to {most}"
    mend = f"--batch-size {least}" if least > 1 else f"vit-deploy export --format {record.format} --maxShapes"
    return [], LeftOut(record.name, f"it is made for, and verified at, a batch of {verified}", mend)


def _with_settings(
    base: Candidate, objective: Objective, wish: Wish, sizes: Sequence[int]
) -> Iterator[Candidate]:
    if base.device != "cpu":
        yield from (replace(base, batch_size=size) for size in sizes)
        return
    threads = list(dict.fromkeys(wish.threads)) or powers_up_to(base.threads)
    for size, count in product(sizes, threads):
        for streams in _streams(objective, wish, count):
            yield replace(base, batch_size=size, threads=count, streams=streams)


def _streams(objective: Objective, wish: Wish, threads: int) -> list[int]:
    """One inference at a time is the quickest and takes least memory: more serve throughput alone."""
    if wish.streams:
        return [count for count in dict.fromkeys(wish.streams) if threads % count == 0]
    if objective != "throughput":
        return [1]
    return [count for count in powers_up_to(threads) if threads % count == 0]


def _promise(case: Case, objective: Objective) -> tuple[int, ...]:
    """What is tried first, should there be no time for all: as much of the machine as can be."""
    if objective == "memory":
        return case.threads, case.batch_size
    return -case.threads, case.streams, -case.batch_size
