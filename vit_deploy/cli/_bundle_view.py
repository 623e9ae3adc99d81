"""What ``inspect`` shows of a bundle: its source, its proof, and its artefacts with their verdicts."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._output import human_bytes, next_step, note, print_json, print_table
from vit_deploy.cli._proof import bundle_proof, describe_proof
from vit_deploy.errors import HostileInput
from vit_deploy.spec import size_text

if TYPE_CHECKING:
    from vit_deploy.bundle import Bundle
    from vit_deploy.bundle.manifest import ArtefactRecord


def show_bundle(bundle: Bundle, as_json: bool) -> None:
    """What a bundle holds, as one JSON document or in tables.

    Raises:
        HostileInput: once all is shown, when a file was changed since.
    """
    problems = {name: _problem(bundle, name) for name in ("", *bundle.records)}
    if as_json:
        print_json("inspect", _bundle_json(bundle, problems))
    else:
        _print_bundle(bundle, problems)
    found = [problem for problem in problems.values() if problem]
    if found:
        raise HostileInput(
            found[0] if len(found) == 1 else f"{len(found)} parts of the bundle were changed: {found[0]}",
            expected="files with the hashes of the manifest",
            next_command="vit-deploy export again, or restore the files",
        )
    next_step(f"vit-deploy verify {shlex.quote(str(bundle.path))}")


def _bundle_json(bundle: Bundle, problems: dict[str, str]) -> dict[str, Any]:
    record = bundle.manifest.model
    return {
        "kind": "bundle",
        "source": record.source.model_dump(),
        "config": record.config,
        "preprocessing": record.preprocessing,
        "labels": record.labels,
        "weights": {**record.weights.model_dump(), "intact": not problems[""]},
        "proof": record.proof.model_dump() if record.proof else None,
        "artefacts": [_artefact_json(entry, not problems[name]) for name, entry in bundle.records.items()],
        "default": _default_json(bundle),
    }


def _problem(bundle: Bundle, name: str) -> str:
    """What is wrong with the files of an artefact, or of the weights where ``name`` is empty."""
    try:
        if name:
            bundle.artefact(name)
        else:
            bundle.reference(bundle.config.io_spec())
    except HostileInput as error:
        return error.found
    return ""


def _print_bundle(bundle: Bundle, problems: dict[str, str]) -> None:
    record = bundle.manifest.model
    click.echo(f"source   {record.source.kind}: {record.source.name} (sha256 {record.source.sha256[:12]})")
    state = "changed" if problems[""] else "intact"
    click.echo(f"weights  {human_bytes(record.weights.bytes)}, {state}; {len(record.labels)} labels")
    proof = bundle_proof(bundle)
    if proof is not None:
        click.echo(f"proof    {describe_proof(proof)}")
    _print_default(bundle)
    click.echo()
    print_table(
        ["artefact", "size>", "parity", "p95>", "worst>", "batch", "files", "made with"],
        [_artefact_cells(entry, problems[name]) for name, entry in bundle.records.items()],
    )
    for name, entry in bundle.records.items():
        if entry.sizes:
            least, most = size_text(entry.sizes.minimum), size_text(entry.sizes.maximum)
            note(f"{name}: takes heights and widths of {least} to {most}")
        facts = ", ".join(f"{key} {value}" for key, value in entry.facts.items() if _is_plain(value))
        if facts:
            note(f"{name}: {facts}")
        if entry.parity.reason:
            note(f"{name}: {entry.parity.verdict().word}: {entry.parity.reason}")


def _print_default(bundle: Bundle) -> None:
    default = bundle.manifest.default
    if default is None:
        return
    figures = default.figures
    peak = f", {human_bytes(figures.peak_rss_bytes)} at the peak" if figures.peak_rss_bytes else ""
    click.echo(f"default  {default}, tuned for {default.objective}")
    click.echo(
        f"         {figures.p50_ms:g} ms, {figures.images_per_s:g} images/s{peak}, on {default.environment}"
    )
    objection = default.objection(bundle.records)
    if objection:
        click.echo(f"         not used: {objection}")


def _default_json(bundle: Bundle) -> dict[str, Any] | None:
    """The tuned default, and why it is not used where it cannot be."""
    default = bundle.manifest.default
    if default is None:
        return None
    return {**default.model_dump(), "objection": default.objection(bundle.records)}


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and value != ""


def _artefact_cells(record: ArtefactRecord, problem: str) -> tuple[str, ...]:
    parity, batch = record.parity, record.batch
    return (
        record.name,
        human_bytes(record.nbytes),
        parity.verdict().word,
        f"{parity.p95_ratio:.2f}" if parity.p95_ratio is not None else "–",
        f"{parity.worst_ratio:.2f}" if parity.worst_ratio is not None else "–",
        str(batch.maximum) if batch.minimum == batch.maximum else f"{batch.minimum}–{batch.maximum}",
        "changed" if problem else "intact",
        ", ".join(f"{name} {version}" for name, version in record.tools.items()),
    )


def _artefact_json(record: ArtefactRecord, intact: bool) -> dict[str, Any]:
    """One artefact, under the names that every document uses."""
    data = record.model_dump()
    parity = data.pop("parity")
    return {
        **data,
        "dtype": data.pop("precision"),
        "bytes": record.nbytes,
        "intact": intact,
        "passed": parity["passed"],
        "worst_ratio": parity["worst_ratio"],
        "p95_ratio": parity["p95_ratio"],
        "parity": parity,
    }
