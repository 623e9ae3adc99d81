"""Which weights of a file differ from those of the checkpoint, and how: the cheap half of an explanation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from vit_deploy.model.kinds import Architecture
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model
    from vit_deploy.weights.tensors import WeightTensor

    Array = np.ndarray[Any, Any]

Readers = Mapping[str, Callable[[], "Array"]]
"""Tensors by name, each read when it is called."""

TRANSPOSED = ".transposed"
"""What our pass puts behind the name of a weight that is stored transposed."""

_SHOWN = 4
_PLACES: tuple[tuple[str, str], ...] = (
    (r"blocks\.(\d+)\.(norm2|mlp|ls2|post_norm2)\b", "blocks.{0}.mlp"),
    (r"blocks\.(\d+)\.", "blocks.{0}.attn"),
    (r"(patch_embed|cls_token|reg_token|pos_embed|norm_pre)\b", "embed"),
    (r"(norm)\.", "tokens"),
    (r"(fc_norm|attn_pool)\b", "embedding"),
    (r"(head)\.", "logits"),
)
"""The tap behind which a weight shows, by the weight's name."""


@dataclass(frozen=True)
class Difference:
    """A tensor that is not the checkpoint's.

    Attributes:
        name: as in the model.
        how: in words.
    """

    name: str
    how: str

    def __str__(self) -> str:
        return f"{self.name} {self.how}"


def readers_of(graph: ir.Model) -> dict[str, Callable[[], Array]]:
    """The floating initializers of a graph, as float32 when read."""

    def reader(tensor: Any) -> Callable[[], Array]:
        return lambda: tensor.numpy().astype("float32", copy=False)

    return {
        name: reader(value.const_value)
        for name, value in graph.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype.is_floating_point()
    }


SLACK: Mapping[Precision, float] = {"fp16": 2.0**-11, "bf16": 2.0**-8}
"""By how much of itself a number changes where it is rounded to half precision; by nothing in others."""


def differences(file: Readers, fresh: Readers, config: Architecture, precision: Precision) -> list[Difference]:
    """The tensors of a file that differ from those that this version would write.

    Args:
        file: the file's tensors.
        fresh: what they should be, under the same names.
        config: of the model.
        precision: that the file is declared in.

    Returns:
        Nothing where the file has other names altogether, as there is nothing to compare by then.
    """
    shared = [name for name in fresh if name in file]
    if len(shared) * 2 < len(fresh):
        return []
    found = [Difference(_plain(name), "is missing") for name in fresh if name not in file]
    for name in shared:
        how = _how(name, file[name](), fresh[name](), config, SLACK.get(precision, 0.0))
        if how:
            found.append(Difference(_plain(name), how))
    return found


def listed(found: list[Difference]) -> str:
    """Differences for a person, the first few by name."""
    more = f", and {len(found) - _SHOWN} more tensors" if len(found) > _SHOWN else ""
    return "; ".join(map(str, found[:_SHOWN])) + more


def in_short(found: list[Difference]) -> str:
    """The first of some differences, for a sentence."""
    return str(found[0]) + (f", as do {len(found) - 1} more tensors" if len(found) > 1 else "")


def tap_of(name: str) -> str:
    """The tap behind which a weight first shows; empty for a name that is none of ours."""
    for pattern, tap in _PLACES:
        match = re.match(pattern, name)
        if match:
            return tap.format(match[1])
    return ""


def first_tap(config: Architecture, names: Iterable[str]) -> str:
    """The first tap, in the order of computation, behind which one of the weights shows; or nothing."""
    from vit_deploy.blame.taps import tap_names

    touched = {tap_of(name) for name in names}
    return next((tap for tap in tap_names(config) if tap in touched), "")


def weights_of(model: Model, spec: IOSpec) -> dict[str, Callable[[], Array]]:
    """The weights of a checkpoint, as float32 when read."""

    def reader(tensor: WeightTensor) -> Callable[[], Array]:
        return lambda: tensor.as_float32().read().numpy()

    return {name: reader(tensor) for name, tensor in model.weights_for(spec).items()}


def _plain(name: str) -> str:
    return name.removesuffix(TRANSPOSED)


def _how(name: str, found: Array, expected: Array, config: Architecture, slack: float) -> str:
    """How a tensor differs, in the model's own layout; nothing where it is the same but for rounding."""
    import numpy as np

    if found.shape != expected.shape:
        return f"is of shape {found.shape}, not {expected.shape}"
    tiny = 2.0**-24 if slack else 0.0  # fp16 has nothing between 0 and this
    apart = ~(np.abs(found - expected) <= slack * np.abs(expected) + tiny)
    if not apart.any():
        return ""
    size = float(np.linalg.norm(found - expected) / (np.linalg.norm(expected) or 1.0))
    share = f" (by {size:.2g} of its length)" if np.isfinite(size) else " (it is not finite)"
    if name.endswith(TRANSPOSED) and apart.ndim == 2:
        apart = apart.T
    return f"differs in {_extent(_plain(name), apart, config)}{share}"


def _extent(name: str, apart: Array, config: Architecture) -> str:
    """Where in a tensor it differs: a range of columns, of rows, or everywhere."""
    import numpy as np

    if apart.ndim >= 2:
        flat = apart.reshape(apart.shape[0], -1)
        rows, columns = flat.any(axis=1), flat.any(axis=0)
        if apart.ndim == 2 and not columns.all():
            return _range("column", np.flatnonzero(columns)) + _head(name, np.flatnonzero(columns), config)
        if not rows.all():
            return _range("row" if apart.ndim == 2 else "channel", np.flatnonzero(rows))
        return "every row"
    return "every entry" if apart.all() else _range("entry", np.flatnonzero(apart))


def _range(word: str, places: Array) -> str:
    first, last = int(places[0]), int(places[-1])
    plural = {"entry": "entries"}.get(word, f"{word}s")
    if last - first + 1 == len(places):
        return f"{word} {first}" if first == last else f"{plural} {first}–{last}"
    return f"{len(places)} {plural} from {first} to {last}"


def _head(name: str, columns: Array, config: Architecture) -> str:
    """Which heads the columns of an attention's output projection are, where they are whole heads."""
    from vit_deploy.model.config import ViTConfig

    if not name.endswith("attn.proj.weight") or not isinstance(config, ViTConfig):
        return ""
    width = config.embed_dim // config.num_heads
    first, last = int(columns[0]), int(columns[-1])
    if len(columns) != width or first % width or last - first + 1 != width:
        return ""
    return f" (head {first // width})"


def rounded_to(file: Readers, weights: Readers) -> str:
    """``bf16`` or ``fp16`` where a file's matrices hold only such numbers and the checkpoint's do not.

    Args:
        file: the file's tensors, under whatever names.
        weights: the checkpoint's.
    """
    for word, fits in (("bf16", _fits_bf16), ("fp16", _fits_fp16)):
        if _all(file, fits) and not _all(weights, fits):
            return word
    return ""


def _all(tensors: Readers, fits: Callable[[Array], bool]) -> bool:
    matrices = 0
    for read in tensors.values():
        values = read()
        if values.ndim < 2 or values.size < 64:
            continue
        matrices += 1
        if not fits(values):
            return False
    return matrices > 0


def _fits_bf16(values: Array) -> bool:
    import numpy as np

    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return not (bits & 0xFFFF).any()


def _fits_fp16(values: Array) -> bool:
    import numpy as np

    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float16).astype(np.float32), values))
