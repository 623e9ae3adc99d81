"""One checkpoint in the ways that training scripts nest and name it.

The weights are timm's. A directory has timm's ``config.json`` beside a ``pytorch_model.bin`` that a
training script wrote; a bare file is of a real size, because nothing but its architecture's name
describes it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tests.specimens.specimen import Specimen, Stranger
from tests.specimens.timm import SIZES
from tests.specimens.values import randomise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from tests.specimens.specimen import Arguments

    State = dict[str, torch.Tensor]
    Nesting = Callable[[State, State], dict[str, Any]]
    """From the weights that count, and others that must not be taken, to what ``torch.save`` writes."""

SOURCE = "dialect"


def save(folder: Path, seed: int, *, architecture: str, sizes: dict[str, Any], nesting: Nesting) -> Arguments:
    """A small timm directory whose weights are nested as a training script nests them."""
    import timm
    import torch

    module = randomise(timm.create_model(architecture, **{**SIZES, **sizes}), seed)
    timm.models.save_for_hf(module, folder, safe_serialization=False)
    torch.save(nesting(module.state_dict(), _others(module, seed)), folder / "pytorch_model.bin")
    return {"reference": str(folder)}


def save_file(folder: Path, seed: int, *, architecture: str, nesting: Nesting) -> Arguments:
    """A bare file of an architecture of real size."""
    import timm
    import torch

    module = randomise(timm.create_model(architecture, num_classes=7), seed)
    path = folder / "checkpoint.pth"
    torch.save(nesting(module.state_dict(), _others(module, seed)), path)
    return {"reference": str(path), "arch": architecture} | _asked(nesting)


def _asked(nesting: Nesting) -> Arguments:
    """An average is taken only where it is asked for."""
    return {"use_ema": True} if nesting in {_average, _deit_average} else {}


def _others(module: Any, seed: int) -> State:
    """Weights of the same shapes that are not the ones to take: the raw ones beside an average."""
    from copy import deepcopy

    return dict(randomise(deepcopy(module), seed + 1).state_dict())


def _prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def _projection(state: State, prefix: str = "") -> State:
    """A projection head as DINO trains one on top; of no use afterwards."""
    import torch

    width = state["norm.weight"].shape[0]
    return {
        f"{prefix}head.mlp.0.weight": torch.ones(16, width),
        f"{prefix}head.mlp.0.bias": torch.ones(16),
        f"{prefix}head.last_layer.weight_g": torch.ones(9, 1),
        f"{prefix}head.last_layer.weight_v": torch.ones(9, 16),
    }


def _plain(state: State, others: State) -> dict[str, Any]:
    return state


def _ddp(state: State, others: State) -> dict[str, Any]:
    return {"state_dict": _prefixed("module.", state), "epoch": 3}


def _compiled(state: State, others: State) -> dict[str, Any]:
    return {"model": _prefixed("_orig_mod.", state)}


def _ddp_compiled(state: State, others: State) -> dict[str, Any]:
    return {"state_dict": _prefixed("module._orig_mod.", state)}


def _average(state: State, others: State) -> dict[str, Any]:
    """timm's train.py with ``--model-ema``."""
    return {"arch": "vit", "epoch": 3, "state_dict": others, "state_dict_ema": state}


def _beside_average(state: State, others: State) -> dict[str, Any]:
    """The same, where the average is not asked for."""
    return _average(others, state)


def _deit_average(state: State, others: State) -> dict[str, Any]:
    """DeiT's main.py: ``model`` beside ``model_ema``."""
    return {"model": others, "model_ema": state, "epoch": 3, "scaler": {"scale": 1.0}}


def _lightning(state: State, others: State) -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": _prefixed("model.", state),
        "hyper_parameters": {"lr": 1e-3},
    }


def _dino(state: State, others: State) -> dict[str, Any]:
    """DINO's main_dino.py: the student under DDP, the teacher not; the teacher is what is evaluated."""
    return {
        "student": _prefixed("module.backbone.", others) | _projection(others, "module."),
        "teacher": _prefixed("backbone.", state) | _projection(state),
        "epoch": 100,
    }


def _mae(state: State, others: State) -> dict[str, Any]:
    """MAE's pre-training: the encoder beside a decoder and a mask token."""
    import torch

    decoder = {
        "mask_token": torch.ones(1, 1, 16),
        "decoder_embed.weight": torch.ones(16, state["norm.weight"].shape[0]),
        "decoder_embed.bias": torch.ones(16),
        "decoder_pos_embed": torch.ones(1, 17, 16),
        "decoder_blocks.0.norm1.weight": torch.ones(16),
        "decoder_norm.weight": torch.ones(16),
        "decoder_pred.weight": torch.ones(192, 16),
    }
    return {"model": {**state, **decoder}}


def _separate_qkv(state: State, others: State) -> dict[str, Any]:
    """Query, key and value as three layers."""
    split: State = {}
    for name, value in state.items():
        if ".attn.qkv." not in name:
            split[name] = value
            continue
        for part, piece in zip("qkv", value.chunk(3), strict=True):
            split[name.replace(".qkv.", f".{part}_proj.")] = piece.clone()
    return split


def _specimen(family: str, name: str, nesting: Nesting, architecture: str, **sizes: Any) -> Specimen:
    make = partial(save, architecture=architecture, sizes=sizes)
    return Specimen(family, SOURCE, name, partial(make, nesting=nesting), plain=partial(make, nesting=_plain))


def _file(family: str, name: str, nesting: Nesting, architecture: str) -> Specimen:
    make = partial(save_file, architecture=architecture)
    return Specimen(family, SOURCE, name, partial(make, nesting=nesting), plain=partial(make, nesting=_plain))


def _save_random(folder: Path, seed: int, *, state: dict[str, tuple[int, ...]]) -> dict[str, str]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    path = folder / "checkpoint.pth"
    torch.save({name: torch.randn(shape, generator=generator) for name, shape in state.items()}, path)
    return {"reference": str(path), "arch": "vit_tiny_patch16_224"}


SPECIMENS: tuple[Specimen, ...] = (
    _specimen("ViT (AugReg)", "module. (DDP)", _ddp, "vit_tiny_patch16_224"),
    _specimen("ViT with registers", "_orig_mod. (torch.compile)", _compiled, "vit_base_patch16_reg4_gap_256"),
    _specimen("DeiT III", "module._orig_mod.", _ddp_compiled, "deit3_small_patch16_224"),
    _specimen("ViT (AugReg)", "state_dict beside state_dict_ema", _beside_average, "vit_small_patch16_224"),
    _specimen("DINOv2", "Lightning", _lightning, "vit_small_patch14_dinov2", num_classes=5),
    _specimen("DINO", "teacher and student", _dino, "vit_small_patch16_224.dino", num_classes=0),
    _specimen("MAE", "encoder and decoder", _mae, "vit_base_patch16_224.mae", num_classes=0),
    _specimen("ViT (AugReg)", "separate q, k, v", _separate_qkv, "vit_base_patch16_224"),
    _file("ViT (AugReg)", "state_dict_ema (timm), asked for", _average, "vit_tiny_patch16_224"),
    _file("DeiT distilled", "model_ema (DeiT), asked for", _deit_average, "deit_tiny_distilled_patch16_224"),
)

STRANGERS: tuple[Stranger, ...] = (
    Stranger(
        "A language model",
        SOURCE,
        "GPT-2",
        partial(_save_random, state={"wte.weight": (99, 32), "h.0.attn.c_attn.weight": (32, 96)}),
        says="wte|h.0|missing|patch",
    ),
)
