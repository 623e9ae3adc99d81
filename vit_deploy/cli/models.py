"""``vit-deploy models``: the named architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._output import json_option, next_step, print_json, print_table

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig


@click.command("models", short_help="List the named architectures.")
@click.argument("search", default="")
@json_option
def command(search: str, as_json: bool) -> None:
    """List the named architectures, or those whose name contains SEARCH.

    GMACs are for one image: patch projection, linear layers and both products of attention.
    """
    from vit_deploy.errors import unknown_name
    from vit_deploy.model.architectures import NAMED_CONFIGS

    found = {name: config for name, config in NAMED_CONFIGS.items() if search.lower() in name}
    if not found:
        raise unknown_name("architecture", search, NAMED_CONFIGS, "vit-deploy models")
    rows = [_row(name, config) for name, config in found.items()]
    if as_json:
        print_json("models", {"models": rows})
    else:
        print_table(
            ["name", "image>", "patch>", "dim>", "depth>", "heads>", "params>", "GMACs>"],
            [
                (
                    row["name"],
                    f"{row['image_size'][0]}",
                    str(row["patch_size"]),
                    str(row["embed_dim"]),
                    str(row["depth"]),
                    str(row["num_heads"]),
                    f"{row['parameters'] / 1e6:.1f} M",
                    f"{row['gmacs']:.2f}",
                )
                for row in rows
            ],
        )
    next_step(f"vit-deploy inspect {rows[0]['name'] if search else 'vit_base_patch16_224'}")


def _row(name: str, config: ViTConfig) -> dict[str, Any]:
    from vit_deploy.model.counts import count_macs, count_parameters

    return {
        "name": name,
        "image_size": list(config.image_size),
        "patch_size": config.patch_size,
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "num_classes": config.num_classes,
        "parameters": count_parameters(config),
        "gmacs": round(count_macs(config) / 1e9, 3),
    }
