"""How large a model's numbers grow, block by block, on natural inputs: would they fit into fp16?

fp16 ends at 65,504, and what lies beyond is Inf. The maxima here are those of an eager run in float64 or
float32, where nothing overflows, on inputs with the statistics of photographs (pink noise) and on the
user's own pictures; other inputs may reach further, so a warning comes :data:`SAFETY` times earlier.

What is watched is what a graph in fp16 holds in fp16. A LayerNorm is computed in fp32 wherever it is one
operation; where it is decomposed its squares overflow first (ViT-B's ImageNet accuracy then falls to 19 %), so
they are shown, and never warned of.
"""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from vit_deploy.model.vit import ViT
    from vit_deploy.parity.inputs import Sample

FP16_MAX = 65504.0
"""The largest finite number of IEEE 754's binary16."""

SAFETY = 4.0
"""How much larger than seen a number may be on inputs that were not watched.

The inputs are a sample and not the maximum. In the trained digits model in ``assets``, scikit-learn's 1,797
digits reach up to 3.2 times as far as the generated inputs do in attention scores, and 1.9 times elsewhere in
fp16; four is two steps of the exponent."""

NATURAL = frozenset({"pink", "image"})
"""The families of inputs that are watched: corners such as a checkerboard say nothing of everyday use."""

_PIECE = 1 << 22
"""Attention scores that are held at a time: 16 MB in float32."""


@dataclass(frozen=True)
class Place:
    """A kind of number inside a block.

    Attributes:
        title: for people, after "in block 7 ".
        in_fp16: whether a graph in fp16 holds it in fp16.
    """

    title: str
    in_fp16: bool = True


PLACES: Mapping[str, Place] = MappingProxyType(
    {
        "residual": Place("the residual stream"),
        "qkv": Place("queries, keys and values"),
        # A fused kernel accumulates scores in fp32, but whether attention is fused is the backend's choice.
        "scores": Place("attention scores (q·k·scale, before softmax; fused attention keeps them in fp32)"),
        "mlp_hidden": Place("the MLP before its activation"),
        "mlp_activated": Place("the MLP after its activation"),
        # With LayerScale the sum may fit where its operand does not.
        "branch": Place("what attention and MLP give, before LayerScale"),
        "norm_square": Place("the squares inside LayerNorm", in_fp16=False),
    }
)
"""What is watched, in the order of tables."""


@dataclass(frozen=True)
class RangeWatch:
    """The largest magnitude of each kind in each block.

    Attributes:
        maxima: by name of :data:`PLACES`, one number for each block; infinite where one was not finite.
        samples: how many inputs were watched.
    """

    maxima: Mapping[str, tuple[float, ...]]
    samples: int

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return len(self.maxima["residual"])

    def warnings(self) -> list[str]:
        """What would overflow in fp16, or may on other inputs, and what to do; nothing where all is well."""
        told = []
        for name, place in PLACES.items():
            if not place.in_fp16:
                continue
            over = [block for block, value in enumerate(self.maxima[name]) if value > FP16_MAX]
            near = [
                block for block, value in enumerate(self.maxima[name]) if FP16_MAX >= value > FP16_MAX / SAFETY
            ]
            if over:
                told.append(self._tell(name, over, "overflows fp16"))
            if near:
                told.append(self._tell(name, near, f"is within {SAFETY:g} times of fp16's end"))
        return told

    def notes(self) -> list[str]:
        """What is no danger to a graph of ours, and would be to one that computes it in fp16."""
        told = []
        for name, place in PLACES.items():
            over = [block for block, value in enumerate(self.maxima[name]) if value > FP16_MAX]
            if over and not place.in_fp16:
                worst = max(over, key=lambda block: self.maxima[name][block])
                told.append(
                    f"{_blocks(over)}: {place.title} reach {self.maxima[name][worst]:,.0f} in block {worst}: "
                    "no danger where LayerNorm is one operation, computed in fp32; overflow in fp16"
                )
        return told

    def _tell(self, name: str, blocks: Sequence[int], what: str) -> str:
        worst = max(blocks, key=lambda block: self.maxima[name][block])
        named = _blocks(blocks)
        return (
            f"{named}: {PLACES[name].title}: {what}: up to {self.maxima[name][worst]:,.0f} in block {worst}, "
            f"and fp16 ends at {FP16_MAX:,.0f}; --dtype bf16, or keep {named} in fp32"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data; numbers to four digits, ``None`` where one was not finite."""
        return {
            "samples": self.samples,
            "limit": FP16_MAX,
            "safety": SAFETY,
            "maxima": {name: [_short(value) for value in values] for name, values in self.maxima.items()},
            "warnings": self.warnings(),
            "notes": self.notes(),
        }

    def to_array(self) -> NDArray[np.float64]:
        """``(kinds, blocks)``, the inverse of :meth:`from_array`."""
        import numpy as np

        return np.array([self.maxima[name] for name in PLACES], dtype=np.float64)

    @classmethod
    def from_array(cls, array: NDArray[np.float64], samples: int) -> RangeWatch:
        """From ``(kinds, blocks)``."""
        rows = (tuple(map(float, row)) for row in array)
        return cls(dict(zip(PLACES, rows, strict=True)), samples)


def natural(samples: Sequence[Sample]) -> list[int]:
    """The places of the samples that are watched."""
    return [index for index, sample in enumerate(samples) if sample.family in NATURAL]


class RangeWatcher:
    """Watches a ViT while it runs; a context manager that leaves the module as it was.

    Args:
        module: a ViT in eager PyTorch, in float32 or float64.
    """

    def __init__(self, module: ViT) -> None:
        self._module = module
        self._maxima = {name: [0.0] * len(module.blocks) for name in PLACES}
        self._rows: Sequence[slice] = ()
        self._handles: list[Any] = []
        self._attending: int | None = None
        self._seen = 0

    def result(self) -> RangeWatch:
        """What was seen until now."""
        return RangeWatch({name: tuple(values) for name, values in self._maxima.items()}, self._seen)

    @contextlib.contextmanager
    def rows(self, rows: Sequence[int]) -> Iterator[None]:
        """Watch the next run of the module, those rows of the batch alone."""
        if not rows:
            yield
            return
        self._rows = [slice(run[0], run[-1] + 1) for run in _runs(rows)]
        try:
            with _attention_mode()(self):
                yield
            self._seen += len(rows)
        finally:
            self._rows = ()

    def __enter__(self) -> RangeWatcher:
        for index, block in enumerate(self._module.blocks):
            self._hook(index, block)
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, index: int, block: nn.Module) -> None:
        from torch.nn import LayerNorm

        parts: Any = block

        def sees(name: str) -> Any:
            return lambda _, __, output: self._see(name, index, output)

        def sees_input(name: str) -> Any:
            return lambda _, inputs: self._see(name, index, inputs[0])

        def squares(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            self._see("norm_square", index, inputs[0], centred_square)

        self._handles += [
            *([parts.norm1.register_forward_pre_hook(sees_input("residual"))] if index == 0 else []),
            parts.norm2.register_forward_pre_hook(sees_input("residual")),
            block.register_forward_hook(sees("residual")),
            parts.attn.qkv.register_forward_hook(sees("qkv")),
            parts.attn.proj.register_forward_hook(sees("branch")),
            parts.mlp.fc1.register_forward_hook(sees("mlp_hidden")),
            parts.mlp.norm.register_forward_pre_hook(sees_input("mlp_activated")),
            parts.mlp.fc2.register_forward_hook(sees("branch")),
            parts.attn.register_forward_pre_hook(lambda *_: self._attend(index)),
            parts.attn.register_forward_hook(lambda *_: self._attend(None)),
            *(
                part.register_forward_pre_hook(squares)
                for part in block.modules()
                if isinstance(part, LayerNorm)
            ),
        ]

    def _attend(self, index: int | None) -> None:
        self._attending = index

    def _see(self, name: str, block: int, tensor: torch.Tensor, magnitude: Any = None) -> None:
        """Note the largest magnitude in the watched rows, uncopied."""
        values = self._maxima[name]
        for row in self._rows:
            values[block] = max(values[block], (magnitude or largest_magnitude)(tensor[row]))

    def see_attention(self, query: torch.Tensor, key: torch.Tensor, scale: float | None) -> None:
        """Note the largest score ``|q·k·scale|`` of ``(b, k, n, d)``, a few rows of scores at a time."""
        import torch

        if self._attending is None:
            return
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else abs(scale)
        values = self._maxima["scores"]
        for row in self._rows:
            # A maximum needs no float64, in which the product takes twice as long.
            queries, keys = query[row].float(), key[row].float().transpose(-2, -1)
            step = max(1, _PIECE // (math.prod(queries.shape[:-2]) * keys.shape[-1]))
            for part in torch.split(queries, step, dim=-2):
                found = factor * largest_magnitude(part @ keys)
                values[self._attending] = max(values[self._attending], found)


def largest_magnitude(tensor: torch.Tensor) -> float:
    """The largest absolute value, infinite where one is NaN."""
    low, high = tensor.aminmax()
    value = max(-float(low), float(high))
    return math.inf if math.isnan(value) else value


def centred_square(tensor: torch.Tensor) -> float:
    """The largest ``(x - mean)²`` over the last axis: what a decomposed LayerNorm holds."""
    return largest_magnitude(tensor - tensor.mean(dim=-1, keepdim=True)) ** 2


@functools.cache
def _attention_mode() -> Any:
    """A mode that shows a watcher what attention is given; scores are no tensor of the model's own.

    The class is made once: one for each watcher would keep its module alive until garbage is collected.
    """
    from torch.nn.functional import scaled_dot_product_attention
    from torch.overrides import TorchFunctionMode

    class AttentionSeen(TorchFunctionMode):
        def __init__(self, watcher: RangeWatcher) -> None:
            super().__init__()
            self.watcher = watcher

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            given = kwargs or {}
            if func is scaled_dot_product_attention:
                named = {**dict(zip(("query", "key"), args, strict=False)), **given}
                self.watcher.see_attention(named["query"], named["key"], given.get("scale"))
            return func(*args, **given)

    return AttentionSeen


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """Ascending numbers, cut where one is left out."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _blocks(blocks: Sequence[int]) -> str:
    """``block 3``, or ``blocks 1-4, 7``."""
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in _runs(blocks))
    return f"block{'s' if len(blocks) > 1 else ''} {text}"


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
