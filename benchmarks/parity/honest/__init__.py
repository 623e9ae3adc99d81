"""Artefacts without a fault, of every kind that can be made and run here: none of them may be refused."""

from __future__ import annotations

from benchmarks.parity.honest import exported, otherwise, precisions, specimens

HONEST = (*exported.HONEST, *otherwise.HONEST, *precisions.HONEST, *specimens.HONEST)
"""All of them, in the order of the table."""
