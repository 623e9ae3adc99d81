"""Where the comparison keeps what it makes: outside version control, and reused."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
TOOLS = HERE / "tools"
WORK = HERE / ".work"
"""Environments, checkpoints, exports and caches. Everything in it can be made again."""
RESULTS = REPOSITORY / "benchmarks" / "results"
README = REPOSITORY / "README.md"
GUIDE = REPOSITORY / "docs" / "precision" / "choosing.md"
