"""What the flags of ``bench`` ask for, over what a suite says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.cli._bench_options import given, numbers_of, sizes_of, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import click

    from vit_deploy.bench.coordinator import Settings
    from vit_deploy.bench.gate import Gate
    from vit_deploy.bench.grid import Grid
    from vit_deploy.bench.scenarios import ScenarioSettings, Slo
    from vit_deploy.facts import Device

    Readers = Mapping[str, tuple[str, Callable[[Any], Any]]]
    """For each field the flag, and how its value is read."""


@dataclass(frozen=True)
class Asked:
    """What is to be measured, and how.

    Attributes:
        backends: names, or ``all``.
        required: whether what they name must run here; what a suite names may be left out.
        device: where; the best of each backend when ``None``.
        grid: the cases.
        settings: of the run.
        scenarios: MLPerf's, by name.
        scenario_settings: of these.
        slo: what rate is searched for.
        ceiling: whether the matrix products are timed, too.
        gates: what must not be.
        strict: whether a gate that cannot be decided has failed.
    """

    backends: tuple[str, ...]
    required: bool
    device: Device | None
    grid: Grid
    settings: Settings
    scenarios: tuple[str, ...]
    scenario_settings: ScenarioSettings
    slo: Slo | None
    ceiling: bool
    gates: tuple[Gate, ...]
    strict: bool


def asked_of(context: click.Context, options: Mapping[str, Any]) -> Asked:
    """What is asked for: what a flag says, else what the suite says, else the flag's default.

    Raises:
        UsageFailed: for a value that makes no sense.
        HostileInput: for a suite that cannot be read.
    """
    from vit_deploy.bench.coordinator import Settings
    from vit_deploy.bench.gate import parse_gate, require_absolute
    from vit_deploy.bench.grid import Grid
    from vit_deploy.bench.scenarios import ScenarioSettings, parse_slo
    from vit_deploy.bench.suites import load_suite
    from vit_deploy.facts import Device

    suite = load_suite(options["suite"]) if options["suite"] else None

    def said(readers: Readers) -> dict[str, Any]:
        """What the flags say, those that were not given left out where a suite speaks for them."""
        return {
            name: read(options[flag])
            for name, (flag, read) in readers.items()
            if suite is None or given(context, flag)
        }

    settings = replace(suite.settings() if suite else Settings(), **said(_SETTINGS_READERS))
    gates = tuple(map(parse_gate, options["fail_if"]))
    require_absolute(gates)  # before minutes are spent
    device = options["device"] or (suite.device if suite else "")
    plain = {**(suite.plan() if suite else {}), **said(_PLAN_READERS)}
    return Asked(
        **plain,
        required=suite is None or given(context, "backend"),
        device=Device.parse(device) if device else None,
        grid=replace(suite.grid() if suite else Grid(), **said(_GRID_READERS)),
        settings=settings,
        scenario_settings=ScenarioSettings(
            official=options["official"],
            min_duration_s=settings.duration_s,
            max_duration_s=3 * settings.duration_s,
            timeout_s=settings.timeout_s,
        ),
        slo=parse_slo(options["slo"]) if options["slo"] else None,
        gates=gates,
        strict=options["strict"],
    )


def _formats(text: str) -> tuple[str, ...]:
    from vit_deploy import registry
    from vit_deploy.bench.subjects import REFERENCE_FORMAT
    from vit_deploy.errors import unknown_name

    names = [registry.canonical(word) for word in words_of(text)]
    valid = [*registry.formats(), REFERENCE_FORMAT]
    for name in names:
        if name not in valid:
            raise unknown_name("format", name, valid, "vit-deploy formats")
    return tuple(dict.fromkeys(names))


def _scenarios(text: str) -> tuple[str, ...]:
    from vit_deploy.bench.scenarios import parse_scenarios

    return tuple(parse_scenarios(text)) if text else ()


_GRID_READERS: Readers = {
    "batch_sizes": ("batch_size", lambda text: numbers_of("--batch-size", text)),
    "image_sizes": ("image_size", sizes_of),
    "threads": ("threads", lambda text: numbers_of("--threads", text, "all") if text else ()),
    "streams": ("streams", lambda text: numbers_of("--streams", text, "threads")),
    "contracts": ("contracts", lambda text: tuple(words_of(text))),
    "precisions": ("dtype", lambda text: tuple(words_of(text))),
    "formats": ("formats", _formats),
    "cuda_graph": ("cuda_graph", bool),
    "emulate": ("emulate", bool),
}
_SETTINGS_READERS: Readers = {
    "duration_s": ("duration", float),
    "rounds": ("rounds", lambda rounds: rounds),
    "launches": ("launches", int),
    "precision_target": ("precision_target", lambda percent: percent / 100),
    "seed": ("seed", int),
    "timeout_s": ("timeout", float),
    "baseline": ("baseline", str),
    "soundness": ("aa", bool),
}
_PLAN_READERS: Readers = {
    "backends": ("backend", lambda text: tuple(words_of(text))),
    "scenarios": ("scenario", _scenarios),
    "ceiling": ("ceiling", bool),
}
