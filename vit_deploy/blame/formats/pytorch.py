"""Looking into eager PyTorch: taps are read by hooks, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from vit_deploy.blame.formats import require_taps, require_vit, with_tap_specs
from vit_deploy.blame.taps import TOKENS, stream_taps
from vit_deploy.blame.watching import watched
from vit_deploy.errors import RunFailed
from vit_deploy.protocols import BaseSession

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from vit_deploy.facts import Device, RuntimeFacts
    from vit_deploy.protocols import Arrays, Artefact, Runtime, SessionOptions, Step


def found_taps(artefact: Artefact) -> tuple[str, ...]:
    """See :func:`vit_deploy.blame.formats.found_taps`."""
    stream = stream_taps(require_vit(artefact).depth)
    return stream if TOKENS in artefact.spec.output_names else (*stream, TOKENS)


def tapped(artefact: Artefact, taps: Sequence[str], folder: Path) -> NoReturn:  # noqa: ARG001 - as every format
    """See :func:`vit_deploy.blame.formats.tapped`.

    Raises:
        RunFailed: always: the file holds weights and no graph; :func:`open_tapped` reads the module.
    """
    raise RunFailed(
        f"{artefact.name} is weights without a graph: no file can name its taps",
        expected="a session of vit_deploy.blame.formats.open_tapped",
    )


def open_tapped(
    artefact: Artefact, taps: Sequence[str], runtime: Runtime, device: Device, options: SessionOptions
) -> WatchedSession:
    """See :func:`vit_deploy.blame.formats.open_tapped`."""
    require_taps(artefact, taps, dict.fromkeys(found_taps(artefact)))
    outputs = [tap for tap in taps if tap == TOKENS]
    opened = with_tap_specs(artefact, outputs, artefact.path)
    session: Any = runtime.open(opened, device, options)
    if not hasattr(session, "module"):
        session.close()
        raise RunFailed(
            f"a session of {runtime.name} does not show its module", expected="eager PyTorch in this process"
        )
    stream = tuple(tap for tap in taps if tap != TOKENS)
    return WatchedSession(with_tap_specs(artefact, taps, artefact.path), session, stream)


class WatchedSession(BaseSession):
    """A session of eager PyTorch whose runs give taps beside the outputs."""

    def __init__(self, artefact: Artefact, session: Any, taps: tuple[str, ...]) -> None:
        super().__init__(artefact)
        self._session = session
        self._taps = taps
        self.facts: RuntimeFacts = session.facts

    def _run(self, inputs: Arrays) -> Arrays:
        kept: dict[str, torch.Tensor] = {}

        def keep(tap: str, stream: torch.Tensor) -> None:
            if tap in self._taps:
                kept[tap] = stream.float().cpu()

        with watched(self._session.module, keep):
            outputs = self._session.run(inputs)
        return {**outputs, **{tap: kept[tap].numpy() for tap in self._taps}}

    def stage(self, inputs: Arrays) -> Step:
        """See :class:`vit_deploy.protocols.Session`: without the taps."""
        step: Step = self._session.stage(inputs)
        return step

    def close(self) -> None:
        """Release the session."""
        self._session.close()
