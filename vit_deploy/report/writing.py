"""Reports on the disk: whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from vit_deploy.bundle.durable import sync_directory
from vit_deploy.errors import OutputFailed


def require_writable(path: str | Path) -> None:
    """Find out that a report cannot be written before minutes are spent on what it would say.

    Raises:
        OutputFailed: when the folder is not there or not writable, or the path is a folder.
    """
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise _failed(path, f"there is no folder {str(target.parent)!r}")
    if target.is_dir():
        raise _failed(path, "it is a folder")
    if not os.access(target if _is_special(target) else target.parent, os.W_OK):
        raise _failed(path, "you may not write there")


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8: a reader sees the old file or the new one, never a part of it.

    Raises:
        OutputFailed: when it cannot be written.
    """
    require_writable(path)
    target = Path(path).resolve()  # a link stays one
    # The name is short, as the target's own may be as long as names can be.
    staged = target.with_name(f".vit-deploy-{os.getpid()}.part")
    try:
        if _is_special(target):  # a pipe or a device cannot be replaced
            target.write_text(text, encoding="utf-8")
            return
        with staged.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(target)
        sync_directory(target.parent)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise _failed(path, error.strerror or str(error)) from error


def _is_special(target: Path) -> bool:
    return target.exists() and not target.is_file()


def _failed(path: str | Path, why: str) -> OutputFailed:
    return OutputFailed(
        f"the report {str(path)!r} cannot be written: {why}",
        expected="a file name in a folder that exists and is writable",
        next_command="name another file",
    )
