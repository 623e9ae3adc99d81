"""What was asked of an artefact's build, beside what was built: ``--require fused-attention=all,dtype=fp16``.

Everything is judged by what was read back: by the session that ran the artefact, or, where none did, by the
exporter that made it. What neither tells is not met: a requirement is never passed for want of knowledge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import UsageFailed, unknown_name
from vit_deploy.facts import LAYER_CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vit_deploy.facts import RuntimeFacts, Verdict
    from vit_deploy.protocols import Artefact

DTYPES = ("fp32", "fp16", "bf16", "int8", "fp8", "fp64", "uint8")
"""The dtypes that layers can be asked to be of."""

ALL, NONE = "all", "none"
_VALUES: dict[str, tuple[str, ...]] = {
    "fused-attention": (ALL, NONE, "a number"),
    "dtype": DTYPES,
    **{f"dtype.{name}": DTYPES for name in LAYER_CLASSES},
    "provider": ("cpu", "cuda"),
    "tf32": ("on", "off"),
    "precision-hint": ("f32", "bf16", "f16"),
}
"""The values of each key."""


@dataclass(frozen=True)
class Requirement:
    """One thing that is asked for, such as ``dtype.layernorm=fp32``."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


def parse_requirements(text: str) -> tuple[Requirement, ...]:
    """Read ``key=value``, by comma; none from an empty text.

    Raises:
        UsageFailed: for an unknown key or value, with those there are, nearest first, and for a key that is
            given two values.
    """
    found: dict[str, Requirement] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (part.strip() for part in word.partition("="))
        if key not in _VALUES:
            raise unknown_name("requirement", key, _VALUES, "vit-deploy verify --help")
        if not equals or not value:
            raise UsageFailed(
                f"the requirement {key!r} says nothing of what it requires",
                expected=f"{key}={'|'.join(_VALUES[key])}",
                next_command=f"--require {key}={_VALUES[key][0]}",
            )
        is_number = key == "fused-attention" and re.fullmatch("[0-9]{1,6}", value)
        if value not in _VALUES[key] and not is_number:
            raise unknown_name(f"value of {key}", value, _VALUES[key], "vit-deploy verify --help")
        if key in found and found[key].value != value:
            raise UsageFailed(
                f"{key} is required to be {found[key].value} and {value}", expected="one value for each key"
            )
        found[key] = Requirement(key, value)
    return tuple(found.values())


def built(artefact: Artefact, facts: RuntimeFacts | None) -> dict[str, Any]:
    """What was built, as plain data for a manifest; what is not known is ``None`` or left out.

    Args:
        artefact: what was built.
        facts: what the session says of itself; what the exporter says stands alone without one.
    """
    if facts is None:
        return _built_by_exporter(artefact)
    return {
        "backend": facts.backend,
        "device": facts.device,
        "precision": facts.precision,
        "dtype": {kind: dict(counts) for kind, counts in sorted(facts.dtypes.items())},
        "placement": dict(sorted(facts.placement.items())),
        "shape_nodes": dict(facts.details.get("shape_nodes") or {}),
        "fused_attention": dict(facts.fused_attention) if facts.fused_attention is not None else None,
        "tf32": facts.tf32,
        "precision_hint": facts.precision_hint or None,
    }


def _built_by_exporter(artefact: Artefact) -> dict[str, Any]:
    from vit_deploy.graph.expected import counted_attentions

    facts = artefact.facts
    dtypes: Mapping[str, Mapping[str, int]] = facts.get("dtypes") or {}
    linear = dtypes.get("linear") or {}
    return {
        "precision": max(linear, key=lambda dtype: linear[dtype]) if linear else None,
        "dtype": {kind: dict(counts) for kind, counts in sorted(dtypes.items())},
        "placement": {},
        "shape_nodes": {},
        "fused_attention": counted_attentions(artefact),
        "tf32": facts.get("tf32"),
        "precision_hint": None,
    }


def built_as_judged(artefact: Artefact, verdict: Verdict) -> dict[str, Any]:
    """What was built: as the session of a verdict says, or as the exporter does where none was opened."""
    told = verdict.details.get("built")
    return dict(told) if told else built(artefact, None)


def unmet(requirements: Sequence[Requirement], artefact: Artefact, facts: RuntimeFacts | None) -> list[str]:
    """A sentence for each requirement that is not met: what was asked for, what was built, what to do."""
    return unmet_from_built(requirements, built(artefact, facts))


def unmet_from_built(requirements: Sequence[Requirement], built: Mapping[str, Any]) -> list[str]:
    """The same, of what :func:`built` gave; of an empty one nothing is known, and nothing is met."""
    sentences = []
    for requirement in requirements:
        key = requirement.key.partition(".")[0]
        advice = _ADVICE.get(str(requirement), _ADVICE[key])
        try:
            found = _JUDGES[key](requirement, built)
        except _Untold as untold:
            backend = built.get("backend")
            found = f"{backend or 'its exporter'} does not tell {untold}"
            advice = advice if backend else "verify it on a machine that can run it"
        if found is not None:
            sentences.append(f"{requirement} was asked for: {found}; {advice}")
    return sentences


class _Untold(Exception):
    """Nothing is known of what was asked for."""


def _fused_attention(requirement: Requirement, built: Mapping[str, Any]) -> str | None:
    counted = built.get("fused_attention")
    if counted is None:
        raise _Untold("how many attentions run as one kernel")
    fused, of = counted["fused"], counted["of"]
    if requirement.value == ALL:
        if not of:
            return "there is no attention in it"
        return None if fused >= of else f"{fused} of {of} attentions run as one kernel{_where(built)}"
    wanted = 0 if requirement.value == NONE else int(requirement.value)
    return None if fused == wanted else f"{fused} of {of} attentions run as one kernel{_where(built)}"


def _dtype(requirement: Requirement, built: Mapping[str, Any]) -> str | None:
    _, _, kind = requirement.key.partition(".")
    if not kind:
        computed = built.get("precision")
        if computed is None:
            raise _Untold("what the bulk of it is computed in")
        return None if computed == requirement.value else f"it is computed in {computed}{_where(built)}"
    counts = (built.get("dtype") or {}).get(kind)
    if not counts:
        raise _Untold(f"the dtype of any layer of the class {kind}")
    if set(counts) == {requirement.value}:
        return None
    listed = ", ".join(f"{count} in {dtype}" for dtype, count in counts.items())
    return f"of the {sum(counts.values())} layers of the class {kind} there are {listed}{_where(built)}"


def _provider(requirement: Requirement, built: Mapping[str, Any]) -> str | None:
    placement: Mapping[str, int] = built.get("placement") or {}
    if not placement:
        raise _Untold("where its nodes were put")
    # Arithmetic on shapes is done on the CPU by design, whatever computes the rest.
    shapes: Mapping[str, int] = built.get("shape_nodes") or {}
    nodes = {name: count - shapes.get(name, 0) for name, count in placement.items()}
    elsewhere = {name: count for name, count in nodes.items() if count and _device(name) != requirement.value}
    if not elsewhere:
        return None
    listed = ", ".join(f"{count} on {name}" for name, count in elsewhere.items())
    return f"of {sum(nodes.values())} nodes there are {listed}"


def _device(provider: str) -> str:
    """``cuda`` of ``CUDAExecutionProvider`` and of ``cuda:0``."""
    return provider.lower().partition(":")[0].removesuffix("executionprovider")


def _tf32(requirement: Requirement, built: Mapping[str, Any]) -> str | None:
    on = built.get("tf32")
    if on is None and built.get("device") == "cpu":
        on = False  # a CPU has none
    if on is None:
        raise _Untold("whether TF32 may stand in for fp32")
    return None if on == (requirement.value == "on") else f"it is {'on' if on else 'off'}{_where(built)}"


def _precision_hint(requirement: Requirement, built: Mapping[str, Any]) -> str | None:
    told = built.get("precision_hint")
    if told is None:
        raise _Untold("a precision hint")
    return None if told == requirement.value else f"the hint that was read back is {told}"


_JUDGES: dict[str, Callable[[Requirement, Mapping[str, Any]], str | None]] = {
    "fused-attention": _fused_attention,
    "dtype": _dtype,
    "provider": _provider,
    "tf32": _tf32,
    "precision-hint": _precision_hint,
}
"""What is found wrong, or ``None`` where a requirement is met."""


def _where(built: Mapping[str, Any]) -> str:
    return f" in {built['backend']} on {built['device']}" if built.get("backend") else ""


_ADVICE = {
    "fused-attention": "export with --opset 23, where attention is one operator; for TensorRT, whose fused "
    "attention has no fp32, in --dtype fp16 or bf16 as well",
    "fused-attention=none": "export with --opset 22 or lower, where attention is spelled out",
    "dtype": "export with another --dtype, or judge it in a backend and on a device that compute in this one",
    "provider": "judge it with the --backend and --device that it is to run on, or export with another --opset",
    "tf32": "judge it with --device cuda for it to be on; what is made and run here has it off",
    "precision-hint": "judge it with --backend openvino, which alone has such a hint",
}
"""What to do about it."""
