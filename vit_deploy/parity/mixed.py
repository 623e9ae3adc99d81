"""Which layers an fp16 artefact must keep in fp32, from how large numbers grow in the model.

The names are those that ``--keep-fp32`` takes (:mod:`vit_deploy.graph.half_layers`). What is kept is as little
as holds: of a residual stream that grows past the end of fp16 the additions alone, which are no products, so
that the time is still spent in fp16.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from vit_deploy.graph.half_layers import RESIDUAL
from vit_deploy.model.config import ViTConfig
from vit_deploy.parity.ranges import FP16_MAX, PLACES, SAFETY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vit_deploy.parity.ranges import RangeWatch
    from vit_deploy.protocols import Artefact

    Named = Callable[[int, ViTConfig], tuple[str, ...]]


def _residual(block: int, config: ViTConfig) -> tuple[str, ...]:
    """The additions of a block whose sums are too large, and those of the next, which take them up."""
    following = (block, block + 1) if block + 1 < config.depth else (block,)
    return tuple(f"blocks.{index}.{RESIDUAL}" for index in following)


def _branch(block: int, config: ViTConfig) -> tuple[str, ...]:
    """Both branches' last layers, and whatever takes what they give: LayerScale, or the additions."""
    last = (f"blocks.{block}.attn.proj", f"blocks.{block}.mlp.fc2")
    scaled = (f"blocks.{block}.ls1", f"blocks.{block}.ls2") if config.layer_scale else ()
    return last + (scaled or _residual(block, config))


def _attention(block: int, _: ViTConfig) -> tuple[str, ...]:
    return (f"blocks.{block}.attn",)


def _mlp(block: int, _: ViTConfig) -> tuple[str, ...]:
    return (f"blocks.{block}.mlp",)


NEEDED: Mapping[str, Named] = MappingProxyType(
    {
        "residual": _residual,
        "qkv": _attention,
        "scores": _attention,
        "mlp_hidden": _mlp,
        "mlp_activated": _mlp,
        "branch": _branch,
    }
)
"""The layers that hold each kind of number of :data:`vit_deploy.parity.ranges.PLACES` that fp16 graphs hold."""


CERTAIN = ("residual", "qkv", "mlp_hidden", "mlp_activated", "branch")
"""Kinds that a graph in fp16 rounds to fp16 whatever a backend fuses, where it does as the graph says."""


def overflow_told(watch: RangeWatch | None, artefact: Artefact) -> str:
    """What would overflow in an fp16 artefact that no run here could show, since none was in fp16; or nothing.

    Only what was seen beyond fp16's end counts, on natural inputs, in layers that the artefact does not keep in
    fp32. Of artefacts that do not say which layers they keep, nothing is known.
    """
    half, config = artefact.facts.get("half"), artefact.config
    if artefact.precision != "fp16" or watch is None:
        return ""
    if not isinstance(half, dict) or not isinstance(config, ViTConfig):
        return ""
    kept = tuple(half.get("kept_fp32", ()))
    for kind in CERTAIN:
        block, value = max(enumerate(watch.maxima[kind]), key=lambda entry: entry[1])
        lacking = [name for name in NEEDED[kind](block, config) if not _inside(name, kept)]
        if value > FP16_MAX and lacking:
            names = ",".join(needed_in_fp32(watch, config))
            return (
                f"{PLACES[kind].title}: up to {value:,.0f} in block {block} on {watch.samples} natural inputs, "
                f"and fp16 ends at {FP16_MAX:,.0f}; add --keep-fp32 {names}, or export with --dtype bf16"
            )
    return ""


def _inside(name: str, kept: tuple[str, ...]) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in kept)


def needed_in_fp32(watch: RangeWatch, config: ViTConfig, safety: float = SAFETY) -> tuple[str, ...]:
    """The layers to keep in fp32, for ``--keep-fp32``; none where fp16 holds everything.

    Args:
        watch: of the model.
        config: of the model.
        safety: how much larger than seen a number may be on other inputs; attention scores are taken as seen,
            since a fused kernel has them in fp32.

    Returns:
        Names in the order of blocks, none of them inside another.
    """
    found: dict[str, int] = {}
    for kind, named in NEEDED.items():
        limit = FP16_MAX if kind == "scores" else FP16_MAX / safety
        for block, value in enumerate(watch.maxima[kind]):
            if value > limit:
                found |= {name: int(name.split(".")[1]) for name in named(block, config)}
    outer = {name for name in found if not _inside(name, tuple(other for other in found if other != name))}
    return tuple(sorted(outer, key=lambda name: (found[name], name)))
