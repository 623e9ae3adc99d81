"""``--dtype auto``: the fastest precision that holds, found by climbing down from it rung by rung.

What is fastest depends on where an artefact runs: on a GPU fp16, then bf16; on a CPU int8, then bf16, since it
computes fp16 as fp32. A rung holds where the artefact passes the parity gate of its precision (and, for int8,
the budget that was given). Where no backend of this machine computes in it, it holds unless the range watch
objects: the artefact enters the bundle as ``unverified`` as always, and the report says so.

``mixed`` is fp16 but for the layers that :func:`vit_deploy.parity.mixed.needed_in_fp32` names; ``mixed int8``
is int8 but for the worst layers, found by a search (:mod:`vit_deploy.quantisation.holding`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy import registry
from vit_deploy.deploy.export import export_model
from vit_deploy.errors import UsageFailed
from vit_deploy.facts import Device
from vit_deploy.model.config import ViTConfig
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vit_deploy.deploy.job import Outcome
    from vit_deploy.parity.ranges import RangeWatch
    from vit_deploy.protocols import Progress
    from vit_deploy.spec import Precision
    from vit_deploy.weights.imported import Model

ON_A_GPU = frozenset({"tensorrt"})
"""Formats that run on a GPU alone; the others are taken to be for this machine's best device."""

KEEP = "keep_fp32"
"""The option of the ONNX exporter that keeps layers in fp32."""

BUDGET = "max_drop"
"""Its option that looks for the layers to keep in fp32."""

USUAL_BUDGET = 1.0
"""Points that may be lost where nothing is said."""


@dataclass(frozen=True)
class Rung:
    """A precision to try.

    Attributes:
        name: for people; ``mixed`` beside the precisions' own.
        precision: as it is declared.
        mixed: whether it keeps in fp32 what fp16 cannot hold.
    """

    name: str
    precision: Precision
    mixed: bool = False


LADDERS: Mapping[str, tuple[Rung, ...]] = {
    "cuda": (
        Rung("fp16", "fp16"),
        Rung("mixed", "fp16", mixed=True),
        Rung("bf16", "bf16"),
        Rung("fp32", "fp32"),
    ),
    "cpu": (
        Rung("int8", "int8"),
        Rung("mixed int8", "int8", mixed=True),
        Rung("bf16", "bf16"),
        Rung("fp32", "fp32"),
    ),
}
"""The rungs of each kind of device, the fastest first."""


@dataclass(frozen=True)
class Step:
    """What one rung came to for one format.

    Attributes:
        rung: its name.
        format: the exporter's name.
        held: whether it was taken.
        why: in words, with the figures that decided it.
        outcome: of the artefact; ``None`` where it was not made.
    """

    rung: str
    format: str
    held: bool
    why: str
    outcome: Outcome | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``export --json`` has it."""
        verdict = self.outcome.verdict if self.outcome else None
        return {
            "rung": self.rung,
            "format": self.format,
            "held": self.held,
            "why": self.why,
            "passed": verdict.passed if verdict else None,
            "worst_ratio": verdict.worst_ratio if verdict else None,
        }


@dataclass(frozen=True)
class Climb:
    """The whole search.

    Attributes:
        steps: every rung that was tried or passed over, in order.
        outcomes: of the artefacts that were chosen and of what they are built from; of the last rung where
            nothing held.
    """

    steps: tuple[Step, ...]
    outcomes: tuple[Outcome, ...]


def export_auto(
    model: Model,
    output: Path,
    formats: Sequence[str],
    *,
    device: str = "",
    images: Sequence[Path] = (),
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **others: Any,
) -> Climb:
    """Export each format at the fastest precision that holds.

    Args:
        model: the model.
        output: the bundle's directory.
        formats: names or aliases of formats.
        device: ``cuda`` or ``cpu``: where formats that run on either are to run; this machine's best if empty.
        images: pictures to verify with, and to watch ranges on.
        options: values of the exporters' options; those that none of a rung's formats has are left out there.
        progress: told how far it is.
        others: as :func:`vit_deploy.deploy.export.export_model` takes them.

    Raises:
        UsageFailed: where verification is switched off; and as ``export_model`` does.
        ParityFailed, OutputFailed: as ``export_model`` does.
    """
    if not others.get("verify", True):
        raise UsageFailed(
            "--dtype auto was asked for without verification",
            expected="verification, as it is what decides",
            next_command="leave --no-verify out, or name a precision",
        )
    names = list(dict.fromkeys(map(registry.canonical, formats)))
    given = dict(options or {})
    unfit = sorted(set(given) - set(_fitting(given, names)))
    if unfit:
        raise UsageFailed(
            f"none of {', '.join(names)} takes {unfit[0]!r}", next_command="vit-deploy export --help"
        )
    climber = _Climber(model, output, images, given, progress or Silent(), others)
    kind = device or _devices()[0]
    for ladder in LADDERS:
        mine = [name for name in names if ("cuda" if name in ON_A_GPU else kind) == ladder]
        climber.climb(ladder, mine)
    return Climb(tuple(climber.steps), tuple(climber.outcomes))


def _devices() -> list[str]:
    """The kinds of devices of this machine, the best first."""
    return [device.kind for device in registry.runtime("eager").devices()]


class _Climber:
    """What the rungs share: the model, its range watch, and what was found so far."""

    def __init__(
        self,
        model: Model,
        output: Path,
        images: Sequence[Path],
        options: dict[str, Any],
        progress: Progress,
        others: Mapping[str, Any],
    ) -> None:
        self.steps: list[Step] = []
        self.outcomes: list[Outcome] = []
        self._model, self._output, self._images = model, output, images
        self._options, self._progress, self._others = options, progress, others
        self._watched: RangeWatch | None = None

    def climb(self, kind: str, formats: Sequence[str]) -> None:
        """Try rung after rung until each format has one that holds; the last one's word is final."""
        left, rungs = list(formats), LADDERS[kind]
        for rung in rungs:
            offered = [name for name in left if self._is_offered(rung, name, kind)]
            if not offered:
                continue
            objection, options = self._before(rung)
            if objection:
                self.steps += [Step(rung.name, name, held=False, why=objection) for name in offered]
                continue
            settled = self._try(rung, offered, options, here=kind in _devices(), last=rung is rungs[-1])
            left = [name for name in left if name not in settled]

    def _is_offered(self, rung: Rung, name: str, kind: str) -> bool:
        """Whether the format is made in that precision, and some backend of a device that is here has it."""
        why = ""
        if rung.precision not in registry.precisions(registry.exporter(name)):
            why = f"{name} artefacts are not made in {rung.name}"
        elif kind in _devices() and not _is_computed(name, rung.precision, Device.parse(kind)):
            why = f"no backend of this machine computes {name} artefacts in {rung.precision}"
        if why:
            self.steps.append(Step(rung.name, name, held=False, why=why))
        return not why

    def _before(self, rung: Rung) -> tuple[str, dict[str, Any]]:
        """Why a rung need not be tried, if so, and the exporters' options at it."""
        if rung.precision == "int8" and rung.mixed:
            told = "--max-drop was given, so the worst layers were looked for already"
            return (told if BUDGET in self._options else ""), {BUDGET: USUAL_BUDGET, **self._options}
        if rung.precision != "fp16" or not isinstance(self._model.config, ViTConfig):
            return ("nothing is known of the inside of this model" if rung.mixed else ""), self._options
        from vit_deploy.parity.mixed import needed_in_fp32

        watch = self._watch()
        needed = needed_in_fp32(watch, self._model.config)
        if not rung.mixed:
            return ("; ".join(watch.warnings()) if needed else ""), self._options
        if not needed:
            return "no layer is near the end of fp16: fp32 would mend nothing", self._options
        kept = [*filter(None, [self._options.get(KEEP, "")]), *needed]
        return "", {**self._options, KEEP: ",".join(kept)}

    def _watch(self) -> RangeWatch:
        """How large the model's numbers grow, looked at once."""
        if self._watched is None:
            from vit_deploy.parity.inputs import make_samples
            from vit_deploy.parity.references import References

            self._progress.phase("watching how large the model's numbers grow")
            samples = make_samples(self._model.preprocessing, self._model.vit_config, images=self._images)
            found = References(self._model, samples).ranges(self._progress)
            if found is None:
                raise KeyboardInterrupt
            self._watched = found
        return self._watched

    def _try(
        self, rung: Rung, formats: Sequence[str], options: dict[str, Any], *, here: bool, last: bool
    ) -> set[str]:
        """Export at a rung; the formats that are settled by it.

        Where the device is here, what could not be decided does not hold: a slower rung can be.
        """
        outcomes = export_model(
            self._model,
            self._output,
            formats,
            precision=rung.precision,
            options=_fitting(options, formats),
            images=self._images,
            progress=self._progress,
            **self._others,
        )
        settled = set()
        for outcome in outcomes:
            passed = outcome.verdict.passed if outcome.verdict else None
            held = outcome.error is None and (passed is True or not here)
            if outcome.format in formats:
                self.steps.append(Step(rung.name, outcome.format, held, _why(rung, outcome), outcome))
                if held or last:
                    settled.add(outcome.format)
            if held or last:
                self.outcomes.append(outcome)
        return settled


def _is_computed(format: str, precision: Precision, device: Device) -> bool:
    """Whether a backend that is here computes artefacts of the format in that very precision."""
    return any(
        found.available(device).ok and registry.computes(found, precision, device) == precision
        for found in registry.runtimes_for(format)
    )


def _fitting(options: Mapping[str, Any], formats: Sequence[str]) -> dict[str, Any]:
    """Those that the formats, or what they are built from, take."""
    from vit_deploy.protocols import option_fields

    exporters = [registry.exporter(name) for name in formats]
    exporters += [registry.exporter(entry.needs) for entry in exporters if entry.needs]
    known = {name for entry in exporters for name in option_fields(entry.Options)}
    return {name: value for name, value in options.items() if name in known}


def _why(rung: Rung, outcome: Outcome) -> str:
    """What decided, with its figures."""
    if outcome.error is not None:
        return outcome.error.in_a_line
    verdict = outcome.verdict
    if verdict is None:
        return "not verified"
    if verdict.passed is None:
        return f"unverified: {verdict.reason}" + ("" if rung.precision != "fp16" else _ranges_hold(rung))
    ratio = "" if verdict.worst_ratio is None else f"worst ratio {verdict.worst_ratio:.2f}, "
    return f"passed: {ratio}{verdict.samples} samples on {verdict.backend}"


def _ranges_hold(rung: Rung) -> str:
    return "; what fp16 cannot hold is kept in fp32" if rung.mixed else "; all numbers seen fit into fp16"
