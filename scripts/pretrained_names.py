"""Write the table of pretrained weights that timm and OpenCLIP name, by architecture.

    python scripts/pretrained_names.py

``vit_deploy/model/pretrained.json`` holds, for each architecture that is named here, the tags that its
library has weights for and where they lie on the hub. Nothing is fetched: the names are in the libraries.
"""

from __future__ import annotations

import json
import re
from typing import Any

from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.model.catalogue import PRETRAINED_FILE
from vit_deploy.torchvision_schemas import let_torchvision_import


def timm_tags() -> dict[str, dict[str, str]]:
    """``{architecture: {tag: hub name}}``, of those that lie on the hub."""
    import timm
    from timm.models import get_pretrained_cfg

    found: dict[str, dict[str, str]] = {}
    for full in timm.list_pretrained():
        name, _, tag = full.partition(".")
        cfg = get_pretrained_cfg(full)
        if name in NAMED_CONFIGS and tag and cfg is not None and cfg.hf_hub_id:
            hub = cfg.hf_hub_id if "/" in cfg.hf_hub_id and cfg.hf_hub_id != "timm/" else f"timm/{full}"
            found.setdefault(name, {})[tag] = hub
    return found


def open_clip_tags() -> dict[str, dict[str, str]]:
    """``{architecture: {tag: hub name}}``, of those that lie on the hub in a repository of their own."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    found: dict[str, dict[str, str]] = {}
    for name, tag in open_clip.list_pretrained():
        hub: Any = get_pretrained_cfg(name, tag).get("hf_hub", "")
        if name in NAMED_CONFIGS and re.fullmatch(r"[^/]+/[^/]+/?", hub):
            found.setdefault(name, {})[tag] = hub.rstrip("/")
    return found


def main() -> None:
    """Write the table, one architecture a line."""
    let_torchvision_import()
    table = {**timm_tags(), **open_clip_tags()}
    lines = [f" {json.dumps(name)}: {json.dumps(table[name], sort_keys=True)}" for name in sorted(table)]
    PRETRAINED_FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{sum(map(len, table.values()))} weights of {len(table)} architectures")


if __name__ == "__main__":
    main()
