"""``vit-deploy formats``: every exporter and every backend, and what this machine can do with them."""

from __future__ import annotations

from typing import Any

import click

from vit_deploy.cli._output import json_option, next_step, print_json, print_table


@click.command("formats", short_help="List the formats and backends, and what this machine can do with them.")
@json_option
def command(as_json: bool) -> None:
    """List the formats that can be exported and the backends that run them.

    What this machine cannot do is listed too, with the reason and the command that mends it.
    """
    formats, backends = _formats(), _backends()
    if as_json:
        print_json("formats", {"formats": formats, "backends": backends})
    else:
        print_table(
            ["format", "export here", "precisions", "built from", "run by"],
            [
                (
                    row["name"],
                    _state(row),
                    ", ".join(row["precisions"]),
                    row["needs"] or "the model",
                    ", ".join(row["backends"]) or "–",
                )
                for row in formats
            ],
            title="Formats",
        )
        click.echo()
        print_table(
            ["backend", "run here", "devices", "opens", "what it is"],
            [
                (
                    row["name"],
                    _state(row),
                    ", ".join(row["devices"]) or "–",
                    ", ".join(row["formats"]),
                    row["description"],
                )
                for row in backends
            ],
            title="Backends",
        )
    _end(formats + backends)


def _formats() -> list[dict[str, Any]]:
    from vit_deploy import registry
    from vit_deploy.spec import PRECISIONS

    runtimes = [registry.runtime(name) for name in registry.backends()]
    rows = []
    for name in registry.formats():
        exporter = registry.exporter(name)
        rows.append(
            {
                "name": name,
                "description": exporter.description,
                **_availability(exporter),
                "precisions": [
                    precision for precision in PRECISIONS if precision in registry.precisions(exporter)
                ],
                "needs": exporter.needs,
                "backends": [runtime.name for runtime in runtimes if name in runtime.formats],
            }
        )
    return rows


def _backends() -> list[dict[str, Any]]:
    from vit_deploy import registry

    rows = []
    for name in registry.backends():
        runtime = registry.runtime(name)
        state = _availability(runtime)
        devices = [str(device) for device in runtime.devices()] if state["available"] else []
        rows.append(
            {
                "name": name,
                "description": runtime.description,
                **state,
                "devices": devices,
                "formats": sorted(runtime.formats),
            }
        )
    return rows


def _availability(entry: Any) -> dict[str, Any]:
    found = entry.available()
    return {"available": found.ok, "version": found.version, "reason": found.reason, "mend": found.mend}


def _state(row: dict[str, Any]) -> str:
    return (
        f"yes ({row['version']})"
        if row["available"] and row["version"]
        else "yes"
        if row["available"]
        else "no"
    )


def _end(rows: list[dict[str, Any]]) -> None:
    """Why something is missing and what mends it, once for each; then the next command."""
    seen: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if not row["available"]:
            names = seen.setdefault((row["reason"], row["mend"]), [])
            names.extend([row["name"]] if row["name"] not in names else [])
    for (reason, mend), names in seen.items():
        click.echo(f"{', '.join(names)}: {reason}; mend: {mend}", err=True)
    ready = [row["name"] for row in rows if row["available"] and "precisions" in row]
    next_step(f"vit-deploy export --format {','.join(ready)}" if ready else "vit-deploy doctor")
