"""How close to the limit: the matrix products of a model's own shapes, timed in the same run as its artefacts.

The limit is no data sheet's: it is what the best library at hand reaches on this machine, at this moment,
with the products that the model needs and nothing else. See ``docs/ceiling.md``.
"""

from __future__ import annotations

from vit_deploy.bench.ceiling.limit import ceiling_cases, describe_ceiling, limit_of
from vit_deploy.bench.ceiling.work import Work, work_of

__all__ = ["Work", "ceiling_cases", "describe_ceiling", "limit_of", "work_of"]
