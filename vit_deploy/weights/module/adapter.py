"""Makes of any module one with positional inputs and a tuple of named outputs.

What a module returns may be a tensor, a tuple, a dict, a dataclass, a NamedTuple, or these in each
other. Each tensor gets a name by where it stands; ``None`` is passed over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vit_deploy.errors import ImportFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOLE_OUTPUT = "output"
"""The name of a tensor that is returned by itself."""


def named_outputs(returned: Any) -> dict[str, Tensor]:
    """The tensors that a module returned, by name: ``output``, ``output_0`` and so on, or their keys.

    Raises:
        ImportFailed: for anything that is neither a tensor nor ``None``, and for names that collide.
    """
    found: dict[str, Tensor] = {}
    for path, value in _leaves(returned, ()):
        name = "_".join(path) if path and not path[0].isdigit() else "_".join((SOLE_OUTPUT, *path))
        if not isinstance(value, Tensor):
            raise ImportFailed(
                f"the module returns a {type(value).__name__} as {name!r}",
                expected="tensors, and tuples, dicts and dataclasses of tensors",
                next_command="export a small module around it that returns its tensors alone",
            )
        if name in found:
            raise ImportFailed(f"the module returns two tensors named {name!r}", expected="names that differ")
        found[name] = value
    return found


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    inside = _children(value)
    if value is None:
        return
    if inside is None:
        yield path, value
        return
    for key, child in inside:
        yield from _leaves(child, (*path, key))


def _children(value: Any) -> list[tuple[str, Any]] | None:
    if isinstance(value, Mapping):
        return [(str(key), child) for key, child in value.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(entry.name, getattr(value, entry.name)) for entry in dataclasses.fields(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, (list, tuple)):
        return [(str(index), child) for index, child in enumerate(value)]
    return None


class Adapter(nn.Module):
    """A module whose outputs are a tensor, or a tuple of tensors in a chosen order.

    Args:
        module: the user's own.
        known: the name of each tensor that it returns, in its own order.
        outputs: those to be returned, in order.
        keywords: the names by which ``forward`` takes its inputs; they go by position where empty.
    """

    def __init__(
        self, module: nn.Module, known: Sequence[str], outputs: Sequence[str], keywords: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.module = module
        self.keywords = tuple(keywords)
        self.places = tuple(list(known).index(name) for name in outputs)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The inputs in the order that they were described in."""
        given = dict(zip(self.keywords, inputs, strict=True)) if self.keywords else {}
        returned = self.module(**given) if given else self.module(*inputs)
        tensors = [value for _, value in _leaves(returned, ())]
        chosen = tuple(tensors[place] for place in self.places)
        return chosen[0] if len(chosen) == 1 else chosen
