"""Writing a bundle's default, and nothing else of its manifest."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vit_deploy.bundle.durable import replace_manifest
from vit_deploy.bundle.folder import LOCK_NAME, STAGING
from vit_deploy.bundle.reader import Bundle
from vit_deploy.errors import OutputFailed, RunFailed

if TYPE_CHECKING:
    from vit_deploy.bundle.default import DefaultRecord

LOCK_TIMEOUT_S = 600.0


def require_writable_bundle(path: str | Path) -> None:
    """Find out that a default cannot be written before minutes are spent on what it would say.

    Raises:
        OutputFailed: when nothing can be written into the bundle's folder.
    """
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def write_default(path: str | Path, default: DefaultRecord) -> Bundle:
    """Put ``default`` into the manifest as it is now, under the bundle's lock.

    Another process may have written to the bundle since it was read: what it wrote stays.

    Returns:
        The bundle as it is then.

    Raises:
        OutputFailed: when it cannot be written, or another process does not give the lock back.
        RunFailed: when the artefact is not in the bundle any more as it was measured.
    """
    from filelock import FileLock, Timeout

    directory = Path(path)
    staging = directory / STAGING
    try:
        with FileLock(directory / LOCK_NAME).acquire(timeout=LOCK_TIMEOUT_S, poll_interval=0.1):
            bundle = Bundle.open(directory)
            _refuse_stale(bundle, default)
            manifest = bundle.manifest.model_copy(update={"default": default})
            try:
                staging.mkdir(exist_ok=True)
                replace_manifest(directory, staging, manifest)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            return Bundle(directory, manifest)
    except Timeout as error:
        raise OutputFailed(
            f"another process has written to {str(path)!r} for {LOCK_TIMEOUT_S:.0f} s",
            next_command="wait for it, then tune again",
        ) from error
    except OSError as error:
        raise _unwritable(path, error) from error


def _refuse_stale(bundle: Bundle, default: DefaultRecord) -> None:
    objection = default.objection(bundle.records)
    if objection:
        raise RunFailed(
            f"the bundle was changed while it was tuned: {objection}",
            expected="the artefacts that were measured",
            next_command=f"vit-deploy tune {bundle.path} again",
        )


def _unwritable(path: str | Path, error: OSError) -> OutputFailed:
    return OutputFailed(
        f"the default of the bundle at {str(path)!r} cannot be written: {error.strerror or error}",
        expected="a writable folder",
        next_command="copy the bundle to where you may write, or give --dry-run",
    )
