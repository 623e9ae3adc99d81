"""``vit-deploy models``: the named architectures, and what each source of checkpoints maps to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._output import json_option, next_step, print_json, print_notes, print_table

if TYPE_CHECKING:
    from vit_deploy.model.catalogue import Entry

_SHOWN = 3
"""Names that stand in a cell before the rest are counted."""


@click.command("models", short_help="List architectures, and what each source maps to.")
@click.argument("search", default="")
@json_option
def command(search: str, as_json: bool) -> None:
    """List the named architectures, and what each source of checkpoints maps to.

    SEARCH keeps those whose name, or the name of whose weights on the hub, contains it. GMACs are for one
    image: patch projection, linear layers and both products of attention.
    """
    from vit_deploy.errors import unknown_name
    from vit_deploy.model import catalogue
    from vit_deploy.model.architectures import NAMED_CONFIGS

    found = catalogue.search(search)
    refused = catalogue.refused(search) if search else {}
    sources = _sources(search)
    if not found and not refused and not sources:
        raise unknown_name("architecture", search, NAMED_CONFIGS, "vit-deploy models")
    rows = [_row(entry, search) for entry in found]
    if as_json:
        missing = [{"name": name, "missing": part} for name, part in refused.items()]
        print_json("models", {"models": rows, "sources": sources, "unsupported": missing})
    else:
        _print(rows, sources, refused)
    named = [row["name"] for row in rows]
    next_step(f"vit-deploy inspect {named[0] if search and named else 'vit_base_patch16_224'}")


def _print(rows: list[dict[str, Any]], sources: list[dict[str, Any]], refused: dict[str, str]) -> None:
    if rows:
        print_table(
            [
                "name",
                "source",
                "image>",
                "patch>",
                "dim>",
                "depth>",
                "heads>",
                "params>",
                "GMACs>",
                "parts",
                "weights",
            ],
            [_cells(row) for row in rows],
        )
    if sources:
        click.echo()
        print_table(
            ["source", "-m", "maps to"],
            [(entry["name"], entry["given_as"], _short(entry["maps_to"])) for entry in sources],
        )
    print_notes((name, f"not supported: it has {part}") for name, part in refused.items())


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    height, width = row["image_size"]
    return (
        row["name"],
        row["source"],
        str(height) if height == width else f"{height}x{width}",
        *(str(row[name]) for name in ("patch_size", "embed_dim", "depth", "num_heads")),
        f"{row['parameters'] / 1e6:.1f} M",
        f"{row['gmacs']:.2f}",
        ", ".join(row["parts"]),
        _short([tag["tag"] for tag in row["pretrained"]]),
    )


def _short(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _sources(search: str) -> list[dict[str, Any]]:
    """The sources; with a search those that map to something it is in, and just that."""
    from vit_deploy.weights.described import described_sources

    word = search.lower()
    kept = []
    for source in described_sources():
        names = [name for name in source.maps_to if word in name.lower() or word in source.name]
        if names:
            kept.append({"name": source.name, "given_as": source.given_as, "maps_to": names})
    return kept


def _row(entry: Entry, search: str) -> dict[str, Any]:
    from vit_deploy.model.counts import count_macs, count_parameters
    from vit_deploy.model.describe import parts_in_words

    config = entry.config
    return {
        "name": entry.name,
        "source": entry.source,
        "image_size": list(config.image_size),
        "patch_size": config.patch_size,
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "num_classes": config.num_classes,
        "parameters": count_parameters(config),
        "gmacs": round(count_macs(config) / 1e9, 3),
        "parts": list(parts_in_words(config)),
        "outputs": list(config.output_names),
        "pretrained": [
            {"tag": tag, "hub": f"hf-hub:{entry.pretrained[tag]}"} for tag in entry.matching_tags(search)
        ],
    }
