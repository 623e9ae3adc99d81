"""What a checkpoint is once imported: a :class:`Model`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import HostileInput, ImportFailed, UsageFailed, nearest
from vit_deploy.weights.tensors import WeightTensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import nn

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.kinds import Architecture
    from vit_deploy.model.layout import Layout
    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.spec import IOSpec
    from vit_deploy.weights.tensors import Weights


_READERS = 2
"""Threads that look at weights; each has one in hand, or a window of it."""


class _Later:
    """A text, or what gives it: then it is asked for once, when it is first looked at.

    A descriptor as the default of a dataclass's field
    (https://docs.python.org/3/library/dataclasses.html#descriptor-typed-fields).
    """

    def __get__(self, instance: Source | None, owner: type) -> str:
        if instance is None:
            raise AttributeError("the field has no default")
        value: str | Callable[[], str] = instance.__dict__["_sha256"]
        if not isinstance(value, str):
            value = instance.__dict__["_sha256"] = value()
        return value

    def __set__(self, instance: Source, value: str | Callable[[], str]) -> None:
        instance.__dict__["_sha256"] = value


@dataclass(frozen=True)
class Source:
    """Where a model came from.

    Attributes:
        kind: ``native``, ``timm``, ``transformers`` or ``random``.
        name: what its owner calls it: an architecture or a hub name, never a path.
        sha256: hash of the checkpoint file, or what computes it when it is first asked for (hashing
            takes longer than all else of an import); of the seed's name for random weights.
    """

    kind: str
    name: str
    sha256: _Later = _Later()


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
        self, spec: IOSpec, *, layout: Layout | None = None, dtype: torch.dtype | None = None
    ) -> nn.Module:
        """:meth:`module` with its weights, on the CPU, frozen and in evaluation mode.

        Args:
            spec: inputs and outputs.
            layout: the export layout unless another is given.
            dtype: dtype of the parameters, float32 unless given.
        """
        import torch

        with torch.device("meta"):
            module = self.module(spec, layout=layout)
        state = {
            name: tensor.read().to(dtype=dtype or torch.float32)
            for name, tensor in self.weights_for(spec).items()
        }
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
        import torch

        from vit_deploy.model.vit import ViT

        with torch.device("meta"):
            names: Any = outputs
            model = ViT(self.vit_config, outputs=names)
        state = {
            name: tensor.read().to(device=device, dtype=dtype or torch.float32)
            for name, tensor in self.weights.items()
        }
        model.load_state_dict(state, assign=True)
        model.requires_grad_(requires_grad=False)
        return model.eval()

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


def expected_shapes(config: ViTConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the state dict that a config asks for, in the model's order."""
    import torch

    from vit_deploy.model.vit import ViT

    # All blocks are alike, and making forty of them takes longer than reading small weights. What is
    # outside the blocks and grows with their number (learned rotary frequencies) needs them all.
    grows = config.rotary is not None and config.rotary.learned
    with torch.device("meta"):
        made = ViT(config if grows else replace(config, depth=1)).state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, value in made.items():
        if grows or not name.startswith("blocks.0."):
            shapes[name] = tuple(value.shape)
        elif name not in shapes:
            block = {inner: tuple(made[inner].shape) for inner in made if inner.startswith("blocks.0.")}
            shapes |= {
                f"blocks.{index}.{inner.removeprefix('blocks.0.')}": shape
                for index in range(config.depth)
                for inner, shape in block.items()
            }
    return shapes


def check_names(expected: dict[str, tuple[int, ...]], found: Weights) -> None:
    """Refuse missing and unexpected weights, with the nearest names.

    Raises:
        ImportFailed: naming up to five of each.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if not missing and not extra:
        return
    parts = []
    if missing:
        shown = [f"{name!r}{_nearest_hint(name, extra)}" for name in missing[:5]]
        parts.append(f"{len(missing)} missing ({', '.join(shown)}{', …' if len(missing) > 5 else ''})")
    if extra:
        shown = [f"{name!r}{_nearest_hint(name, missing)}" for name in extra[:5]]
        parts.append(f"{len(extra)} unexpected ({', '.join(shown)}{', …' if len(extra) > 5 else ''})")
    raise ImportFailed(
        f"the checkpoint's weights do not fit the architecture: {'; '.join(parts)}",
        expected=f"the {len(expected)} weights of the architecture and no others",
        next_command="vit-deploy models, and --arch with the name that fits",
    )


def _nearest_hint(name: str, candidates: list[str]) -> str:
    close = nearest(name, candidates, limit=1)
    return f", nearest: {close[0]!r}" if close else ""


def _shape_hint(name: str) -> str:
    if name == "pos_embed":
        return "choose the --arch of the checkpoint's own resolution: positions are not resampled"
    if name.startswith("head"):
        return "give --num-classes with the checkpoint's own number of classes"
    return "vit-deploy models, and --arch with the name that fits"


def check_shapes(expected: dict[str, tuple[int, ...]], found: Weights, origin: str = "the config") -> None:
    """Refuse a weight whose shape is not the expected one.

    Raises:
        ImportFailed: naming the first.
    """
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise ImportFailed(
                f"weight {name!r} has shape {found[name].shape}",
                expected=f"shape {shape}, from {origin}",
                next_command=_shape_hint(name),
            )


def check_finite(weights: Weights) -> None:
    """Refuse NaN and Inf.

    Raises:
        HostileInput: naming the first weight that holds any.
    """
    from concurrent.futures import ThreadPoolExecutor

    # Reading and summing are done outside the interpreter's lock. In threads of their own they are also
    # spared torch's, which wait for each other where they touch one new mapping.
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        counts = pool.map(WeightTensor.nonfinite, weights.values())
        for (name, tensor), bad in zip(weights.items(), counts, strict=True):
            if bad:
                pool.shutdown(cancel_futures=True)
                raise HostileInput(
                    f"weight {name!r} holds {bad} NaN or Inf of {tensor.numel} values",
                    expected="finite weights",
                    next_command="repair the checkpoint, or pass --allow-nonfinite to go on with it",
                )
