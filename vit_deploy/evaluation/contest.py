"""Every artefact answers the same pictures, each in a process of its own.

One that cannot be opened, crashes or never answers is told of, and the others go on. They take turns: while
one computes the others are idle, so that each has the whole machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import VitDeployError
from vit_deploy.protocols import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np

    from vit_deploy.evaluation.decoding import Ready
    from vit_deploy.facts import Device, RuntimeFacts
    from vit_deploy.protocols import Artefact, Progress, Runtime, Session

    Array = np.ndarray[Any, Any]
    Opener = Callable[[Runtime, Artefact, Device, SessionOptions], Session]

TOP = 5
"""How many answers are kept of each picture."""

NO_ANSWER = -1
"""What stands for the answer of a picture whose logits are not all finite: it is none of the classes."""


@dataclass(frozen=True)
class Entrant:
    """An artefact and what runs it.

    Attributes:
        artefact: what is run.
        runtime: by what.
        device: where.
        scored: the output that scores classes.
    """

    artefact: Artefact
    runtime: Runtime
    device: Device
    scored: str


@dataclass
class Contestant:
    """An entrant with its answers so far.

    Attributes:
        entrant: who.
        session: open, unless ``error`` says why not.
        error: why it was given up.
        facts: what the backend says of itself.
        answers: the best classes of each picture, ``(k,)`` each, the best first.
    """

    entrant: Entrant
    session: Session | None = None
    error: VitDeployError | None = None
    facts: RuntimeFacts | None = None
    answers: list[Array] = field(default_factory=list)

    def answer(self, batch: Sequence[Ready], batch_size: int) -> None:
        """Answer the pictures of a batch; give up where that fails."""
        if self.session is None:
            return
        try:
            self.answers += self._answers(self.session, batch, batch_size)
        except VitDeployError as error:
            self.give_up(error)

    def give_up(self, error: VitDeployError) -> None:
        """Note why, and end the session."""
        self.error = error
        self.close()

    def close(self) -> None:
        """End the session, if there is one."""
        if self.session is not None:
            self.session.close()
            self.session = None

    def _answers(self, session: Session, batch: Sequence[Ready], batch_size: int) -> list[Array]:
        spec = self.entrant.artefact.spec
        largest = min(batch_size, spec.batch.maximum)
        by_place: dict[int, Array] = {}
        for group in _of_one_size(batch, spec.contract):
            for start in range(0, len(group), largest):
                part = group[start : start + largest]
                tops = self._run(session, [ready.arrays[spec.contract] for ready in part])
                by_place |= {ready.place: top for ready, top in zip(part, tops, strict=True)}
        return [by_place[ready.place] for ready in batch]

    def _run(self, session: Session, pictures: list[Array]) -> Array:
        import numpy as np

        spec = self.entrant.artefact.spec
        # An engine may not take so few; what is added is dropped again.
        missing = max(0, spec.batch.minimum - len(pictures))
        stacked = np.stack(pictures + [pictures[-1]] * missing)
        name, dtype = spec.inputs[0].name, spec.inputs[0].dtype
        logits = session.run({name: stacked.astype(dtype, copy=False)})[self.entrant.scored]
        return best_classes(logits[: len(pictures)])


def best_classes(logits: Array) -> Array:
    """The :data:`TOP` best classes of ``(b, num_classes)``, the best first, as int32 ``(b, k)``.

    Of two equal logits the lower class comes first, as ``vit-deploy predict`` has it. A row with NaN or Inf
    answers :data:`NO_ANSWER`.
    """
    import numpy as np

    values = logits.astype(np.float32)
    order = np.argsort(-values, axis=1, kind="stable")[:, :TOP].astype(np.int32)
    order[~np.isfinite(values).all(axis=1)] = NO_ANSWER
    best: Array = order
    return best


def _of_one_size(batch: Sequence[Ready], contract: Any) -> list[list[Ready]]:
    """The pictures in groups that fit into one array."""
    groups: dict[tuple[int, ...], list[Ready]] = {}
    for ready in batch:
        groups.setdefault(ready.arrays[contract].shape, []).append(ready)
    return list(groups.values())


def hold(
    entrants: Sequence[Entrant],
    pictures: Iterable[Ready],
    *,
    batch_size: int,
    threads: int | None,
    open_session: Opener,
    unreadable: Callable[[Ready], None],
    progress: Progress,
) -> list[Contestant]:
    """Have every entrant answer every picture that can be read.

    Args:
        entrants: the first one is what the others are compared with.
        pictures: in order; each is dropped when all have answered it.
        batch_size: pictures in one inference, where an artefact takes so many.
        threads: CPU threads of a session; the backend's default when ``None``.
        open_session: opens an entrant.
        unreadable: told of each picture that could not be read; it may raise.
        progress: advanced by a step for each picture.

    Returns:
        One for each entrant, closed.

    Raises:
        VitDeployError: where the first one fails: nothing could be compared then.
    """
    contestants = [Contestant(entrant) for entrant in entrants]
    try:
        for contestant in contestants:
            _open(contestant, threads, open_session)
            _require_reference(contestants[0])
        for batch in _batches(pictures, batch_size):
            readable = [ready for ready in batch if ready.error is None]
            for ready in batch:
                if ready.error is not None:
                    unreadable(ready)
            for contestant in contestants if readable else ():
                contestant.answer(readable, batch_size)
                _require_reference(contestants[0])
            progress.advance(len(batch))
    finally:
        for contestant in contestants:
            contestant.close()
    return contestants


def _open(contestant: Contestant, threads: int | None, open_session: Opener) -> None:
    entrant = contestant.entrant
    options = SessionOptions(threads=threads if entrant.device.kind == "cpu" else None)
    try:
        contestant.session = open_session(entrant.runtime, entrant.artefact, entrant.device, options)
        contestant.facts = contestant.session.facts
    except VitDeployError as error:
        contestant.give_up(error)


def _require_reference(reference: Contestant) -> None:
    if reference.error is not None:
        raise reference.error


def _batches(pictures: Iterable[Ready], size: int) -> Iterator[list[Ready]]:
    batch: list[Ready] = []
    for ready in pictures:
        batch.append(ready)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
