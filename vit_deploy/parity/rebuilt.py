"""In what one artefact differs from the one of its name that was accepted before it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.parity.requirements import built
from vit_deploy.protocols import Artefact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vit_deploy.bundle.manifest import ArtefactRecord, TensorRecord
    from vit_deploy.facts import Verdict
    from vit_deploy.model.kinds import Architecture


@dataclass(frozen=True)
class Changed:
    """One difference.

    Attributes:
        name: what it is about.
        fails: whether a user of the old artefact would be worse off.
        text: both sides of it.
    """

    name: str
    fails: bool
    text: str


@dataclass(frozen=True)
class Pair:
    """An artefact, and the accepted one of the same name.

    Attributes:
        now: as the new manifest has it.
        then: as the accepted manifest has it.
        config: of the model of both.
        verdict: of the new one, here; ``None`` if it was not judged here.
        judged_then: of the accepted one, here and in the same backend; ``None`` if it was not judged here.
    """

    now: ArtefactRecord
    then: ArtefactRecord
    config: Architecture
    verdict: Verdict | None = None
    judged_then: Verdict | None = None

    @cached_property
    def builds(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """What was read back of either, now and then, in one place; both empty where it never was.

        The session that ran here is asked first, then the one in the manifest; where those of the two
        artefacts were not of the same backend on the same device, what the exporter counted stands in.
        """
        now = _told(self.verdict, self.now)
        for then in (_told(None, self.then), _told(self.judged_then, self.then)):
            if now and then and _place(now) == _place(then):
                return now, then
        counted = [built(_artefact(record, self.config), None) for record in (self.now, self.then)]
        known = all(entry["dtype"] or entry["fused_attention"] for entry in counted)
        return (counted[0], counted[1]) if known else ({}, {})


def _told(verdict: Verdict | None, record: ArtefactRecord) -> Mapping[str, Any]:
    for details in (verdict.details if verdict is not None else {}, record.parity.details):
        if details.get("built"):
            return details["built"]  # type: ignore[no-any-return]
    return {}


def _place(built: Mapping[str, Any]) -> tuple[Any, Any]:
    return built.get("backend"), built.get("device")


def _artefact(record: ArtefactRecord, config: Architecture) -> Artefact:
    """As the manifest describes it; its files are not looked at."""
    spec, files = record.io_spec(), Path(record.directory)
    return Artefact(record.name, record.format, record.precision, files, spec, config, record.facts)


def changes(pair: Pair) -> Iterator[Changed]:
    """Every difference between two artefacts, in the order of :data:`_COMPARERS`."""
    for comparer in _COMPARERS:
        yield from comparer(pair)


def _interface(pair: Pair) -> Iterator[Changed]:
    """What a program that feeds the artefact relies on."""
    now, then = pair.now, pair.then
    for kind in ("inputs", "outputs"):
        tensors = [_tensors(getattr(record, kind)) for record in (now, then)]
        if tensors[0] != tensors[1]:
            yield Changed("interface", True, f"its {kind} are {tensors[0]}, and were {tensors[1]}")
    for name in ("contract", "precision"):
        if getattr(now, name) != getattr(then, name):
            text = f"its {name} is {getattr(now, name)}, and was {getattr(then, name)}"
            yield Changed("interface", True, text)
    for name, told in (("batch sizes", "batch"), ("image sizes", "sizes")):
        ranges = [_range(getattr(record, told)) for record in (now, then)]
        if ranges[0] != ranges[1]:
            text = f"its {name} (min, opt, max) are {ranges[0]}, and were {ranges[1]}"
            yield Changed("interface", True, text)


def _tensors(records: list[TensorRecord]) -> str:
    return "; ".join(f"{entry.name} {entry.dtype} ({', '.join(map(str, entry.shape))})" for entry in records)


def _range(record: Any) -> str:
    if record is None:
        return "the model's own"
    return ", ".join(str(value) for value in (record.minimum, record.optimum, record.maximum))


def _parity(pair: Pair) -> Iterator[Changed]:
    """Whether it still holds the limits, and the ratio then and now."""
    verdict = pair.verdict or pair.now.parity.verdict()
    if verdict.passed is False:
        yield Changed("ratio", True, f"it is not equal to eager PyTorch: {verdict.reason}")
    elif verdict.passed is None and pair.then.parity.passed:
        yield Changed("ratio", False, f"parity was shown then, and is open now: {verdict.reason}")
    told = {
        "in the accepted manifest": pair.then.parity.worst_ratio,
        "in this one": pair.now.parity.worst_ratio,
        "of the accepted artefact, here and now": pair.judged_then and pair.judged_then.worst_ratio,
        "of this one, here and now": pair.verdict and pair.verdict.worst_ratio,
    }
    shown = [f"{ratio:.3g} {where}" for where, ratio in told.items() if ratio is not None]
    if shown:
        yield Changed("ratio", False, f"the worst ratio is {', '.join(shown)}")


_NAMED = 3


def _decisions(pair: Pair) -> Iterator[Changed]:
    """First classes that are others than the accepted artefact's, where both ran on the same samples."""
    if pair.verdict is None or pair.judged_then is None:
        return
    now, then = (_by_sample(verdict) for verdict in (pair.verdict, pair.judged_then))
    flipped = [
        f"{sample['name']!r} ({then[index]['top1']['artefact'][0]} became {sample['top1']['artefact'][0]})"
        for index, sample in now.items()
        if index in then
        and not sample.get("near_tie")
        and sample["top1"]["artefact"][0] != then[index]["top1"]["artefact"][0]
    ]
    if flipped:
        more = f" and {len(flipped) - _NAMED} more" if len(flipped) > _NAMED else ""
        text = (
            f"another first class than the accepted artefact's on {len(flipped)} of {len(now)} samples, "
            f"near-ties left out: {', '.join(flipped[:_NAMED])}{more}"
        )
        yield Changed("decisions", True, text)


def _by_sample(verdict: Verdict) -> dict[int, Mapping[str, Any]]:
    """The samples with a first class, by their place."""
    samples = verdict.evidence.get("samples") or ()
    return {sample["index"]: sample for sample in samples if sample.get("top1")}


def _fused_attention(pair: Pair) -> Iterator[Changed]:
    now, then = (built.get("fused_attention") for built in pair.builds)
    if not then:
        return
    if not now:
        yield Changed("fused-attention", False, f"{_fused(then)} then; what it is now is not told")
        return
    fewer = now["fused"] < then["fused"] or now["of"] - now["fused"] > then["of"] - then["fused"]
    if fewer:
        yield Changed("fused-attention", True, f"{_fused(now)}, and {_fused(then)} then")


def _fused(counts: Mapping[str, int]) -> str:
    return f"{counts['fused']} of {counts['of']} attentions run as one kernel"


def _precision(pair: Pair) -> Iterator[Changed]:
    """What it is computed in, as a whole and layer by layer."""
    now, then = pair.builds
    for key, told in (("precision", "it is computed in"), ("precision_hint", "the precision hint is")):
        if now.get(key) != then.get(key):
            yield Changed("precision", True, f"{told} {now.get(key)}, and was {then.get(key)}")
    if now.get("tf32") and then.get("tf32") is False:
        yield Changed("precision", True, "TF32 is on, and was off")
    dtypes_now, dtypes_then = now.get("dtype") or {}, then.get("dtype") or {}
    for kind in sorted({*dtypes_now} & {*dtypes_then}):
        if set(dtypes_now[kind]) != set(dtypes_then[kind]):
            text = f"layers of the class {kind} are {_counts(dtypes_now[kind])}"
            yield Changed("precision", True, f"{text}, and were {_counts(dtypes_then[kind])}")


def _placement(pair: Pair) -> Iterator[Changed]:
    """Where its nodes were put; arithmetic on shapes counts for nothing."""
    now, then = map(_nodes, pair.builds)
    if not now or not then:
        return
    strays = [sum(nodes.values()) - max(nodes.values()) for nodes in (now, then)]
    if set(now) != set(then) or strays[0] > strays[1]:
        yield Changed("placement", True, f"its nodes are on {_counts(now)}, and were on {_counts(then)}")


def _nodes(built: Mapping[str, Any]) -> dict[str, int]:
    shapes: Mapping[str, int] = built.get("shape_nodes") or {}
    placed: Mapping[str, int] = built.get("placement") or {}
    nodes = {name: count - shapes.get(name, 0) for name, count in placed.items()}
    return {name: count for name, count in nodes.items() if count > 0}


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def _untold(pair: Pair) -> Iterator[Changed]:
    """That nothing was read back of both in one place, so that the builds cannot be compared."""
    now, then = _told(pair.verdict, pair.now), _told(None, pair.then)
    if pair.builds[1] or not (now or then):
        return
    places = [f"{built['backend']} on {built['device']}" if built else "nothing" for built in (now, then)]
    text = f"what was built cannot be compared: {places[0]} tells it now, and {places[1]} told it then"
    yield Changed("built", False, text)


def _bytes(pair: Pair) -> Iterator[Changed]:
    now, then = ({file.name: file for file in record.files} for record in (pair.now, pair.then))
    if now == then:
        yield Changed("bytes", False, "its bytes are the same")
        return
    others = [name for name in sorted({*now, *then}) if now.get(name) != then.get(name)]
    grown = (pair.now.nbytes - pair.then.nbytes) / max(pair.then.nbytes, 1)
    text = (
        f"its bytes are others, in {', '.join(others)}: {pair.now.nbytes:,} in all, "
        f"and {pair.then.nbytes:,} then ({grown:+.1%})"
    )
    yield Changed("bytes", False, text)


def _tools(pair: Pair) -> Iterator[Changed]:
    yield from _entries("tools", pair.now.tools, pair.then.tools)
    versions = [record.parity.details.get("version") for record in (pair.now, pair.then)]
    if pair.verdict is not None and pair.verdict.backend:
        versions[0] = pair.verdict.details.get("version")
    backends = {pair.then.parity.backend, (pair.verdict or pair.now.parity).backend}
    if len(backends) == 1 and None not in versions and versions[0] != versions[1]:
        yield Changed("tools", False, f"{backends.pop()} is {versions[0]} where it runs, and was {versions[1]}")


def _options(pair: Pair) -> Iterator[Changed]:
    yield from _entries("options", pair.now.options, pair.then.options)


def _operators(pair: Pair) -> Iterator[Changed]:
    """Nodes or layers by kind, as each exporter counts them."""
    for key in ("operators", "layers"):
        now, then = pair.now.facts.get(key) or {}, pair.then.facts.get(key) or {}
        yield from _entries("operators", now, then, "0")


def _entries(
    name: str, now: Mapping[str, Any], then: Mapping[str, Any], absent: str = "none"
) -> Iterator[Changed]:
    others = [key for key in sorted({*now, *then}) if now.get(key) != then.get(key)]
    if others:
        told = (f"{key} {now.get(key, absent)} (was {then.get(key, absent)})" for key in others)
        yield Changed(name, False, f"its {name} changed: {', '.join(told)}")


_COMPARERS: tuple[Callable[[Pair], Iterator[Changed]], ...] = (
    _interface,
    _parity,
    _decisions,
    _fused_attention,
    _precision,
    _placement,
    _untold,
    _bytes,
    _tools,
    _options,
    _operators,
)
"""Each looks at one thing; what fails comes first."""
