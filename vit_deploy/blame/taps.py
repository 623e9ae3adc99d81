"""Taps: the named places at which a ViT is looked into, the same in every format.

A tap is the residual stream ``(b, n, d)`` at one place, so an error that came in stays visible behind it:

``embed``
    the stream as it enters block 0: patches, prefix tokens and positions, after the norm before the
    blocks where there is one.
``blocks.<i>.attn``, ``blocks.<i>.mlp``
    the stream after block ``i``'s attention, or its MLP, was added to it; the latter is the block's output.

Behind them come the model's outputs under their own names. Blocks count from 0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vit_deploy.model.config import ViTConfig
from vit_deploy.model.contract import network_is_dynamic
from vit_deploy.spec import TensorSpec

if TYPE_CHECKING:
    from vit_deploy.model.kinds import Architecture
    from vit_deploy.spec import IOSpec

EMBED = "embed"
TOKENS = "tokens"
"""The tokens after the final norm: an output of every ViT, and a tap where an artefact lacks it."""

OUTPUT_ORDER = (TOKENS, "embedding", "logits", "image_embeds")
"""In which outputs are computed; each needs no later one."""

_BLOCK = re.compile(r"blocks\.(\d+)\.(attn|mlp)")
_PARTS = {"attn": "attention", "mlp": "MLP"}
_WORDS = {
    EMBED: "the embedding (patches and positions)",
    TOKENS: "the final norm",
    "embedding": "the pooling",
    "logits": "the head",
    "image_embeds": "the projection",
}


def stream_taps(depth: int) -> tuple[str, ...]:
    """The taps of the residual stream of ``depth`` blocks, in order: ``2 * depth + 1`` of them."""
    return (EMBED, *(f"blocks.{block}.{part}" for block in range(depth) for part in _PARTS))


def tap_names(config: Architecture) -> tuple[str, ...]:
    """Every tap of a model, in the order of computation.

    Args:
        config: of the model. Nothing is known of the inside of a module that is none of our ViTs, so
            only its outputs are named.
    """
    if not isinstance(config, ViTConfig):
        return tuple(config.output_names)
    outputs = (name for name in OUTPUT_ORDER if name in config.output_names)
    return (*stream_taps(config.depth), *outputs)


def in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """Outputs, each once, in the order of computation; those that are none of a ViT's come last."""
    known = [name for name in OUTPUT_ORDER if name in names]
    return (*known, *dict.fromkeys(name for name in names if name not in known))


def in_words(tap: str) -> str:
    """A tap for a person: ``block 7's attention``."""
    found = _BLOCK.fullmatch(tap)
    if found is not None:
        return f"block {found[1]}'s {_PARTS[found[2]]}"
    return _WORDS.get(tap, f"the output {tap!r}")


def block_of(tap: str) -> int | None:
    """The block that a tap stands in; ``None`` before and behind the blocks."""
    found = _BLOCK.fullmatch(tap)
    return int(found[1]) if found is not None else None


def depth_at(tap: str, depth: int) -> int:
    """How many blocks have rounded by a tap, 1 at least: what its error is granted for.

    Args:
        tap: any tap.
        depth: of the model.
    """
    if tap == EMBED:
        return 1
    block = block_of(tap)
    return depth if block is None else block + 1


def tap_spec(tap: str, spec: IOSpec, config: ViTConfig) -> TensorSpec:
    """A tap as a further output of an artefact: float32 ``(b, n, d)``.

    Args:
        tap: its name.
        spec: of the artefact.
        config: of the model.
    """
    sizes = spec.sizes if network_is_dynamic(spec) else None
    (tokens,) = config.io_spec((TOKENS,), spec.batch, sizes=sizes).outputs
    return TensorSpec(tap, "float32", tokens.shape)
