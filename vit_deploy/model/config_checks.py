"""What a :class:`~vit_deploy.model.config.ViTConfig` must satisfy before a model is made of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, get_args, get_type_hints

from vit_deploy.errors import ImportFailed
from vit_deploy.model.fields import shown

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.rotary_config import RotaryConfig

_BOUNDS = {
    "patch_size": (1, 2**16),
    "in_channels": (1, 2**16),
    "embed_dim": (1, 2**16),
    "depth": (1, 1000),
    "num_heads": (1, 2**16),
    "mlp_dim": (1, 2**16),
    "num_classes": (0, 2**20),
    "num_registers": (0, 2**16),
    "pool_heads": (0, 2**16),
    "pool_mlp_dim": (0, 2**16),
    "representation_size": (0, 2**20),
    "projection_dim": (0, 2**20),
}
"""Least and most of each size: far beyond any ViT that was trained, and short of what would fill the
memory with names and shapes before the weights are looked at."""

_MAX_IMAGE_SIDE = 2**14
_MAX_TOKENS = 2**20
_MAX_RELATIVE_TOKENS = 2**13
"""Relative positions make a table of all pairs of tokens."""


def check_config(config: ViTConfig) -> None:
    """Refuse a config that no model can be made of.

    Raises:
        ImportFailed: saying what was found and what was expected.
    """
    _check_choices(config)
    _check_bounds(config)
    _check_image(config)
    _check_heads(config)
    _check_tokens(config)
    if config.rotary is not None:
        _check_rotary(config.rotary, config)


def _check_choices(config: ViTConfig | RotaryConfig) -> None:
    for name, hint in get_type_hints(type(config), _names()).items():
        choices = [choice for choice in get_args(hint) if isinstance(choice, str)]
        value = getattr(config, name)
        if choices and value not in choices:
            raise ImportFailed(
                f"the config says {name}={shown(value)}", expected=f"one of {', '.join(choices)}"
            )


def _names() -> dict[str, object]:
    """What the annotations of the config mean."""
    from vit_deploy.model import config

    return vars(config)


def _check_bounds(config: ViTConfig) -> None:
    for name, (least, most) in _BOUNDS.items():
        if not least <= getattr(config, name) <= most:
            raise ImportFailed(
                f"the config says {name}={shown(getattr(config, name))}",
                expected=f"{name} >= {least} and <= {most}",
            )
    # The largest float, because a whole number may be beyond all of them and yet below infinity.
    if not 0 <= config.norm_eps <= sys.float_info.max:
        raise ImportFailed(
            f"the config says norm_eps={shown(config.norm_eps)}", expected="a finite norm_eps >= 0"
        )


def _check_image(config: ViTConfig) -> None:
    height, width = config.image_size
    if max(height, width) > _MAX_IMAGE_SIDE:
        raise ImportFailed(
            f"the config says image_size={shown(config.image_size)}",
            expected=f"height and width of at most {_MAX_IMAGE_SIDE} pixels",
        )
    patch = config.patch_size
    divides = not (height % patch or width % patch)
    if min(height, width) < patch or not (divides or config.drop_remainder):
        raise ImportFailed(
            f"an image of {height}x{width} pixels does not divide into patches of {patch}",
            expected=f"height and width that are multiples of {patch}",
        )
    learned = config.resampled_from
    if learned is not None and (
        len(learned) != 2 or not all(type(side) is int and 1 <= side <= _MAX_IMAGE_SIDE for side in learned)
    ):
        raise ImportFailed(
            f"the config says resampled_from={shown(learned)}", expected="height and width in pixels"
        )
    most = _MAX_TOKENS if config.relative_positions == "none" else _MAX_RELATIVE_TOKENS
    if config.num_tokens > most:
        raise ImportFailed(
            f"{height}x{width} pixels in patches of {patch} are {config.num_tokens} tokens",
            expected=f"at most {most} tokens",
        )


def _check_heads(config: ViTConfig) -> None:
    for name in ("num_heads", "pool_heads"):
        heads = getattr(config, name)
        if heads and config.embed_dim % heads:
            raise ImportFailed(
                f"embed_dim={config.embed_dim} does not divide into {name}={heads}",
                expected=f"an embed_dim that is a multiple of {name}",
            )
    if config.distillation_head and not (config.distillation_token and config.num_classes):
        raise ImportFailed(
            "the config asks for a distillation head without what it stands on",
            expected="distillation_token=True and num_classes > 0",
        )


def _check_tokens(config: ViTConfig) -> None:
    if config.pool in {"token", "token_avg"} and not config.class_token:
        raise ImportFailed(
            f"the config pools by {config.pool!r} and has no class token",
            expected="class_token=True, or pool='avg'",
        )
    if config.distillation_token and not config.class_token:
        raise ImportFailed(
            "the config has a distillation token and no class token", expected="class_token=True"
        )
    if config.pool == "prefix_avg" and not config.num_prefix_tokens:
        raise ImportFailed("the config pools tokens that it has not", expected="a class token, or pool='avg'")
    if config.relative_positions != "none" and config.num_prefix_tokens != 1:
        raise ImportFailed(
            f"the config has relative positions and {config.num_prefix_tokens} tokens before the patches",
            expected="a class token alone, as BEiT has",
        )


def _check_rotary(rotary: RotaryConfig, config: ViTConfig) -> None:
    _check_choices(rotary)
    if config.head_dim % 4:
        raise ImportFailed(
            f"rotary positions turn heads of width {config.head_dim}", expected="a width that 4 divides"
        )
    for name in ("theta", "offset"):
        value = getattr(rotary, name)
        least = 0 if name == "theta" else -sys.float_info.max
        if not least <= value <= sys.float_info.max or (name == "theta" and not value):
            raise ImportFailed(f"the config says rotary {name}={shown(value)}", expected="a finite number")
    grid = rotary.reference_grid
    if grid is not None and (len(grid) != 2 or not all(1 <= side <= _MAX_IMAGE_SIDE for side in grid)):
        raise ImportFailed(f"the config says reference_grid={shown(grid)}", expected="rows and columns")
