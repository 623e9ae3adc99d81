"""Write the table of architectures that are named by other libraries than timm.

    python scripts/other_architectures.py

``vit_deploy/model/architectures_others.json`` holds torchvision's builders and OpenCLIP's model configs,
each as what sets it apart from ``ViTConfig()``. OpenCLIP's are read off the files that it installs; those
whose image tower no ViTConfig can say are left out, as are names that timm has too.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from vit_deploy.errors import ImportFailed
from vit_deploy.model.architectures import ARCHITECTURES_FILE, OTHER_ARCHITECTURES_FILE
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.fields import Fields
from vit_deploy.weights.open_clip.config import tower_config

TORCHVISION = {
    "vit_b_16": {},
    "vit_b_32": {"patch_size": 32},
    "vit_l_16": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096},
    "vit_l_32": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096, "patch_size": 32},
    "vit_h_14": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "mlp_dim": 5120, "patch_size": 14},
}
"""What torchvision's builders pass on (torchvision/models/vision_transformer.py)."""

TEXT_VARIANTS = ("mt5-", "nllb-", "roberta-", "xlm-roberta-", "coca_roberta")
"""Names of models that differ from others in their text tower alone."""


def main() -> None:
    """Write the table, one architecture a line."""
    tables = {"open_clip": _open_clip(), "torchvision": _torchvision()}
    parts = []
    for source, table in tables.items():
        lines = [f"  {json.dumps(name)}: {json.dumps(_apart(table[name]))}" for name in sorted(table)]
        parts.append(f' "{source}": {{\n' + ",\n".join(lines) + "\n }")
    OTHER_ARCHITECTURES_FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    counts = ", ".join(f"{len(table)} of {name}" for name, table in tables.items())
    print(f"{OTHER_ARCHITECTURES_FILE.name}: {counts}")


def _torchvision() -> dict[str, ViTConfig]:
    return {
        name: ViTConfig(**sizes, position_resampling="bicubic_aligned")  # type: ignore[arg-type]
        for name, sizes in TORCHVISION.items()
    }


def _open_clip() -> dict[str, ViTConfig]:
    import importlib.util

    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise SystemExit("open_clip is not installed: pip install open_clip_torch")
    timms = json.loads(ARCHITECTURES_FILE.read_text(encoding="utf-8"))
    taken = {*timms["architectures"], *(name for names in timms["unsupported"].values() for name in names)}
    table = {}
    for path in sorted((Path(spec.origin).parent / "model_configs").glob("*.json")):
        described = json.loads(path.read_text(encoding="utf-8"))
        if path.stem in taken or path.stem.startswith(TEXT_VARIANTS):
            continue
        try:
            table[path.stem] = _with_projection(tower_config(Fields(described, path.name)), described)
        except ImportFailed as error:
            print(f"left out: {path.stem}: {error.found}")
    return table


def _with_projection(config: ViTConfig, described: dict[str, object]) -> ViTConfig:
    """A tower of timm's has its projection in the weights; the config says what it will be."""
    tower = described["vision_cfg"]
    assert isinstance(tower, dict)
    if "timm_model_name" not in tower or tower.get("timm_proj") == "none":
        return config
    bias = tower.get("timm_proj") is None or bool(tower.get("timm_proj_bias"))
    return replace(config, projection_dim=described["embed_dim"], projection_bias=bias)


def _apart(config: ViTConfig) -> dict[str, object]:
    """What sets a config apart from ``ViTConfig()``."""
    plain = ViTConfig().to_dict()
    return {name: value for name, value in sorted(config.to_dict().items()) if value != plain[name]}


if __name__ == "__main__":
    main()
