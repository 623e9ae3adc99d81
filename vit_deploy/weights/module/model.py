"""A model whose module is the user's own: :class:`ModuleModel`."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.model.module_config import ModuleConfig
from vit_deploy.weights.checks import check_finite
from vit_deploy.weights.imported import Model
from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vit_deploy.model.layout import Layout
    from vit_deploy.spec import IOSpec
    from vit_deploy.weights.module.adapter import Adapter
    from vit_deploy.weights.module.probe import Example

_ADAPTED = "module."
"""What the adapter puts before the name of each weight."""


@dataclass(frozen=True)
class ModuleModel(Model):
    """A model whose module is the user's own, alive in this process.

    Attributes:
        live: the module, in evaluation mode, in float32 on the CPU, with ``weights`` in it.
        example: what it was run on.
    """

    live: nn.Module = field(kw_only=True, repr=False, compare=False)
    example: Example = field(kw_only=True, repr=False, compare=False)

    @property
    def is_live(self) -> bool:
        """Its weights are in memory: what captures it uses the module as it is."""
        return True

    def module(self, spec: IOSpec, *, layout: Layout | None = None) -> Adapter:  # noqa: ARG002
        """See :class:`Model`; the module itself, with its weights."""
        return self._adapted(self.live, spec)

    def _adapted(self, module: nn.Module, spec: IOSpec) -> Adapter:
        from vit_deploy.weights.module.adapter import Adapter

        if spec.contract != "pixel_values":
            raise UsageFailed(
                f"{self.source.name} takes the inputs of its own forward",
                expected="--input pixel_values",
                next_command="leave --input out, or put what it should do into the module",
            )
        return Adapter(module, self.config.output_names, spec.output_names, self.example.keywords).eval()

    def weights_for(self, spec: IOSpec) -> Weights:  # noqa: ARG002
        """See :class:`Model`."""
        return Weights(tensor.renamed(_ADAPTED + name) for name, tensor in self.weights.items())

    def loaded(
        self,
        spec: IOSpec,
        *,
        layout: Layout | None = None,  # noqa: ARG002 - it has but one
        dtype: torch.dtype | None = None,
        device: str = "cpu",
    ) -> nn.Module:
        """See :class:`Model`; a copy of the user's module.

        Raises:
            ImportFailed: when it cannot be copied.
        """
        return self._adapted(self._copy(dtype).to(device), spec)

    def _copy(self, dtype: torch.dtype | None) -> nn.Module:
        try:
            copied = copy.deepcopy(self.live)
        except Exception as error:  # whatever the user's objects raise
            raise ImportFailed(
                f"{self.source.name} cannot be copied: {type(error).__name__}: {error}",
                expected="a module that copy.deepcopy takes",
                next_command="keep locks, files and results of forward out of the module's attributes",
            ) from error
        load_into(copied, self.weights)
        return copied if dtype is None else copied.to(dtype)

    def with_checked_weights(self, *, allow_nonfinite: bool = False) -> ModuleModel:
        """See :class:`Model`; that they fit was seen when they were loaded."""
        if not allow_nonfinite:
            check_finite(self.weights)
        return replace(self)

    def require_steady(self) -> None:
        """See :class:`Model`.

        Raises:
            ImportFailed: naming the output that differs from run to run.
        """
        from vit_deploy.weights.module.probe import unsteady

        name = unsteady(self.live, self.example, self.module_config.fixed_batch or 2)
        if name:
            raise ImportFailed(
                f"{self.source.name} gives another {name!r} each time it is run on the same input",
                expected="a module that in evaluation mode draws no random numbers and keeps no state",
                next_command="F.dropout(x, training=self.training); --no-verify exports it unverified",
            )

    @property
    def module_config(self) -> ModuleConfig:
        """The config, as what it is."""
        if not isinstance(self.config, ModuleConfig):
            raise TypeError("a module's config is a ModuleConfig")
        return self.config


def weights_of(module: nn.Module) -> Weights:
    """Parameters and persistent buffers, as they are in memory."""

    def held(tensor: torch.Tensor) -> WeightTensor:
        return WeightTensor("", tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), lambda: tensor)

    # What a module adds to its state of its own making (``_extra_state``) need not be a tensor.
    found = {name: value for name, value in module.state_dict().items() if hasattr(value, "detach")}
    state = {name: value.detach().contiguous() for name, value in found.items()}
    return Weights(held(tensor).renamed(name) for name, tensor in state.items())


def load_into(module: nn.Module, weights: Weights) -> None:
    """Put weights, whose names and shapes were checked, into a module."""
    module.load_state_dict({name: tensor.stored().read() for name, tensor in weights.items()}, strict=False)
