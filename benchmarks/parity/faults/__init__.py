"""Every fault that is injected, one file for each kind."""

from __future__ import annotations

from benchmarks.parity.faults import graph, model, preprocessing, quantised, runtime, weights

FAULTS = (
    *model.FAULTS,
    *weights.FAULTS,
    *graph.FAULTS,
    *quantised.FAULTS,
    *preprocessing.FAULTS,
    *runtime.FAULTS,
)
"""All of them, in the order of the table."""
