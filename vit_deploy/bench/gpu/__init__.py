"""What a benchmark learns from an NVIDIA GPU beside wall-clock time: copies and compute apart, energy, clocks.

Everything here is an extra: without a GPU, without its management library or on a card that does not tell,
the figure is absent, and the case is measured all the same.
"""

from __future__ import annotations

from vit_deploy.bench.gpu.watch import GpuWatch

__all__ = ["GpuWatch"]
