"""The folder that a package is compiled in: in our own cache, locked while it is used, gone afterwards.

Whoever is killed leaves its folder behind without a lock; the next export removes it. PyTorch writes the
compiler's command as one line and parts it at blanks, so that no path in it may have one.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vit_deploy.environment import cache_folder
from vit_deploy.errors import OutputFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK = "in-use.lock"
_PREFIX = "compile-"
_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """An empty folder whose path a compiler's command can hold; removed when the context ends.

    Raises:
        OutputFailed: when none can be made.
    """
    from filelock import FileLock

    home = _home()
    clear_stale(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))
    except OSError as error:
        raise OutputFailed(
            f"no folder to compile in can be made: {error}",
            expected="a cache folder that can be written, with room for three times the weights",
            next_command="export VIT_DEPLOY_CACHE=FOLDER, with one that is writable and has room",
        ) from error
    try:
        with FileLock(folder / _LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_stale(home: Path) -> None:
    """Remove the folders of those who were killed: nobody holds their locks."""
    from filelock import FileLock, Timeout

    for folder in home.glob(f"{_PREFIX}*"):
        with contextlib.suppress(Timeout, OSError):
            if not (folder / _LOCK).exists():
                continue  # it was made a moment ago
            with FileLock(folder / _LOCK, timeout=0):
                pass
            shutil.rmtree(folder, ignore_errors=True)


def _home() -> Path:
    """Where such folders are made: our cache, or the system's temporary folder where that has a blank."""
    places = (cache_folder().absolute() / "pt2", Path(tempfile.gettempdir()).absolute() / "vit-deploy-pt2")
    for place in places:
        if _PLAIN.fullmatch(str(place)):
            return place
    raise OutputFailed(
        f"there are blanks or special characters in the paths of both {str(places[0])!r} and "
        f"{str(places[1])!r}, and PyTorch cannot call a compiler there",
        expected="a folder whose path has letters, digits, '.', '-', '_' and '/' only",
        next_command="export VIT_DEPLOY_CACHE=FOLDER, with such a one",
    )
