"""A virtual environment for each list of pins: made once, kept, and never ours.

It is named by the hash of its pins, so that peers which pin the same share one, and a changed pin makes
a new one. The stamp is written last: an interrupted installation starts again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.peers.places import WORK
from benchmarks.peers.recipe import PreparationFailed

if TYPE_CHECKING:
    from pathlib import Path

STAMP = "installed.json"
WORDS_KEPT = 2000


@dataclass(frozen=True)
class PeerEnvironment:
    """Where an environment lies, what is in it, and how long it took to install."""

    folder: Path
    packages: dict[str, str]
    seconds: float

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"


def pins(requirements: Path) -> list[str]:
    """The lines of a requirements file that pin something, in order.

    Raises:
        PreparationFailed: for a line that is not ``name==version``: an environment must not drift.
    """
    lines = [line.partition("#")[0].strip() for line in requirements.read_text("utf-8").splitlines()]
    found = [line for line in lines if line]
    loose = [line for line in found if line.count("==") != 1]
    if loose or not found:
        raise PreparationFailed(f"{requirements.parent.name}: not pinned exactly: {', '.join(loose) or 'none'}")
    return found


def folder_for(requirements: Path) -> Path:
    """Where the environment of these pins is kept."""
    told = "\n".join([f"python {sys.version_info[0]}.{sys.version_info[1]}", *sorted(pins(requirements))])
    return WORK / "environments" / hashlib.sha256(told.encode()).hexdigest()[:12]


def environment_for(requirements: Path) -> PeerEnvironment:
    """The environment of these pins, made if it is not there.

    Raises:
        PreparationFailed: with the last that pip said.
    """
    folder = folder_for(requirements)
    stamp = folder / STAMP
    if not stamp.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        told = _install(folder, requirements)
        stamp.write_text(json.dumps({"seconds": time.monotonic() - began, "packages": told}, indent=1) + "\n")
    held: dict[str, Any] = json.loads(stamp.read_text("utf-8"))
    return PeerEnvironment(folder, held["packages"], held["seconds"])


def _install(folder: Path, requirements: Path) -> dict[str, str]:
    """Make it, and give what is in it by name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    python = str(folder / "bin" / "python")
    quiet = "--disable-pip-version-check"
    # Every pin is named, so nothing else is looked up; a wrong pin must fail rather than be mended.
    _run([python, "-m", "pip", "install", "-q", quiet, "--no-deps", "-r", str(requirements)])
    listed = _run([python, "-m", "pip", "list", quiet, "--format", "json"])
    return {entry["name"].lower().replace("_", "-"): entry["version"] for entry in json.loads(listed)}


def _run(command: list[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise PreparationFailed(f"{' '.join(command[-4:])}: {finished.stderr.strip()[-WORDS_KEPT:]}")
    return finished.stdout
