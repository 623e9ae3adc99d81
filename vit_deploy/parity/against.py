"""A bundle beside the one that was accepted last: is it a build of the same model, and no worse a one?

Artefacts are paired by name. What fails is what a user of the old bundle would notice: another model, an
artefact gone, other inputs or outputs, a worse build, other decisions, a ratio past its limit. What else
has changed is told, and fails nothing: a rebuild has other bytes and other tools, or there was no reason
for it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from vit_deploy.facts import Device
from vit_deploy.parity.rebuilt import Changed, Pair, changes
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.facts import Verdict
    from vit_deploy.parity.check import ParityCheck
    from vit_deploy.protocols import Progress

_SILENT = Silent()

Severity = Literal["fails", "informs"]


@dataclass(frozen=True)
class Finding:
    """One thing in which the bundles differ, or do not.

    Attributes:
        name: what it is about: ``model``, ``missing``, ``interface``, ``fused-attention`` …
        severity: whether it fails the comparison.
        text: for a person.
        artefact: the artefact's name; empty where it is about the whole bundle.
    """

    name: str
    severity: Severity
    text: str
    artefact: str = ""


@dataclass(frozen=True)
class Comparison:
    """Everything that was found, what fails first."""

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether the new bundle may take the place of the other."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that fail."""
        return tuple(finding for finding in self.findings if finding.severity == "fails")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {"passed": self.passed, "findings": [asdict(finding) for finding in self.findings]}


def compare_bundles(
    new: Bundle,
    accepted: Bundle,
    verdicts: Mapping[str, Verdict],
    check: ParityCheck | None = None,
    *,
    progress: Progress = _SILENT,
) -> Comparison:
    """Compare a bundle with the one that was accepted last.

    Args:
        new: the rebuild.
        accepted: the other.
        verdicts: what was found here and now of the artefacts of ``new``, by name. What its manifest
            recorded stands in for those that are left out.
        check: judges an accepted artefact whose rebuild has other bytes, where the rebuild was judged and
            on the same backend, so that their decisions can be compared sample by sample. Without it that
            is left out, and the function runs nothing.
        progress: told how far it is.

    Returns:
        The findings. Another model is a finding too, and then the only one: nothing else can be compared.

    Raises:
        HostileInput: when a file of the accepted bundle that is to be run was changed.
    """
    of_model = [Finding("model", "fails", text) for text in _other_model(new, accepted)]
    if of_model:
        return Comparison(tuple(of_model))
    found = list(_of_the_whole(new, accepted))
    for name, then in accepted.records.items():
        now = new.records.get(name)
        if now is None:
            text = "the accepted bundle has it, and this one has not"
            found.append(Finding("missing", "fails", text, name))
            continue
        verdict = verdicts.get(name)
        judged_then = _judged_then(accepted, name, verdict, now.files, check, progress)
        pair = Pair(now, then, new.config, verdict, judged_then)
        found += [_finding(changed, name) for changed in changes(pair)]
    found += [
        Finding("new", "informs", "the accepted bundle has no such artefact", name)
        for name in new.records
        if name not in accepted.records
    ]
    return Comparison(tuple(sorted(found, key=lambda finding: finding.severity != "fails")))


def _finding(changed: Changed, artefact: str) -> Finding:
    return Finding(changed.name, "fails" if changed.fails else "informs", changed.text, artefact)


def _judged_then(
    accepted: Bundle,
    name: str,
    verdict: Verdict | None,
    files: object,
    check: ParityCheck | None,
    progress: Progress,
) -> Verdict | None:
    """The accepted artefact judged beside its rebuild; ``None`` where there is no need, or no way."""
    if check is None or verdict is None or not verdict.backend or files == accepted.records[name].files:
        return None
    from vit_deploy import registry

    device = verdict.details.get("device")
    return check.judge(
        accepted.artefact(name),
        runtime=registry.runtime(verdict.backend),
        device=Device.parse(device) if device else None,
        progress=progress,
    )


def _other_model(new: Bundle, accepted: Bundle) -> Iterator[str]:
    """By what the models differ, a sentence each: a retrained model is another model."""
    now, then = new.manifest.model, accepted.manifest.model
    if now.weights.sha256 != then.weights.sha256:
        yield (
            f"the reference weights have SHA-256 {now.weights.sha256[:16]}…, and the accepted ones "
            f"{then.weights.sha256[:16]}…: it is another model, trained again or read from another checkpoint"
        )
    if now.kind != then.kind:
        yield f"the model is described as {now.kind}, and the accepted one as {then.kind}"
    else:
        yield from _other_fields("config", now.config, then.config)
    yield from _other_fields("preprocessing", now.preprocessing or {}, then.preprocessing or {})
    if now.labels != then.labels:
        yield f"the labels differ: {_first_other_label(now.labels, then.labels)}"


_SHOWN = 3


def _other_fields(kind: str, now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[str]:
    """The first few fields that differ, with both values."""
    names = [name for name in sorted({*now, *then}) if now.get(name) != then.get(name)]
    if names:
        shown = ", ".join(f"{name} is {now.get(name)!r} and was {then.get(name)!r}" for name in names[:_SHOWN])
        more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield f"the {kind} differs: {shown}{more}"


def _first_other_label(now: list[str], then: list[str]) -> str:
    if len(now) != len(then):
        return f"{len(now)} of them, and there were {len(then)}"
    index = next(place for place, pair in enumerate(zip(now, then, strict=True)) if pair[0] != pair[1])
    return f"class {index} is {now[index]!r} and was {then[index]!r}"


def _of_the_whole(new: Bundle, accepted: Bundle) -> Iterator[Finding]:
    """What has changed of the bundles, and is no artefact's."""
    now, then = new.manifest, accepted.manifest
    if now.model.source != then.model.source:
        text = (
            f"the same weights came from {now.model.source.name} ({now.model.source.sha256[:12]}), and then "
            f"from {then.model.source.name} ({then.model.source.sha256[:12]})"
        )
        yield Finding("source", "informs", text)
    for tool in sorted({*now.generator, *then.generator}):
        if now.generator.get(tool) != then.generator.get(tool):
            text = f"{tool} is {now.generator.get(tool, 'none')} and was {then.generator.get(tool, 'none')}"
            yield Finding("tools", "informs", text)
