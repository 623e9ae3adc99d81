"""Looking into an artefact, one file per format: ``vit_deploy.blame.formats.<format>``.

Such a file has two functions::

    def found_taps(artefact: Artefact) -> tuple[str, ...]
    def tapped(artefact: Artefact, taps: Sequence[str], folder: Path) -> Artefact

and, where an artefact with taps cannot be written to a file, a third that opens it in this process::

    def open_tapped(artefact, taps, runtime, device, options) -> Session

All raise :class:`RunFailed` where the artefact shows no taps.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_deploy.blame.taps import tap_spec
from vit_deploy.errors import RunFailed
from vit_deploy.model.config import ViTConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vit_deploy.facts import Device
    from vit_deploy.protocols import Artefact, Runtime, Session, SessionOptions

    Opener = Callable[[Runtime, Artefact, Device, SessionOptions], Session]


def found_taps(artefact: Artefact) -> tuple[str, ...]:
    """The taps that an artefact shows, in order: those of the stream, and ``tokens`` where it is there.

    Raises:
        RunFailed: when it shows none, or its format cannot be looked into.
    """
    require_vit(artefact)
    names: tuple[str, ...] = _module(artefact).found_taps(artefact)
    return names


def tapped(artefact: Artefact, taps: Sequence[str], folder: Path) -> Artefact:
    """The same artefact with taps as further outputs, float32 ``(b, n, d)`` each, behind its own.

    Args:
        artefact: as it is judged; nothing of it is changed.
        taps: names, of those that :func:`found_taps` gives.
        folder: where its files are written; weights that several artefacts share are written once.

    Raises:
        RunFailed: when it shows no such taps, or its format cannot be looked into.
    """
    require_vit(artefact)
    with_taps: Artefact = _module(artefact).tapped(artefact, tuple(taps), folder)
    return with_taps


def open_tapped(
    artefact: Artefact,
    taps: Sequence[str],
    folder: Path,
    runtime: Runtime,
    device: Device,
    options: SessionOptions,
    open_session: Opener,
) -> Session:
    """A session of an artefact whose runs give taps beside its own outputs.

    Args:
        artefact: as it is judged.
        taps: names, of those that :func:`found_taps` gives.
        folder: where files may be written.
        runtime: runs it.
        device: where.
        options: what the runtime is told.
        open_session: opens an artefact as it is opened to be judged.

    Raises:
        RunFailed: when it shows no such taps, its format cannot be looked into, or the backend fails.
    """
    require_vit(artefact)
    module = _module(artefact)
    if hasattr(module, "open_tapped"):
        session: Session = module.open_tapped(artefact, tuple(taps), runtime, device, options)
        return session
    with_taps = tapped(artefact, taps, folder)
    opened = open_session(runtime, with_taps, device, options)
    with_taps.path.unlink(missing_ok=True)  # it is read by now, and may hold a copy of all weights
    return opened


def with_tap_specs(artefact: Artefact, taps: Sequence[str], path: Path) -> Artefact:
    """The artefact at ``path``, whose spec has ``taps`` behind its own outputs."""
    config = require_vit(artefact)
    more = tuple(tap_spec(tap, artefact.spec, config) for tap in taps)
    spec = replace(artefact.spec, outputs=(*artefact.spec.outputs, *more))
    return replace(artefact, path=path, spec=spec)


def require_vit(artefact: Artefact) -> ViTConfig:
    """The config of the artefact's model.

    Raises:
        RunFailed: when it is none of our ViTs.
    """
    if not isinstance(artefact.config, ViTConfig):
        raise RunFailed(
            f"{artefact.name} is a module of its own, and nothing is known of its inside",
            expected="a Vision Transformer, whose blocks have names",
        )
    return artefact.config


def require_taps(artefact: Artefact, taps: Sequence[str], places: Mapping[str, object]) -> None:
    """Refuse taps that an artefact does not show.

    Raises:
        RunFailed: naming them.
    """
    missing = [tap for tap in taps if tap not in places]
    if missing:
        raise RunFailed(
            f"{artefact.name} does not show {', '.join(missing)}", expected=f"taps of {', '.join(places)}"
        )


def _module(artefact: Artefact) -> Any:
    name = f"{__name__}.{artefact.format}"
    try:
        # A format's name may come from a manifest: it must not lead anywhere else.
        if not artefact.format.isidentifier():
            raise ModuleNotFoundError(name=name)
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise RunFailed(
            f"artefacts of the format {artefact.format} cannot be looked into",
            expected="a format whose file is a graph of operators",
        ) from error
