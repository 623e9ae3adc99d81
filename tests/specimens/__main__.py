"""Measures the specimens, and writes ``docs/coverage.json`` and ``docs/coverage.md`` (`make coverage`)."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests import conftest  # mends torchvision before a library imports it
from tests.specimens import SPECIMENS, STRANGERS
from tests.specimens.measure import measure, prove
from tests.specimens.table import Row, document, page

DOCS = conftest.REPOSITORY / "docs"
JSON, PAGE = DOCS / "coverage.json", DOCS / "coverage.md"
PACKAGES = ("torchvision", "open_clip_torch", "safetensors")
"""Whose versions count here, beside those that every result records."""


def main(words: list[str] | None = None) -> int:
    """Measure, write, and say what is not as it should be."""
    parser = argparse.ArgumentParser(prog="make coverage", description=__doc__)
    parser.add_argument("--only", default="", help="measure those whose source/name holds this, keep the rest")
    chosen = parser.parse_args(words)
    import torch

    torch.set_num_threads(1)
    rows, strangers = _kept("specimens"), _kept("strangers")
    for specimen in SPECIMENS:
        if chosen.only in specimen.id or specimen.id not in rows:
            rows[specimen.id] = _row(specimen, measure)
    for stranger in STRANGERS:
        if chosen.only in stranger.id or stranger.id not in strangers:
            strangers[stranger.id] = _row(stranger, lambda *given: {"proved": prove(*given)[1]})
    measured = document(
        [rows[entry.id] for entry in SPECIMENS], [strangers[entry.id] for entry in STRANGERS], _environment()
    )
    JSON.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(measured), encoding="utf-8")
    return 0


def _kept(part: str) -> dict[str, Row]:
    if not JSON.exists():
        return {}
    rows = [Row.from_dict(entry) for entry in json.loads(JSON.read_text(encoding="utf-8"))[part]]
    return {row.id: row for row in rows}


def _row(specimen: Any, act: Any) -> Row:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        cells = act(specimen, Path(folder))
    verdicts = " ".join(f"{name}={cell.verdict}" for name, cell in cells.items())
    sys.stderr.write(f"{specimen.id}: {verdicts} ({time.perf_counter() - started:.1f} s)\n")
    return Row(specimen.source, specimen.family, specimen.name, cells)


def _environment() -> dict[str, Any]:
    from vit_deploy.environment import environment, package_version

    known = environment()
    versions = known["packages"] | {name: package_version(name) or "" for name in PACKAGES}
    packages = {name: version for name, version in sorted(versions.items()) if version}
    return {"python": known["python"], "system": known["system"], "packages": packages}


if __name__ == "__main__":
    sys.exit(main())
