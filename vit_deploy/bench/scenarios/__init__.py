"""MLPerf's scenarios, played by MLPerf's own load generator (`mlcommons-loadgen`).

SingleStream, MultiStream, Offline and Server, in MLPerf's words
(https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc, "Scenarios"). LoadGen
makes the schedule and takes the times; this package is the system under test behind it. It runs in the
worker process of a case (:mod:`.inside`), and :func:`run_scenarios` asks it from outside.

Limits: inputs lie on the device before the clock starts, all samples are the same noise, and no accuracy
run is made. A result is comparable with MLPerf's in its words and rules, and is no submission.
"""

from vit_deploy.bench.scenarios.run import run_scenarios
from vit_deploy.bench.scenarios.search import find_rate
from vit_deploy.bench.scenarios.settings import (
    SCENARIOS,
    ScenarioSettings,
    Slo,
    available,
    parse_scenarios,
    parse_slo,
)

__all__ = [
    "SCENARIOS",
    "ScenarioSettings",
    "Slo",
    "available",
    "find_rate",
    "parse_scenarios",
    "parse_slo",
    "run_scenarios",
]
