"""Models that differ from the truth: in their definition, in their weights, in their preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.weights.imported import Model
from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from vit_deploy.model.layout import Layout
    from vit_deploy.spec import IOSpec

    Weightings = Callable[[dict[str, Tensor]], None]


@dataclass(frozen=True)
class DefinedOtherwise(Model):
    """A model whose module was changed after it was built; it has the same parameters.

    Attributes:
        change: changes the module, in place.
    """

    change: Callable[[Any], None] = lambda _: None

    def module(self, spec: IOSpec, *, layout: Layout | None = None) -> nn.Module:
        """See :meth:`vit_deploy.weights.imported.Model.module`."""
        module = super().module(spec, layout=layout)
        self.change(module)
        return module


def defined_otherwise(model: Model, change: Callable[[Any], None]) -> DefinedOtherwise:
    """``model`` with a module that ``change`` has worked on."""
    given = {entry.name: getattr(model, entry.name) for entry in fields(Model)}
    return DefinedOtherwise(**given, change=change)


def with_weights(model: Model, change: Weightings) -> Model:
    """``model`` with other weights of the same names and shapes.

    Args:
        model: is left as it is.
        change: is given copies of all weights by name, and changes or replaces them.
    """
    tensors = {name: tensor.read().clone() for name, tensor in model.weights.items()}
    change(tensors)
    kept = (
        WeightTensor(name, tuple(tensor.shape), "float32", lambda tensor=tensor: tensor)
        for name, tensor in tensors.items()
    )
    return replace(model, weights=Weights(kept))
