"""Google's JAX checkpoints: the ``.npz`` files of ``vision_transformer`` (AugReg) and ``big_vision``.

Sources of the layouts: https://github.com/google-research/vision_transformer ``vit_jax/models_vit.py``
and https://github.com/google-research/big_vision ``big_vision/models/vit.py``. What an architecture's
epsilon and activation are follows timm, as its own loader of these files does
(``_load_weights`` in timm/models/vision_transformer.py).

Flax keeps dense kernels as ``(in, out)``, convolutions as ``(h, w, in, out)``, attention's projections as
``(d, k, d/k)`` and ``(k, d/k, d)``; under ``nn.scan`` all blocks are one array, the block its first axis.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed
from vit_deploy.weights.bare import Bare, fitted
from vit_deploy.weights.tensors import Weights, WeightTensor, concatenate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from vit_deploy.model.config import ViTConfig

_KERNEL = re.compile(r"(?P<prefix>(?:(?:opt|target|params|model|img)/)*)embedding/kernel")
_BESIDE = re.compile(r"(?:opt|opt_state|state|chrono|extra)(?:/.*)?|(?:params/)?(?:txt/.*|t|b)|step|epoch")
"""The optimiser's state, and SigLIP's text tower, temperature and bias."""

_BLOCK = re.compile(r"Transformer/encoderblock(?:_(\d+))?/(.+)")
_HYBRID = re.compile(r"conv_root/.*|gn_root/.*|block1/.*")


class _Flax:
    """Changes of layout from Flax to torch: what becomes of a shape, and of the numbers."""

    def __init__(
        self, axes: int, shape: Callable[..., tuple[int, ...]], change: Callable[..., torch.Tensor]
    ) -> None:
        self.axes, self.shape, self.change = axes, shape, change

    def __call__(self, tensor: WeightTensor, name: str) -> WeightTensor:
        if len(tensor.shape) != self.axes:
            raise ImportFailed(
                f"weight {tensor.name!r} has shape {tensor.shape}",
                expected=f"{self.axes} axes, as Google's ViTs have it",
            )
        return tensor.rearranged(name, self.shape(*tensor.shape), self.change)


_DENSE = _Flax(2, lambda i, o: (o, i), lambda kernel: kernel.T)
_CONV = _Flax(4, lambda h, w, i, o: (o, i, h, w), lambda kernel: kernel.permute(3, 2, 0, 1))
_HEADS = _Flax(3, lambda d, k, w: (k * w, d), lambda kernel: kernel.flatten(1).T)
_HEAD_BIAS = _Flax(2, lambda k, w: (k * w,), lambda bias: bias.flatten())
_OUT = _Flax(3, lambda k, w, d: (d, k * w), lambda kernel: kernel.flatten(0, 1).T)
_VECTOR = _Flax(1, lambda d: (d,), lambda vector: vector)
_TOKENS = _Flax(3, lambda b, n, d: (b, n, d), lambda tokens: tokens)

_Table = tuple[tuple[str, str, _Flax], ...]


def _norm(theirs: str, ours: str) -> _Table:
    return (rf"{theirs}/scale", f"{ours}.weight", _VECTOR), (rf"{theirs}/bias", f"{ours}.bias", _VECTOR)


def _dense(theirs: str, ours: str) -> _Table:
    return (rf"{theirs}/kernel", f"{ours}.weight", _DENSE), (rf"{theirs}/bias", f"{ours}.bias", _VECTOR)


def _attention(theirs: str, ours: str) -> _Table:
    heads = [
        entry
        for name, letter in (("query", "q"), ("key", "k"), ("value", "v"))
        for entry in (
            (rf"{theirs}/{name}/kernel", f"{ours}.{letter}.weight", _HEADS),
            (rf"{theirs}/{name}/bias", f"{ours}.{letter}.bias", _HEAD_BIAS),
        )
    ]
    out = (
        (rf"{theirs}/out/kernel", f"{ours}.proj.weight", _OUT),
        (rf"{theirs}/out/bias", f"{ours}.proj.bias", _VECTOR),
    )
    return (*heads, *out)


_OUTER: _Table = (
    ("embedding/kernel", "patch_embed.proj.weight", _CONV),
    ("embedding/bias", "patch_embed.proj.bias", _VECTOR),
    ("cls", "cls_token", _TOKENS),
    (r"(?:Transformer/posembed_input/)?pos_embedding", "pos_embed", _TOKENS),
    *_norm("Transformer/encoder_norm", "norm"),
    *_dense("pre_logits", "pre_logits"),
    *_dense("head", "head"),
    ("MAPHead_0/probe", "attn_pool.latent", _TOKENS),
    *_attention("MAPHead_0/MultiHeadDotProductAttention_0", "attn_pool"),
    *_norm("MAPHead_0/LayerNorm_0", "attn_pool.norm"),
    *_dense("MAPHead_0/MlpBlock_0/Dense_0", "attn_pool.mlp.fc1"),
    *_dense("MAPHead_0/MlpBlock_0/Dense_1", "attn_pool.mlp.fc2"),
)
_INNER: _Table = (
    *_norm("LayerNorm_0", "norm1"),
    # vision_transformer numbers what is inside a block in one row, big_vision by kind.
    *_norm("LayerNorm_[12]", "norm2"),
    *_attention("MultiHeadDotProductAttention_[01]", "attn"),
    *_dense("MlpBlock_[03]/Dense_0", "mlp.fc1"),
    *_dense("MlpBlock_[03]/Dense_1", "mlp.fc2"),
)

_JOINED = {
    r"(blocks\.\d+\.attn)\.q\.(weight|bias)": ("{0}.qkv.{1}", "qkv"),
    r"(attn_pool)\.k\.(weight|bias)": ("{0}.kv.{1}", "kv"),
}
"""By the first of the parts: our name of the whole, and the letters of the parts."""

_PART = re.compile(r"blocks\.\d+\.attn\.[kv]\.(weight|bias)|attn_pool\.v\.(weight|bias)")


def speaks(weights: Weights) -> bool:
    """Whether the weights have the names of Google's repositories."""
    return any("/" in name for name in weights)


def read(weights: Weights, base: ViTConfig, arch: str, num_classes: int | None) -> Bare:
    """Weights of Google's ViTs; all sizes, the heads too, are read off their shapes.

    Raises:
        ImportFailed: for a hybrid, an MLP-Mixer, NaFlex, or weights of another architecture.
    """
    inside = _tower(weights)
    translated = Weights(_joined(translate(inside))).as_float32()
    heads = _heads(inside, "Transformer/encoderblock")
    headless = "head.weight" not in translated
    known: dict[str, Any] = {
        "num_heads": heads or base.num_heads,
        "position_scope": _scope(inside, translated, base),
        "position_resampling": "bilinear",  # of timm's loader of these files
    }
    pool_heads = _heads(inside, "MAPHead_0")
    if pool_heads:
        known["pool_heads"] = 0 if pool_heads == known["num_heads"] else pool_heads
    if headless:
        known["num_classes"] = 0
    config, notes = fitted(base, translated, arch, **known)
    return Bare(config, translated, notes=(*notes, *_notes(base, arch, headless=headless and num_classes != 0)))


def translate(weights: Weights) -> Iterator[WeightTensor]:
    """The weights of one tower under our names, before those of one layer are joined; still unread.

    A name that is not known stays as it is, for the check of names to show.

    Raises:
        ImportFailed: for a weight of another number of axes.
    """
    for name, tensor in weights.items():
        block = _BLOCK.fullmatch(name)
        entry = _entry(block[2], _INNER) if block else _entry(name, _OUTER)
        if entry is None:
            yield tensor
        elif block is None:
            yield entry[1](tensor, entry[0])
        elif block[1] is not None:
            yield entry[1](tensor, f"blocks.{int(block[1])}.{entry[0]}")
        else:
            for index in range(tensor.shape[0] if tensor.shape else 0):
                yield entry[1](tensor.at(index, name), f"blocks.{index}.{entry[0]}")


def _entry(name: str, table: _Table) -> tuple[str, _Flax] | None:
    return next(((ours, layout) for pattern, ours, layout in table if re.fullmatch(pattern, name)), None)


def _tower(weights: Weights) -> Weights:
    """The weights of the image tower, without the words before them."""
    hybrid = next(
        (name for name in weights if _HYBRID.fullmatch(re.sub(r"^(opt/target|params)/", "", name))), ""
    )
    if hybrid:
        raise ImportFailed(
            f"the checkpoint has a ResNet before the patches (a hybrid): weight {hybrid!r}",
            expected="patches that are cut and projected in one step (embedding/kernel)",
            next_command="vit-deploy models",
        )
    found = [match for name in weights if (match := _KERNEL.fullmatch(name))]
    if len(found) != 1:
        shown = ", ".join(map(repr, list(weights)[:4]))
        raise ImportFailed(
            f"the checkpoint holds {len(found)} image towers of Google's ViTs (its first weights: {shown})",
            expected="one, whose patches are projected by 'embedding/kernel'",
            next_command="vit-deploy models",
        )
    kernel, prefix = found[0][0], found[0]["prefix"]
    if len(weights[kernel].shape) == 2:
        raise ImportFailed(
            f"the checkpoint takes patches of images of any aspect (NaFlex): {kernel!r} has two axes",
            expected="a convolution over square images",
            next_command="vit-deploy models",
        )
    kept = [
        (name, tensor)
        for name, tensor in weights.items()
        if (prefix and name.startswith(prefix)) or not _BESIDE.fullmatch(name)
    ]
    return Weights(tensor.renamed(name.removeprefix(prefix)) for name, tensor in kept)


def _heads(weights: Weights, place: str) -> int:
    """How many heads the first query there has; 0 where there is none."""
    query = next(
        (tensor for name, tensor in weights.items() if name.startswith(place) and name.endswith("query/bias")),
        None,
    )
    return query.shape[-2] if query is not None and len(query.shape) >= 2 else 0


def _scope(theirs: Weights, ours: Weights, base: ViTConfig) -> str:
    """Which tokens have positions: vision_transformer adds them after the class token, big_vision before."""
    count = ours["pos_embed"].shape[1] if "pos_embed" in ours else 0
    if "cls_token" not in ours or not count:
        return base.position_scope
    squares = {
        scope
        for scope, patches in (("patches", count), ("all", count - 1))
        if math.isqrt(patches) ** 2 == patches
    }
    if len(squares) == 1:
        return squares.pop()
    return "patches" if "pos_embedding" in theirs else "all"


def _joined(tensors: Iterator[WeightTensor]) -> Iterator[WeightTensor]:
    weights = Weights(tensors)
    used: set[str] = set()
    for name, tensor in weights.items():
        for first, (whole, letters) in _JOINED.items():
            match = re.fullmatch(first, name)
            if match:
                names = [f"{match[1]}.{letter}.{match[2]}" for letter in letters]
                parts = [weights[part] for part in names if part in weights]
                if len(parts) == len(letters) and len({part.shape for part in parts}) == 1:
                    used.update(names)
                    yield concatenate(whole.format(match[1], match[2]), parts)
                break
        else:
            if not _PART.fullmatch(name):
                yield tensor
    # A part whose counterparts are missing stays, for the check of names to show.
    yield from (tensor for name, tensor in weights.items() if name not in used and _is_part(name))


def _is_part(name: str) -> bool:
    return bool(_PART.fullmatch(name)) or any(re.fullmatch(first, name) for first in _JOINED)


def _notes(base: ViTConfig, arch: str, *, headless: bool) -> Iterator[str]:
    if headless and base.num_classes:
        yield f"the checkpoint has no head where {arch} has one: the model has no logits"
    if base.activation == "gelu":
        yield (
            f"GELU is the exact one, as in timm's {arch.partition('.')[0]}; Flax, which trained the weights, "
            "computes its tanh form (a difference of about 0.0005 at most)"
        )
