"""What a checkpoint is once imported: a :class:`Model`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.weights.checks import check_finite, check_names, check_shapes, expected_shapes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.kinds import Architecture
    from vit_deploy.model.layout import Layout
    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.spec import IOSpec
    from vit_deploy.weights.source import Source
    from vit_deploy.weights.tensors import Weights


@dataclass(frozen=True)
class Model:
    """Config, weights (lazy, under our names), preprocessing and labels.

    Attributes:
        config: a :class:`~vit_deploy.model.config.ViTConfig`; another module's is a
            :class:`~vit_deploy.model.module_config.ModuleConfig`.
        preprocessing: from a picture to the input; ``None`` where the input is no picture.
        labels: one per class, or empty where the checkpoint names none.
        notes: what a person should know of the import: what was left out, or taken for granted.
    """

    config: Architecture
    weights: Weights
    preprocessing: Preprocessing | None
    labels: tuple[str, ...]
    source: Source
    notes: tuple[str, ...] = ()

    @property
    def vit_config(self) -> ViTConfig:
        """The config, for what looks inside a ViT.

        Raises:
            UsageFailed: when the model is none of ours.
        """
        from vit_deploy.model.config import ViTConfig

        if not isinstance(self.config, ViTConfig):
            raise UsageFailed(
                f"{self.source.name} is a module of its own, and nothing is known of its inside",
                expected="a Vision Transformer from a checkpoint, or a named architecture",
                next_command="vit-deploy models",
            )
        return self.config

    @property
    def known_preprocessing(self) -> Preprocessing:
        """The preprocessing, for what cannot do without.

        Raises:
            UsageFailed: when the model has none.
        """
        if self.preprocessing is None:
            raise UsageFailed(
                f"nothing is known of how {self.source.name} wants its pictures",
                expected="a model with a preprocessing",
            )
        return self.preprocessing

    def module(self, spec: IOSpec, *, layout: Layout | None = None) -> nn.Module:
        """The module that takes and gives what ``spec`` says, without the model's weights.

        Its parameters have the names of :meth:`weights_for`; they are made on whatever device, or
        under whatever fake mode, the caller has set.

        Args:
            spec: inputs and outputs.
            layout: the export layout unless another is given.
        """
        from vit_deploy.model.contract import network_is_dynamic
        from vit_deploy.model.input_stage import input_stage
        from vit_deploy.model.layout import RESHAPE
        from vit_deploy.model.vit import ViT

        names: Any = spec.output_names
        config, stage = self.vit_config, None
        if spec.contract != "pixel_values":
            # The normalisation is folded into the patch embedding, which needs a bias then.
            config = replace(config, patch_bias=True)
            stage = input_stage(spec.contract, self.known_preprocessing)
        return ViT(
            config,
            layout=layout or RESHAPE,
            outputs=names,
            dynamic_size=network_is_dynamic(spec),
            input_stage=stage,
        ).eval()

    def weights_for(self, spec: IOSpec) -> Weights:
        """The weights of :meth:`module`, unread."""
        from vit_deploy.weights.fold_input import fold_input

        plain = spec.contract == "pixel_values"
        return self.weights if plain else fold_input(self.weights, self.known_preprocessing)

    def loaded(
        self,
        spec: IOSpec,
        *,
        layout: Layout | None = None,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
    ) -> nn.Module:
        """:meth:`module` with its weights, frozen and in evaluation mode.

        Args:
            spec: inputs and outputs.
            layout: the export layout unless another is given.
            dtype: dtype of the parameters, float32 unless given.
            device: where the parameters are put.
        """
        import torch

        with torch.device("meta"):
            module = self.module(spec, layout=layout)
        state = _placed(self.weights_for(spec), dtype or torch.float32, device)
        module.load_state_dict(state, assign=True)
        module.requires_grad_(requires_grad=False)
        return module.eval()

    def eager(
        self, *, dtype: torch.dtype | None = None, outputs: Sequence[str] = (), device: str = "cpu"
    ) -> nn.Module:
        """The model as a PyTorch module with its weights, in evaluation mode.

        Args:
            dtype: dtype of the parameters, float32 unless given.
            outputs: what ``forward`` returns; the config's default when empty.
            device: where the parameters are put.
        """
        from vit_deploy.model.layout import EINOPS

        names: Any = tuple(outputs)
        return self.loaded(self.config.io_spec(names), layout=EINOPS, dtype=dtype, device=device)

    @property
    def is_live(self) -> bool:
        """Whether :meth:`module` comes with its weights in memory, and is captured as it is."""
        return False

    def require_steady(self) -> None:
        """Refuse to be compared with anything where two runs on one input differ; a ViT's never do.

        Raises:
            ImportFailed: where they do.
        """

    def with_checked_weights(self, *, allow_nonfinite: bool = False) -> Model:
        """The same model, once its weights are known to fit its config and to be finite.

        Raises:
            ImportFailed: for missing or unexpected keys, or shapes that do not fit.
            HostileInput: for NaN or Inf, unless ``allow_nonfinite``.
        """
        expected = expected_shapes(self.vit_config)
        check_names(expected, self.weights)
        check_shapes(expected, self.weights)
        if not allow_nonfinite:
            check_finite(self.weights)
        if self.labels and self.config.num_classes and len(self.labels) != self.config.num_classes:
            raise ImportFailed(
                f"the checkpoint names {len(self.labels)} labels for {self.config.num_classes} classes",
                expected="one label per class, or none",
            )
        return replace(self)


def _placed(weights: Weights, dtype: torch.dtype, device: str) -> dict[str, torch.Tensor]:
    """Every weight, read, in a dtype on a device.

    What has to be converted gets its place before anything is read: places that are taken in between
    leave the memory of what was read in pieces, which stay resident (0.4 times the weights for ViT-B).
    """
    import torch

    kept = str(dtype).removeprefix("torch.")
    places = {
        name: torch.empty(tensor.shape, dtype=dtype, device=device)
        for name, tensor in weights.items()
        if tensor.dtype != kept or device != "cpu"
    }
    return {
        name: places[name].copy_(tensor.read()) if name in places else tensor.read()
        for name, tensor in weights.items()
    }
