"""Artefacts, facts and errors as plain JSON data, so that they cross from one process to another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy import errors
from vit_deploy.errors import RunFailed, VitDeployError
from vit_deploy.model.kinds import architecture_from
from vit_deploy.protocols import Artefact
from vit_deploy.spec import BatchRange, IOSpec, SizeRange, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLASSES: dict[str, type[VitDeployError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, VitDeployError)
}


def artefact_data(artefact: Artefact) -> dict[str, Any]:
    """An artefact without what is in its files."""
    return {
        "name": artefact.name,
        "format": artefact.format,
        "precision": artefact.precision,
        "path": str(artefact.path.absolute()),
        "spec": asdict(artefact.spec),
        "kind": artefact.config.kind,
        "config": artefact.config.to_dict(),
        "facts": _plain(artefact.facts),
        "code": artefact.code,
    }


def artefact_from(data: Mapping[str, Any]) -> Artefact:
    """The inverse of :func:`artefact_data`."""
    return Artefact(
        name=data["name"],
        format=data["format"],
        precision=data["precision"],
        path=Path(data["path"]),
        spec=_spec_from(data["spec"]),
        config=architecture_from(data["kind"], data["config"]),
        facts=data["facts"],
        code=data["code"],
    )


def _spec_from(data: Mapping[str, Any]) -> IOSpec:
    return IOSpec(
        inputs=tuple(_tensor_from(entry) for entry in data["inputs"]),
        outputs=tuple(_tensor_from(entry) for entry in data["outputs"]),
        batch=BatchRange(**data["batch"]),
        sizes=_sizes_from(data["sizes"]) if data["sizes"] else None,
        contract=data["contract"],
    )


def _sizes_from(data: Mapping[str, Any]) -> SizeRange:
    ends = {name: tuple(data[name]) for name in ("minimum", "optimum", "maximum")}
    return SizeRange(**{**data, **ends})


def _tensor_from(data: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(data["name"], data["dtype"], tuple(data["shape"]))


def _plain(value: Any) -> Any:
    """JSON data of what exporters and backends say: mappings of any kind, tuples, numbers of numpy."""
    if hasattr(value, "items"):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return value.item() if hasattr(value, "item") else str(value)


def error_data(error: Exception) -> dict[str, Any]:
    """What was raised, in its three parts; what is none of ours becomes a :class:`RunFailed`."""
    if isinstance(error, VitDeployError) and type(error).__name__ in _CLASSES:
        told, kind = error, type(error).__name__
    else:
        told, kind = RunFailed(f"{type(error).__name__}: {error}"), "RunFailed"
    return {
        "kind": kind,
        "found": told.found,
        "expected": told.expected,
        "next_command": told.next_command,
    }


def error_from(data: Mapping[str, Any]) -> VitDeployError:
    """The inverse of :func:`error_data`."""
    kind = _CLASSES.get(data["kind"], RunFailed)
    return kind(data["found"], expected=data["expected"], next_command=data["next_command"])
