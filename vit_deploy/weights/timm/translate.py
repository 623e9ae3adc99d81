"""timm's names, and those of original releases that resemble them, into ours; nothing is rounded.

Read are the names of timm's ``VisionTransformer``, ``Eva`` and ``Beit`` and of the release files of
DINO, DINOv2 (also cut into chunks, with ``register_tokens``), DINOv3, MAE, DeiT, DeiT III, BEiT and
EVA-02, whose renaming is in the ``checkpoint_filter_fn`` of timm's modules.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed
from vit_deploy.weights.tensors import Weights, WeightTensor, concatenate

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

_LEFT_OUT = re.compile(
    r"mask_token$|decoder_|(.+\.)?relative_position_index$|(.+\.)?rope\.(?!freqs$)|(.+\.)?rope_embed\."
    r"|(.+\.)?bias_mask$|local_cls_norm\.|projectors\.|lm_head\.|dino_head\.|ibot_head\.|head\.(mlp|last_layer)\."
)
"""What training alone needs, and tables that are computed: mask tokens, decoders, projection heads,
indices of relative positions, fixed rotary frequencies."""

_RENAMED = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # DINOv2's chunks count blocks from the first on
        (r"^(register_tokens|storage_tokens)$", "reg_token"),
        (r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma"),
        (r"^(blocks\.\d+\.attn)\.(relative_position_bias_table)$", r"\1.rel_pos.\2"),
        (r"^(blocks\.\d+\.attn)\.inner_attn_ln\.", r"\1.norm."),
        (r"^(blocks\.\d+\.attn)\.([qv])_bias$", r"\1.\2_proj.bias"),
        (r"^(blocks\.\d+\.mlp)\.ffn_ln\.", r"\1.norm."),
        (r"^(blocks\.\d+\.mlp)\.w12\.", r"\1.fc1."),
        (r"^(blocks\.\d+\.mlp)\.w1\.", r"\1.fc1_g."),
        (r"^(blocks\.\d+\.mlp)\.w2\.", r"\1.fc1_x."),
        (r"^(blocks\.\d+\.mlp)\.w3\.", r"\1.fc2."),
        (r"^pre_logits\.fc\.", "pre_logits."),
    )
)
"""Our name of each, applied one after the other."""

_QUERY = re.compile(r"(blocks\.\d+\.attn\.)q_proj\.(weight|bias)")
_GATE = re.compile(r"(blocks\.\d+\.mlp\.)fc1_g\.(weight|bias)")
_PIECE = re.compile(r"blocks\.\d+\.(attn\.[kv]_proj|mlp\.fc1_x)\.(weight|bias)")


def translate(weights: Weights) -> Weights:
    """The weights under our names, still unread and as float32.

    A name that is not known stays as it is, for the check of names to show.

    Raises:
        ImportFailed: for a tensor of integers, or parts of one layer whose shapes do not go together.
    """
    kept = Weights(tensor for name, tensor in weights.items() if not _LEFT_OUT.match(name)).as_float32()
    renamed = {our_name(name): tensor for name, tensor in kept.items()}
    if len(renamed) != len(kept):
        raise ImportFailed(
            "two weights of the checkpoint have the same meaning",
            expected="one weight for each part",
            next_command="have its owner save it again",
        )
    masked = {our_name(name.removesuffix("_mask")) for name in weights if name.endswith(".qkv.bias_mask")}
    return Weights(_joined({name: tensor.renamed(name) for name, tensor in renamed.items()}, masked))


def our_name(name: str) -> str:
    """Our name of a weight, before parts of one layer are joined."""
    for pattern, ours in _RENAMED:
        name = pattern.sub(ours, name)
    return name


def _joined(weights: dict[str, WeightTensor], masked: set[str]) -> Iterable[WeightTensor]:
    used: set[str] = set()
    for name, tensor in weights.items():
        query, gate = _QUERY.fullmatch(name), _GATE.fullmatch(name)
        if query is not None:
            yield _qkv(query[1], query[2], weights, used)
        elif gate is not None and f"{gate[1]}fc1_x.{gate[2]}" in weights:
            value = weights[f"{gate[1]}fc1_x.{gate[2]}"]
            used.add(value.name)
            yield _concatenated(f"{gate[1]}fc1.{gate[2]}", [tensor, value])
        elif name in masked:
            yield _without_key(tensor)
        elif _PIECE.fullmatch(name) is None:
            yield tensor
    # A piece whose counterpart is missing stays, for the check of names to show.
    yield from (
        tensor for name, tensor in weights.items() if _PIECE.fullmatch(name) is not None and name not in used
    )


def _qkv(place: str, kind: str, weights: dict[str, WeightTensor], used: set[str]) -> WeightTensor:
    """Query, key and value in one; a key bias that the checkpoint has not is zero."""
    query = weights[f"{place}q_proj.{kind}"]
    parts = [query]
    for letter in "kv":
        part = weights.get(f"{place}{letter}_proj.{kind}")
        if part is None and (kind == "weight" or letter == "v"):
            return query
        if part is not None:
            used.add(part.name)
        parts.append(part or _zeros(query))
    return _concatenated(f"{place}qkv.{kind}", parts)


def _zeros(like: WeightTensor) -> WeightTensor:
    def read() -> torch.Tensor:
        import torch

        return torch.zeros(like.shape, dtype=torch.float32)

    return WeightTensor(like.name, like.shape, "float32", read)


def _without_key(bias: WeightTensor) -> WeightTensor:
    """DINOv3 multiplies the bias of the keys by a mask of zeros."""
    third = bias.shape[0] // 3

    def read() -> torch.Tensor:
        values = bias.read().clone()
        values[third : 2 * third] = 0
        return values

    return WeightTensor(bias.name, bias.shape, bias.dtype, read)


def _concatenated(name: str, parts: list[WeightTensor]) -> WeightTensor:
    if len({part.shape[1:] for part in parts}) > 1 or not all(part.shape for part in parts):
        raise ImportFailed(
            f"the parts of {name!r} have shapes {', '.join(str(part.shape) for part in parts)}",
            expected="shapes that differ in their first number alone",
        )
    return concatenate(name, parts)
