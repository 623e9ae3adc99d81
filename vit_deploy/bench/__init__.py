"""How fast is an artefact? Worker processes, interleaved rounds, raw samples, statistics.

The protocol: every case runs in a worker process of its own. Workers that are compared live side
by side, and the coordinator lets one measure at a time, in an order that is shuffled (seeded) anew
in each round, so that a drift of the machine meets all alike. A worker that is not measuring
blocks on its pipe. Raw samples are kept; every figure is derived from them.
"""

from vit_deploy.bench.cases import Case
from vit_deploy.bench.coordinator import Settings, run_bench
from vit_deploy.bench.result import BenchResult, Row

__all__ = ["BenchResult", "Case", "Row", "Settings", "run_bench"]
