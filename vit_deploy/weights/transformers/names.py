"""Weights of transformers under our names: renamed, split and joined exactly, and still unread."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed
from vit_deploy.weights.tensors import Weights, WeightTensor, concatenate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

    from vit_deploy.weights.transformers.family import Family, ModelClass, Rule

NUMBER = r"(\d+)"
AFFINE = r"\.(weight|bias)"

_JOINED = {"attn.qkv": ("attn.q", "attn.k", "attn.v"), "mlp.fc1": ("mlp.gate", "mlp.value")}
"""What is one tensor here, by its parts, in order."""

_ALONE = {"mlp.value": "mlp.fc1"}
"""A part that is the whole where its fellows are not there: an MLP without a gate."""


def translate(weights: Weights, family: Family, kind: ModelClass, without_bias: frozenset[str]) -> Weights:
    """The weights of a class under our names, as float32, still unread.

    A name that is not known stays as it is, for the check of names to show. Weights that the class has
    no use for are left out, as transformers does, before anybody looks at their dtype.

    Raises:
        ImportFailed: for a tensor of integers, two tensors for one place, or parts of different shapes.
    """
    renamed: dict[str, WeightTensor] = {}
    origin: dict[str, str] = {}
    for original, tensor in weights.items():
        name = _bare(family, original)
        if _matches((*family.unused, *kind.unused), name) or not tensor.numel:
            continue
        for ours in _renamed(family, kind.heads, name, tensor) or [tensor]:
            if ours.name in renamed:
                raise ImportFailed(
                    f"weights {origin[ours.name]!r} and {original!r} are both {ours.name!r}",
                    expected="one tensor for each place",
                )
            renamed[ours.name], origin[ours.name] = ours.as_float32(), original
    for whole, parts in _JOINED.items():
        renamed = _joined(renamed, whole, parts, without_bias)
    return Weights(renamed.values())


def fits(weights: Iterable[str], family: Family) -> bool:
    """Whether names are those of a family: each is known, and its marks are there."""
    names = [_bare(family, name) for name in weights]
    marked = all(any(re.fullmatch(mark, name) for name in names) for mark in family.marks)
    return marked and all(_knows(family, family.classes.values(), name) for name in names)


def known(weights: Iterable[str], family: Family, kind: ModelClass | None = None) -> int:
    """How many of the names a family, or one of its classes, knows."""
    kinds = family.classes.values() if kind is None else (kind,)
    return sum(_knows(family, kinds, _bare(family, name)) for name in weights)


def tops(weights: Iterable[str], family: Family) -> set[str]:
    """The first word of each name."""
    return {_bare(family, name).partition(".")[0] for name in weights}


def _bare(family: Family, name: str) -> str:
    return re.sub(f"^(?:{family.prefix})", "", name)


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _knows(family: Family, kinds: Iterable[ModelClass], name: str) -> bool:
    top = name.partition(".")[0]
    if any(top in kind.heads or _matches(kind.unused, name) for kind in kinds):
        return True
    return _found(family, name) is not None or _matches(family.unused, name)


def _found(family: Family, name: str) -> tuple[Rule, str] | None:
    """The rule for a name, and our name."""
    block = re.match(family.block, name)
    start = f"blocks.{block[1]}." if block else ""
    tail = name[block.end() :] if block else name
    for rule in family.inner if block else family.outer:
        match = re.fullmatch(rule.theirs, tail)
        if match:
            return rule, start + match.expand(rule.ours)
    return None


def _renamed(family: Family, heads: Mapping[str, str], name: str, tensor: WeightTensor) -> list[WeightTensor]:
    head, _, rest = name.partition(".")
    if head in heads:
        return [tensor.renamed(f"{heads[head]}.{rest}")]
    found = _found(family, name)
    if found is None:
        return []
    rule, ours = found
    return [tensor.renamed(ours)] if rule.form is None else rule.form(ours, tensor)


def _joined(
    weights: dict[str, WeightTensor], whole: str, parts: tuple[str, ...], without_bias: frozenset[str]
) -> dict[str, WeightTensor]:
    pattern = rf"(blocks\.\d+\.)({'|'.join(map(re.escape, parts))})\.(weight|bias)"
    groups: dict[tuple[str, str], dict[str, WeightTensor]] = {}
    for name, tensor in weights.items():
        if match := re.fullmatch(pattern, name):
            groups.setdefault((match[1], match[3]), {})[match[2]] = tensor
    result = dict(weights)
    for (block, leaf), found in groups.items():
        lacking = {part for part in parts if leaf == "bias" and part.rpartition(".")[2] in without_bias}
        if set(found) == set(parts) - lacking:
            pieces = [found.get(part) or _zeros(next(iter(found.values()))) for part in parts]
            joined = _concatenated(f"{block}{whole}.{leaf}", pieces)
        elif len(found) == 1 and (part := next(iter(found))) in _ALONE:
            joined = found[part].renamed(f"{block}{_ALONE[part]}.{leaf}")
        else:
            continue
        for part in found:
            del result[f"{block}{part}.{leaf}"]
        result[joined.name] = joined
    return result


def _concatenated(name: str, parts: list[WeightTensor]) -> WeightTensor:
    shapes = [part.shape for part in parts]
    if len(set(shapes)) > 1 or not shapes[0]:
        what = "query, key and value" if len(parts) == 3 else "gate and value"
        raise ImportFailed(
            f"{what} of {name!r} have shapes {', '.join(map(str, shapes))}",
            expected=f"{len(parts)} of one shape",
        )
    return concatenate(name, parts)


def _zeros(like: WeightTensor) -> WeightTensor:
    """A bias that is not there: adding zeros changes nothing."""

    def read() -> torch.Tensor:
        import torch

        return torch.zeros(like.shape)

    return WeightTensor(like.name, like.shape, "float32", read)


def as_sequence(name: str, tensor: WeightTensor) -> list[WeightTensor]:
    """A token ``(d)`` as ``(1, 1, d)``, or a table of tokens ``(n, d)`` as ``(1, n, d)``."""
    if not 1 <= len(tensor.shape) <= 2:
        return [tensor.renamed(name)]
    shape = (1,) * (3 - len(tensor.shape)) + tensor.shape
    return [WeightTensor(name, shape, tensor.dtype, lambda: tensor.read().reshape(shape))]


def query_and_rest(name: str, tensor: WeightTensor) -> list[WeightTensor]:
    """torch's ``in_proj`` of ``(3d, …)`` as that of the query, and that of key and value.

    ``name`` is that of the query's; the other is called ``kv`` in its place.
    """
    width = tensor.shape[0] // 3 if tensor.shape else 0
    other = re.sub(r"\.q\.", ".kv.", name)
    return [rows(name, tensor, 0, width), rows(other, tensor, width, 3 * width)]


def first_and_rest(name: str, tensor: WeightTensor) -> list[WeightTensor]:
    """Several class tokens ``(1, n, d)`` as one and registers, which are the same thing with a position."""
    if len(tensor.shape) != 3 or tensor.shape[1] < 2:
        return [tensor.renamed(name)]
    _, count, width = tensor.shape

    def read() -> torch.Tensor:
        return tensor.read()[:, 1:].contiguous()

    first = WeightTensor(name, (1, 1, width), tensor.dtype, lambda: tensor.read()[:, :1].contiguous())
    return [first, WeightTensor("reg_token", (1, count - 1, width), tensor.dtype, read)]


def rows(name: str, tensor: WeightTensor, start: int, stop: int) -> WeightTensor:
    """Some rows of a tensor, read when asked."""
    shape = (min(stop, math.prod(tensor.shape[:1])) - start, *tensor.shape[1:])
    return WeightTensor(name, shape, tensor.dtype, lambda: tensor.read()[start:stop].contiguous())
