"""What a user says of scenarios: which ones, how long, and what latency must hold."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import re
from dataclasses import dataclass

from vit_deploy.errors import UsageFailed, unknown_name
from vit_deploy.facts import Availability

SCENARIOS = ("SingleStream", "MultiStream", "Offline", "Server")

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p97": 0.97, "p99": 0.99, "p99.9": 0.999}
"""Those that LoadGen reports, by the name that a result gives them."""

LONGEST_S = 1_000_000.0
MOST_QUERIES = 10_000_000
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class ScenarioSettings:
    """What governs a play of a scenario. The defaults make a short run, of seconds.

    Attributes:
        official: take durations, query counts, percentiles and seeds from the rules that LoadGen carries
            for MLPerf's image classification; the first four fields below are not read then.
        min_duration_s: queries are issued for at least so long; MLPerf asks for 600 s.
        max_duration_s: and for no longer, whatever is lacking; 0 for no limit. Offline has one query, and
            ends when that is done.
        min_queries: queries to issue at least; 0 for as many as LoadGen's early stopping wants.
        samples_per_query: images in a query of MultiStream.
        target_rate: queries per second of Server; a share ``load`` of Offline's throughput when ``None``.
        load: that share.
        target_latency_s: what Server's ``percentile`` must stay below; LoadGen's default of 100 ms when
            ``None``.
        percentile: which latency of Server is held against the target.
        max_outstanding: queries that may wait in Server before LoadGen gives up; 0 for any number.
        seed: of LoadGen's three random generators; MLPerf's own seeds when ``None``.
        probes: rates that a search for the highest one tries.
        timeout_s: how long a worker may take for an answer, beyond the time that the play should take.

    Raises:
        UsageFailed: for a value that makes no sense.
    """

    official: bool = False
    min_duration_s: float = 5.0
    max_duration_s: float = 30.0
    min_queries: int = 0
    samples_per_query: int = 8
    target_rate: float | None = None
    load: float = 0.7
    target_latency_s: float | None = None
    percentile: float = 0.99
    max_outstanding: int = 0
    seed: int | None = None
    probes: int = 6
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        checks = {
            "min_duration_s": 0 < self.min_duration_s <= LONGEST_S,
            "max_duration_s": 0 <= self.max_duration_s <= LONGEST_S,
            "min_queries": 0 <= self.min_queries <= MOST_QUERIES,
            "samples_per_query": 1 <= self.samples_per_query <= 4096,
            "target_rate": self.target_rate is None or 0 < self.target_rate <= 1e7,
            "load": 0 < self.load <= 10,
            "target_latency_s": self.target_latency_s is None or 0 < self.target_latency_s <= LONGEST_S,
            "percentile": 0 < self.percentile < 1,
            "max_outstanding": 0 <= self.max_outstanding <= MOST_QUERIES,
            "seed": self.seed is None or 0 <= self.seed < 2**63,
            "probes": 1 <= self.probes <= 64,
            "timeout_s": 0 < self.timeout_s <= LONGEST_S,
        }
        for name, fits in checks.items():
            if not fits:
                raise UsageFailed(
                    f"{name} of a scenario is {getattr(self, name)}", expected="a sensible number"
                )
        if 0 < self.max_duration_s < self.min_duration_s:
            raise UsageFailed(
                f"a scenario is to last {self.min_duration_s:g} s at least, {self.max_duration_s:g} s at most",
                expected="a longest duration that is not below the shortest",
            )


@dataclass(frozen=True)
class Slo:
    """A latency that a share of all queries must stay below.

    Attributes:
        name: the percentile as it was given, a key of :data:`PERCENTILES`.
        limit_s: the latency in seconds.
    """

    name: str
    limit_s: float

    @property
    def percentile(self) -> float:
        """The share of queries, between 0 and 1."""
        return PERCENTILES[self.name]

    @property
    def limit_ms(self) -> float:
        """The latency in milliseconds."""
        return self.limit_s * 1e3

    def __str__(self) -> str:
        return f"{self.name}={self.limit_ms:g}ms"


def parse_slo(text: str) -> Slo:
    """Read ``p99=50ms``: a percentile that LoadGen reports, and a latency in us, ms or s.

    Raises:
        UsageFailed: for anything else.
    """
    found = re.fullmatch(
        r"\s*(p[0-9.]{1,5})\s*(?:=|<=|<)\s*([0-9]{0,9}\.?[0-9]{0,9})\s*(us|ms|s)\s*", text.lower()
    )
    number = found.group(2) if found else ""
    if found is None or number in ("", ".") or float(number) <= 0:
        raise UsageFailed(
            f"the SLO is {text!r}", expected="a percentile and a latency, such as p99=50ms or p95=0.2s"
        )
    name, _, unit = found.groups()
    if name not in PERCENTILES:
        raise unknown_name("percentile", name, PERCENTILES)
    limit = float(number) * _UNITS[unit]
    if not math.isfinite(limit) or limit > LONGEST_S or limit < 1e-6:
        raise UsageFailed(f"the SLO is {text!r}", expected=f"a latency between 1us and {LONGEST_S:g}s")
    return Slo(name, limit)


def parse_scenarios(text: str) -> list[str]:
    """The scenarios named by ``text``, by comma, in MLPerf's spelling; ``all`` is every one.

    Upper and lower case, hyphens and underscores do not matter: ``single-stream`` is ``SingleStream``.

    Raises:
        UsageFailed: for an unknown name, or none at all.
    """
    known = {name.lower(): name for name in SCENARIOS}
    found: list[str] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        plain = re.sub("[-_ ]", "", word.lower())
        if plain == "all":
            found += SCENARIOS
        elif plain in known:
            found.append(known[plain])
        else:
            raise unknown_name("scenario", word, [*known, "all"])
    if not found:
        raise UsageFailed(f"no scenario is named in {text!r}", expected=f"one of {', '.join(known)}, or all")
    return list(dict.fromkeys(found))


def available() -> Availability:
    """Whether LoadGen is installed; if not, what installs it."""
    if importlib.util.find_spec("mlperf_loadgen") is None:
        return Availability.no(
            "MLPerf's LoadGen (mlcommons-loadgen) is not installed", "pip install 'vit-deploy[loadgen]'"
        )
    return Availability.yes(_version())


def _version() -> str:
    try:
        return importlib.metadata.version("mlcommons_loadgen")
    except importlib.metadata.PackageNotFoundError:  # built from source
        return ""
