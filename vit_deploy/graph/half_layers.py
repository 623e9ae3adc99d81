"""Which layer a node of a graph belongs to, by the names of the weights around it.

Names of layers are those of `vit-deploy inspect`: what stands before the last dot of a weight's name, and
every part of that from the left. The two residual additions of a block have no weights; they are called
``blocks.3.residual`` and are a part of ``blocks.3``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.errors import RunFailed, unknown_name
from vit_deploy.graph.capture import is_unread
from vit_deploy.graph.taps import find_stream, steps_of
from vit_deploy.model.config import ViTConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx_ir as ir

    from vit_deploy.model.kinds import Architecture

RESIDUAL = "residual"
"""The last part of the name of a block's two residual additions."""

_TRANSPOSED = ".transposed"


def layer_of_weight(name: str) -> str:
    """``blocks.3.mlp.fc1`` of ``blocks.3.mlp.fc1.weight.transposed``; a weight without a layer is its own."""
    bare = name.removesuffix(_TRANSPOSED)
    return bare.rpartition(".")[0] or bare


def is_weight(value: ir.Value | None) -> bool:
    """Whether a value is a weight of the model, rather than a constant that an operator needs."""
    return value is not None and value.const_value is not None and is_unread(value.const_value)


@dataclass(frozen=True)
class Layers:
    """The layers of a graph.

    Attributes:
        names: every name that can be given, outer layers first.
        owners: the layer of each node; empty where it lies between layers that have nothing in common.
    """

    names: tuple[str, ...]
    owners: dict[ir.Node, str]

    @classmethod
    def of(cls, model: ir.Model, config: Architecture) -> Layers:
        """Find them; the graph is that of ``config``, and its nodes are in order."""
        nodes = list(model.graph)
        own = {node: layer for node in nodes if (layer := _own_layer(node))}
        own |= _residuals(model, config)
        before = _spread(nodes, own, lambda node: [v.producer() for v in node.inputs if v is not None])
        after = _spread(nodes[::-1], own, lambda node: [use.node for out in node.outputs for use in out.uses()])
        owners = {node: own.get(node) or _common((before.get(node), after.get(node))) for node in nodes}
        weights = (name for name, value in model.graph.initializers.items() if is_weight(value))
        found = {part for name in weights for part in _parts(layer_of_weight(name))}
        found |= {layer for layer in own.values() if layer.endswith(f".{RESIDUAL}")}
        return cls(tuple(sorted(found, key=_order)), owners)

    def chosen(self, text: str) -> tuple[str, ...]:
        """The names in a list with commas, each of them once.

        Raises:
            UsageFailed: for a name that no layer of the graph has.
        """
        wanted = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        for name in wanted:
            if name not in self.names:
                raise unknown_name("layer", name, self.names, "vit-deploy inspect, which lists the layers")
        return wanted

    def nodes_of(self, names: Iterable[str]) -> set[ir.Node]:
        """The nodes of those layers and of all that is in them."""
        wanted = tuple(names)
        return {
            node
            for node, owner in self.owners.items()
            if any(owner == name or owner.startswith(f"{name}.") for name in wanted)
        }


def holds(names: Iterable[str], weight: str) -> bool:
    """Whether a weight belongs to one of those layers."""
    layer = layer_of_weight(weight)
    return any(layer == name or layer.startswith(f"{name}.") for name in names)


def _own_layer(node: ir.Node) -> str:
    return next((layer_of_weight(value.name or "") for value in node.inputs if value and is_weight(value)), "")


def _residuals(model: ir.Model, config: Architecture) -> dict[ir.Node, str]:
    """The residual additions of a ViT; none where a graph's stream is not to be told."""
    if not isinstance(config, ViTConfig):
        return {}
    try:
        links = find_stream(steps_of(model), config.depth).links
    except RunFailed:
        return {}
    places = {name: index // 2 for index, name in enumerate(links)}
    return {
        node: f"blocks.{places[node.outputs[0].name or '']}.{RESIDUAL}"
        for node in model.graph
        if node.outputs[0].name in places
    }


def _spread(
    nodes: list[ir.Node], own: dict[ir.Node, str], neighbours: Callable[[ir.Node], list[ir.Node | None]]
) -> dict[ir.Node, str]:
    """What the nearest layers on one side of each node have in common; nothing of one that has none there."""
    found: dict[ir.Node, str] = {}
    for node in nodes:
        near = [own.get(other, found.get(other)) for other in neighbours(node) if other is not None]
        if any(name is not None for name in near):
            found[node] = _common(near)
    return found


def _common(names: Iterable[str | None]) -> str:
    """The parts from the left that all names share; those that are ``None`` are left out."""
    split = [name.split(".") for name in names if name is not None]
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def _parts(layer: str) -> list[str]:
    words = layer.split(".")
    return [".".join(words[:count]) for count in range(1, len(words) + 1)]


def _order(name: str) -> tuple[int, list[tuple[int, str]]]:
    """Outer layers first, and those of a kind by number."""
    words = [(int(word), "") if re.fullmatch(r"\d+", word) else (-1, word) for word in name.split(".")]
    return len(words), words
