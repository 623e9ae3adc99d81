"""OpenCLIP's own image tower of a checkpoint (https://github.com/mlfoundations/open_clip).

A directory describes itself; a bare file has the config that OpenCLIP knows by the name that was given,
with the sizes that the file's weights show. The text tower is not made: nothing is imported of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import UsageFailed
from vit_deploy.proof.references import Reference, Tap, block_taps, require_library

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from vit_deploy.weights.imported import Model
    from vit_deploy.weights.request import Request

INSTALL = "pip install open_clip_torch"


def build(request: Request, model: Model) -> Reference:
    """OpenCLIP's image tower of the checkpoint.

    Raises:
        BackendMissing: when OpenCLIP is not installed.
        UsageFailed: for a bare file whose architecture OpenCLIP does not know by its name.
    """
    version = require_library("open_clip_torch", "OpenCLIP", INSTALL, module="open_clip")
    described, state = _directory(request.path) if request.path.is_dir() else _file(request)
    visual = _tower(described)
    visual.load_state_dict(state)
    if hasattr(visual, "trunk"):
        return Reference("open_clip", version, visual, *_timm_stages(visual, model))
    return Reference("open_clip", version, visual, *_own_stages(visual, model))


def _tower(described: Mapping[str, Any]) -> Any:
    # As open_clip.CLIP makes its `visual`.
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    tower = CLIPVisionCfg(**{**described["vision_cfg"], "timm_model_pretrained": False})
    return _build_vision_tower(described["embed_dim"], tower, bool(described.get("quick_gelu")))


def _directory(path: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    from open_clip.factory import _find_checkpoint_in_dir, load_state_dict

    described = json.loads((path / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
    return described, _visual(load_state_dict(_find_checkpoint_in_dir(path), weights_only=True))


def _visual(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = {name: value for name, value in state.items() if name.startswith("visual.")} or state
    return {name.removeprefix("visual."): value.float() for name, value in own.items()}


def _file(request: Request) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    import open_clip

    from vit_deploy.weights.files import read_checkpoint_file

    arch = request.arch or request.reference
    described = open_clip.get_model_config(arch.partition(".")[0])
    if described is None:
        raise UsageFailed(
            f"OpenCLIP has no model config called {arch!r}, and the proof is made with its own",
            expected="one of OpenCLIP's names, such as ViT-B-32",
            next_command="give --arch OpenCLIP's name, or leave --prove out",
        )
    path = Path(request.weights or request.reference)
    read = read_checkpoint_file(path, use_ema=request.use_ema)
    state = _visual({name: tensor.read() for name, tensor in read.items()})
    if "timm_model_name" not in described["vision_cfg"]:
        described = _resized(described, state)
    return described, state


def _resized(described: Mapping[str, Any], state: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """The config with the sizes of the weights, and as many heads as the name has."""
    tower = described["vision_cfg"]
    width, _, patch, _ = state["conv1.weight"].shape
    heads = tower["width"] // tower.get("head_width", 64)
    blocks = {name.split(".")[2] for name in state if name.startswith("transformer.resblocks.")}
    wide = len(state["transformer.resblocks.0.mlp.c_fc.weight"])
    sizes = {
        "width": width,
        "head_width": width // heads,
        "patch_size": patch,
        "layers": len(blocks),
        "mlp_ratio": (wide + 0.5) / width,  # it is rounded down
        "image_size": round((len(state["positional_embedding"]) - 1) ** 0.5) * patch,
    }
    return {**described, "embed_dim": state["proj"].shape[1], "vision_cfg": {**tower, **sizes}}


def _own_stages(visual: Any, model: Model) -> tuple[dict[str, Tap], Any]:
    taps = block_taps("transformer.resblocks", model.vit_config.depth)
    taps["tokens"] = Tap("transformer") if visual.final_ln_after_pool else Tap("ln_post")

    def run(pixel_values: Tensor) -> Mapping[str, Tensor]:
        found = visual(pixel_values)
        return {"image_embeds": found[0] if isinstance(found, tuple) else found}

    return taps, run


def _timm_stages(visual: Any, model: Model) -> tuple[dict[str, Tap], Any]:
    for part in visual.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False

    def run(pixel_values: Tensor) -> Mapping[str, Tensor]:
        # What TimmModel and timm's model do, call by call.
        tokens = visual.trunk.forward_features(pixel_values)
        return {
            "tokens": tokens,
            "embedding": visual.trunk.forward_head(tokens, pre_logits=True),
            "image_embeds": visual.head(visual.trunk.forward_head(tokens)),
        }

    return block_taps("trunk.blocks", model.vit_config.depth), run
