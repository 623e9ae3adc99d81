"""Whose fault it is that an artefact resizes pictures wrongly: what this version exports is asked to do it too.

The ladder of stages runs what the artefact failed on again, and that is a run of its network. Its resize is
judged apart, on pictures of other sizes (:mod:`vit_deploy.parity.resizing`), and so it is here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy import registry
from vit_deploy.blame.record import Culprit, StageReading
from vit_deploy.blame.taps import EMBED
from vit_deploy.errors import VitDeployError
from vit_deploy.protocols import SessionOptions

if TYPE_CHECKING:
    from vit_deploy.blame.record import StageKind
    from vit_deploy.blame.stages import Walk

WHAT = "the artefact's own resizing of pictures"


def blame_resize(walk: Walk) -> Culprit:
    """The file's fault if a fresh export resizes rightly in the same backend, and the backend's if it does not.

    Args:
        walk: of an artefact whose network holds and whose resize does not.

    Raises:
        HostileInput: when the reference weights cannot be read.
    """
    try:
        reason = _fresh(walk)
    except VitDeployError as error:
        note = f"a fresh export could not be asked: {error.found}"
        return Culprit(None, EMBED, f"{WHAT}, before anything else", notes=(note,))
    name = f"a fresh export in {walk.runtime.name}"
    fresh = StageReading("export", name, None, not reason, reason)
    stage: StageKind = "runtime" if reason else "export"
    because = (
        f"what this version exports does not resize rightly in {walk.runtime.name} either"
        if reason
        else "the file is not what this version exports, which resizes rightly"
    )
    return Culprit(stage, EMBED, f"{WHAT}, introduced at the {stage} stage: {because}", stages=(fresh,))


def _fresh(walk: Walk) -> str:
    """What is wrong with the resizing of a fresh export; nothing where it is right."""
    artefact, folder = walk.artefact, walk.folder / "resized"
    folder.mkdir()
    exporter = registry.exporter(artefact.format)
    exported = exporter.export(
        walk.check.model, artefact.spec, exporter.Options(), folder, walk.progress, walk.artefact
    )
    made = replace(artefact, path=folder / exported.files[0], spec=exported.spec, facts=exported.facts)
    with walk.opener(walk.runtime, made, walk.device, SessionOptions()) as session:
        return walk.check.resizing(made, session, walk.progress)
