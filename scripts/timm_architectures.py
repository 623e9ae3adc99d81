"""Write the tables of architectures from timm's own modules.

    python scripts/timm_architectures.py

Each model of timm's ViT modules is made on the meta device, and its config is read off the module:
``vit_deploy/model/architectures.json``, with what is missing for those that cannot be said.
What timm's functions pass to the constructors goes to ``vit_deploy/weights/timm/arguments.json``.
Both are sorted, one architecture a line, so that a new timm shows as a diff.
"""

from __future__ import annotations

import functools
import json
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from timm_reading import Unsupported, read_config

from vit_deploy.model.architectures import ARCHITECTURES_FILE
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.rotary_config import RotaryConfig
from vit_deploy.torchvision_schemas import let_torchvision_import
from vit_deploy.weights.timm.arguments import ARGUMENTS_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import nn

MODULES = ("vision_transformer", "deit", "eva", "beit")
"""timm's modules whose classes a ViTConfig can say."""

OTHER_MODULES = {
    "cait": "class attention and talking heads",
    "coat": "convolutional attention at several scales",
    "convit": "gated positional attention",
    "crossvit": "two branches of patches that attend to each other",
    "csatv2": "stages of different widths",
    "davit": "windows and attention over channels",
    "deepseek_vit": "RMSNorm",
    "efficientformer": "stages of different widths",
    "efficientformer_v2": "stages of different widths",
    "gcvit": "windows and stages of different widths",
    "gemma4_vit": "RMSNorm and a soft pooling of patches",
    "hiera": "mask units and stages of different widths",
    "hieradet_sam2": "windows and stages of different widths",
    "levit": "convolutional stem and stages of different widths",
    "maxxvit": "convolutional blocks and windows",
    "mobilevit": "convolutional blocks",
    "mvitv2": "pooling attention and stages of different widths",
    "naflexvit": "patches of images of any aspect in one batch (NaFlex)",
    "nest": "nested blocks of patches",
    "nextvit": "convolutional blocks",
    "pit": "stages of different widths",
    "pvt_v2": "overlapping patches and stages of different widths",
    "qwen3_vit": "multimodal rotary positions and merged patches",
    "swin_transformer": "shifted windows and merged patches",
    "swin_transformer_v2": "shifted windows and merged patches",
    "swin_transformer_v2_cr": "shifted windows and merged patches",
    "tiny_vit": "convolutional stem and windows",
    "tnt": "a transformer inside each patch",
    "twins": "windows and stages of different widths",
    "visformer": "convolutional stages",
    "vision_transformer_hybrid": "a convolutional stem before the patches",
    "vision_transformer_relpos": "relative positions of another kind than BEiT's",
    "vision_transformer_sam": "windowed attention",
    "vitamin": "convolutional stages before the blocks",
    "volo": "outlook attention",
    "xcit": "attention over channels",
}
"""What other transformers of timm have that no ViTConfig can say, by module."""


def make(name: str, **kwargs: Any) -> nn.Module:
    """A model of timm on the meta device."""
    import timm
    import torch

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: nn.Module = timm.create_model(name, **kwargs)
    return module


@contextmanager
def recorded_arguments() -> Iterator[dict[str, Any]]:
    """What timm's functions pass on, before the pretrained config's own sizes are added."""
    from timm.models import _builder

    seen: dict[str, Any] = {}
    original = _builder._update_default_model_kwargs

    def record(pretrained_cfg: Any, kwargs: dict[str, Any], kwargs_filter: Any) -> None:
        seen.clear()
        seen.update(kwargs)
        original(pretrained_cfg, kwargs, kwargs_filter)

    _builder._update_default_model_kwargs = record
    try:
        yield seen
    finally:
        _builder._update_default_model_kwargs = original


def as_plain(value: Any) -> Any:
    """An argument as JSON; classes and partials by the names that the constructors here know."""
    from torch import nn

    if isinstance(value, functools.partial):
        name = as_plain(value.func)
        if name == "GluMlp":
            return "SwiGLUPacked"
        return f"{name}(eps={value.keywords['eps']!r})"
    if isinstance(value, type):
        names = {
            "LayerNorm": "layernorm",
            "RmsNorm": "rmsnorm",
            "QuickGELU": "quick_gelu",
            "GELUTanh": "gelu_tanh",
        }
        if issubclass(value, (nn.GELU, nn.SiLU, nn.ReLU)):
            return value.__name__.lower()
        return names.get(value.__name__, value.__name__)
    return list(value) if isinstance(value, tuple) else value


def differences(config: ViTConfig) -> dict[str, Any]:
    """What sets a config apart from the default one."""
    plain = ViTConfig().to_dict()
    found = {name: value for name, value in config.to_dict().items() if value != plain[name]}
    if config.rotary is not None:
        usual = ViTConfig(rotary=RotaryConfig()).to_dict()["rotary"]
        found["rotary"] = {name: value for name, value in found["rotary"].items() if value != usual[name]}
    return found


def survey() -> tuple[dict[str, Any], dict[str, list[Any]], dict[str, list[str]]]:
    """Configs, arguments, and what is missing, by name and by part."""
    import timm

    configs: dict[str, Any] = {}
    arguments: dict[str, list[Any]] = {}
    unsupported: dict[str, list[str]] = {}
    for module_name in MODULES:
        for name in timm.list_models(module=module_name):
            with recorded_arguments() as seen:
                module = make(name)
            try:
                configs[name] = differences(read_config(module))
            except Unsupported as part:
                unsupported.setdefault(str(part), []).append(name)
                continue
            kept = {key: as_plain(value) for key, value in seen.items() if value is not None}
            arguments[name] = [type(module).__name__, kept]
    for module_name, part_name in OTHER_MODULES.items():
        names = timm.list_models(module=module_name)
        if names:
            unsupported.setdefault(part_name, []).extend(names)
    return configs, arguments, unsupported


def aliases(names: set[str]) -> dict[str, str]:
    """Former names of timm's, by which old checkpoints call an architecture."""
    from timm.models._registry import _deprecated_models

    found = {old: str(new).partition(".")[0] for old, new in _deprecated_models.items()}
    return {old: new for old, new in found.items() if new in names}


def write(path: Path, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Sorted JSON, one entry a line."""
    parts = []
    for title in sorted(sections):
        lines = [
            f"  {json.dumps(name)}: {json.dumps(entry, sort_keys=True)}"
            for name, entry in sorted(sections[title].items())
        ]
        parts.append(f" {json.dumps(title)}: {{\n" + ",\n".join(lines) + "\n }")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def main() -> None:
    """Write both tables."""
    configs, arguments, unsupported = survey()
    parts = {part: sorted(set(names)) for part, names in unsupported.items()}
    write(ARCHITECTURES_FILE, {"architectures": configs, "unsupported": parts})
    write(ARGUMENTS_FILE, {"architectures": arguments, "aliases": aliases(set(configs))})
    print(f"{len(configs)} architectures, {sum(map(len, parts.values()))} that cannot be said")


if __name__ == "__main__":
    let_torchvision_import()
    main()
