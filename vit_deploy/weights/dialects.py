"""State-dict dialects: what training scripts wrap around a ViT's weights, taken off again.

A script may save the state dict under a key (``model``, ``state_dict``), and each wrapper of a module
(DistributedDataParallel, torch.compile, Lightning, DINO's student and teacher) puts a word before every
name. A key and a prefix are the same thing here: a nested checkpoint is one of dotted names. Words are
taken off only where that gives names by which a ViT is known, and what was taken off is noted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed
from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    from collections.abc import Iterable

WRAPPERS: dict[str, int] = {
    # Self-supervised training: the teacher is what is released and evaluated.
    "teacher": 0,
    "target_encoder": 0,
    "state_dict": 1,
    "model_state_dict": 1,
    "model": 1,
    "module": 1,
    "_orig_mod": 1,
    "_fsdp_wrapped_module": 1,
    "_forward_module": 1,
    "net": 1,
    "network": 1,
    "backbone": 1,
    "encoder": 1,
    "base_encoder": 1,
    "base_model": 1,
    "student": 2,
    "momentum_encoder": 2,
    "model_ema": 3,
    "state_dict_ema": 3,
    "ema_state_dict": 3,
    "ema_model": 3,
    "ema": 3,
}
"""Words that stand before a ViT's names, and how readily a copy under them is taken: the least first."""

_AVERAGED = 3

_OWN = rf"(?:(?!(?:{'|'.join(WRAPPERS)})\.)\w+\.)?"
"""A library's own word before its names (``vit.``), which is no wrapper."""

_ANCHORS = tuple(
    re.compile(rf"(?P<wrapped>(?:\w+\.)*?)(?:{name})")
    for name in (
        r"(?:visual\.trunk\.)?patch_embed\.proj\.weight",
        r"(?:visual\.)?class_embedding",
        r"conv_proj\.weight",
        rf"{_OWN}embeddings\.patch_embeddings?(?:\.projection)?\.weight",
    )
)
"""Weights by which a ViT is known: of timm and its kin, OpenCLIP, torchvision and transformers."""

_HINT = re.compile("patch_embed|class_embedding|conv_proj")
"""What every anchor has in its name: most names are told from one by this alone."""

_SPENT = re.compile(
    r"(?:^|\.)(?:optimi[sz]ers?|optim|optimizer_states|(?:lr_)?schedulers?|(?:amp_|grad_|loss_)?scaler|amp|loops"
    r"|callbacks|criterion|\w*loss\w*|\w*metrics?|\w*acc(?:uracy)?|rng_state\w*|random_state)(?:\.|$)"
)
"""What belongs to training alone; it is left out without a word."""

_LEFT_OUT: tuple[tuple[str, str], ...] = (
    (
        r"(?:head|dino_head|ibot_head)\.(?:mlp(?:\.\d+)?\.(?:weight|bias)|last_layer\b.*)",
        "the projection head of DINO's training",
    ),
    (r"decoder_\w+\b.*|decoder\..*", "the decoder of MAE's training"),
    (r"(?:predictor|projector)\..*", "the predictor of self-supervised training"),
)
"""Parts of a training that no inference runs: names after any wrapper, and what they are."""

_SPLIT = re.compile(r"(blocks\.\d+\.attn\.)(?:to_|w)?(q|k|v|query|key|value)\.(weight|bias)")
"""Separate query, key and value layers beside timm's other names; timm's are ``q_proj`` and so on."""


@dataclass(frozen=True)
class _Copy:
    """A ViT's weights inside a checkpoint: the words before them, dots included."""

    prefix: str

    @property
    def words(self) -> list[str]:
        return self.prefix.split(".")[:-1]

    def rank(self, *, use_ema: bool) -> tuple[int, int]:
        ranks = [WRAPPERS[word] for word in self.words] or [1]
        if use_ema and self.averaged:
            return -1, len(ranks)
        return (max(ranks) if max(ranks) > 1 else min(ranks)), len(ranks)

    @property
    def averaged(self) -> bool:
        return any(WRAPPERS[word] == _AVERAGED for word in self.words)


def unwrap(weights: Weights, *, use_ema: bool = False) -> Weights:
    """The weights of the ViT itself, under the names that its own library gave them.

    Weights in which no ViT is known come back as they are, less what belongs to training alone.

    Args:
        weights: of a whole checkpoint, with dotted names.
        use_ema: take the moving average of the weights (EMA) where there is one.

    Raises:
        ImportFailed: when an average is asked for and there is none, or when weights that are no part
            of any training stand beside the ViT: a model around it, of which nothing is known.
    """
    copies = _copies(weights)
    if use_ema and not any(copy.averaged for copy in copies):
        raise ImportFailed(
            "the checkpoint has no moving average of its weights",
            expected=f"weights under {', '.join(word for word, rank in WRAPPERS.items() if rank == _AVERAGED)}",
            next_command="leave --use-ema out",
        )
    if not copies:
        return _unknown(weights)
    chosen, notes = min(copies, key=lambda copy: copy.rank(use_ema=use_ema)), list(weights.notes)
    others = [copy for copy in copies if copy != chosen]
    inside = _inside(weights, chosen, others)
    _require_nothing_beside(weights, chosen, others)
    kept, left = _without_training(inside)
    beside = {part for name in weights for part in [_left_out(_last_words(name))] if part}
    notes += _notes(chosen, others, sorted(left | (beside if chosen.prefix else set())))
    return Weights(kept, notes=tuple(notes))


def _copies(weights: Weights) -> list[_Copy]:
    found: dict[str, _Copy] = {}
    for name in weights:
        if not name.endswith((".weight", "class_embedding")) or not _HINT.search(name):
            continue
        for anchor in _ANCHORS:
            match = anchor.fullmatch(name)
            if match and all(word in WRAPPERS for word in match["wrapped"].split(".")[:-1]):
                found.setdefault(match["wrapped"], _Copy(match["wrapped"]))
                break
    return list(found.values())


def _unknown(weights: Weights) -> Weights:
    """Names with the words that all of them have taken off, for the message that they are unknown."""
    names = [name for name in weights if not _SPENT.search(name)]
    prefix = ""
    while names:
        word = names[0][len(prefix) :].partition(".")[0]
        if word not in WRAPPERS or not all(name.startswith(f"{prefix}{word}.") for name in names):
            break
        prefix += f"{word}."
    return Weights((weights[name].renamed(name[len(prefix) :]) for name in names), notes=weights.notes)


def _inside(weights: Weights, chosen: _Copy, others: list[_Copy]) -> list[WeightTensor]:
    length = len(chosen.prefix)
    within = tuple(copy.prefix for copy in others if copy.prefix.startswith(chosen.prefix))
    return [
        tensor.renamed(_SPLIT.sub(_projection, name[length:]))
        for name, tensor in weights.items()
        if name.startswith(chosen.prefix) and not name.startswith(within) and not _SPENT.search(name[length:])
    ]


def _projection(split: re.Match[str]) -> str:
    return f"{split[1]}{split[2][0]}_proj.{split[3]}"


def _require_nothing_beside(weights: Weights, chosen: _Copy, others: list[_Copy]) -> None:
    known = (chosen.prefix, *(copy.prefix for copy in others))  # a copy at the top takes in everything
    strange = [
        name
        for name, tensor in weights.items()
        if not name.startswith(known)
        and tensor.numel > 1  # a counter or a best score that was saved as a tensor
        and not _SPENT.search(name)
        and not _left_out(_last_words(name))
    ]
    if strange:
        shown = ", ".join(map(repr, strange[:3])) + (", …" if len(strange) > 3 else "")
        raise ImportFailed(
            f"the checkpoint has a ViT under {chosen.prefix!r} and {len(strange)} more weights around it "
            f"({shown}), of which nothing is known",
            expected="a ViT's own state dict",
            next_command=f"save model.{chosen.prefix.rstrip('.')}.state_dict() in a file of its own",
        )


def _last_words(name: str) -> str:
    """A name without the wrappers before it."""
    words = name.split(".")
    while len(words) > 1 and words[0] in WRAPPERS:
        words = words[1:]
    return ".".join(words)


def _left_out(name: str) -> str:
    return next((part for pattern, part in _LEFT_OUT if re.fullmatch(pattern, name)), "")


def _without_training(tensors: Iterable[WeightTensor]) -> tuple[list[WeightTensor], set[str]]:
    kept, left = [], set()
    for tensor in tensors:
        part = _left_out(tensor.name)
        if part:
            left.add(part)
        else:
            kept.append(tensor)
    return kept, left


def _notes(chosen: _Copy, others: list[_Copy], left: list[str]) -> list[str]:
    notes = []
    if chosen.prefix:
        notes.append(f"the weights were found under {chosen.prefix.rstrip('.')!r}")
    averages = [copy for copy in others if copy.averaged]
    if averages and not chosen.averaged:
        notes.append(
            f"the checkpoint also has a moving average of its weights ({averages[0].prefix.rstrip('.')!r}), "
            "which was not taken: --use-ema takes it"
        )
    elif others:
        shown = ", ".join(repr(copy.prefix.rstrip(".") or "the top") for copy in others)
        notes.append(f"the checkpoint holds other copies too, which were left out: {shown}")
    return notes + [f"{part} was left out" for part in left]
