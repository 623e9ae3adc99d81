"""The models that faults are injected into: one small ViT for each set of parts that a family has.

Weights are seeded and stand away from their initial values. The first has the twelve blocks of a ViT-S, at
half its width and at 96 pixels; the others four blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vit_deploy.model.config import ViTConfig
from vit_deploy.model.rotary_config import RotaryConfig
from vit_deploy.parity import ParityCheck
from vit_deploy.weights import load_model
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vit_deploy.weights.imported import Model

_SMALL: dict[str, Any] = {
    "image_size": (64, 64),
    "patch_size": 16,
    "embed_dim": 128,
    "depth": 4,
    "num_heads": 4,
    "mlp_dim": 320,
    "num_classes": 50,
}

CONFIGS: dict[str, ViTConfig] = {
    "vit": ViTConfig(
        image_size=(96, 96),
        patch_size=16,
        embed_dim=192,
        depth=12,
        num_heads=3,
        mlp_dim=768,
        num_classes=100,
    ),
    "dinov2": ViTConfig(
        **{**_SMALL, "num_classes": 0},
        num_registers=4,
        layer_scale=True,
        gated_mlp=True,
        activation="silu",
        position_scope="class",
        position_resampling="bicubic",
    ),
    "clip": ViTConfig(
        **{**_SMALL, "num_classes": 0},
        pre_norm=True,
        patch_bias=False,
        activation="quick_gelu",
        norm_eps=1e-5,
        projection_dim=128,
    ),
    "siglip": ViTConfig(
        **{**_SMALL, "num_classes": 0},
        class_token=False,
        activation="gelu_tanh",
        pool="map",
        pool_activation="gelu_tanh",
    ),
    "beit": ViTConfig(
        **_SMALL,
        positions="none",
        relative_positions="block",
        layer_scale=True,
        pool="avg",
        final_norm=False,
        fc_norm=True,
    ),
    "eva02": ViTConfig(
        **_SMALL,
        rotary=RotaryConfig(),
        gated_mlp=True,
        activation="silu",
        mlp_norm=True,
        pool="avg",
        final_norm=False,
        fc_norm=True,
    ),
    "dinov3": ViTConfig(
        **{**_SMALL, "num_classes": 0},
        positions="none",
        rotary=RotaryConfig(coordinates="centred", theta=100.0, pairing="halves"),
        num_registers=4,
        layer_scale=True,
        norm_eps=1e-5,
    ),
    "gap": ViTConfig(**_SMALL, pool="avg", final_norm=False, fc_norm=True),
    "distilled": ViTConfig(**_SMALL, distillation_token=True, distillation_head=True),
    "qk-norm": ViTConfig(**_SMALL, qk_norm=True, layer_scale=True),
}
"""Every subject with random weights, by name."""

SEED = 11
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Unequal for each channel, so that a wrong order of them shows in the normalisation, too."""


@dataclass(frozen=True)
class Subject:
    """A model, and the check that judges artefacts of it.

    Attributes:
        name: of the family.
        model: the truth.
        images: pictures to be judged on beside the generated ones.
        threads: CPU threads of eager and of backends.
    """

    name: str
    model: Model
    images: Sequence[Path] = ()
    threads: int = 1

    @cached_property
    def check(self) -> ParityCheck:
        """Made once: what eager gives is shared by all artefacts of the model."""
        return ParityCheck(self.model, images=self.images, threads=self.threads)


def make_subject(name: str, folder: Path, threads: int) -> Subject:
    """The subject of a name: one of :data:`CONFIGS`, or one of :data:`_OTHERS`.

    Args:
        name: of the subject.
        folder: an empty folder for what it has to write.
        threads: CPU threads of eager and of backends.
    """
    if name in CONFIGS:
        return Subject(name, _random(CONFIGS[name], name), threads=threads)
    return _OTHERS[name](folder, threads)


def _random(config: ViTConfig, name: str) -> Model:
    model = random_model(config, name, seed=SEED)
    spare = int(config.image_size[0] / 0.9)
    preprocessing = replace(
        model.known_preprocessing,
        **IMAGENET,
        resize="shortest_edge",
        resize_size=(spare, spare),
        interpolation="bicubic",
    )
    return replace(model, preprocessing=preprocessing)


def _massive(_: Path, threads: int) -> Subject:
    """Activations of some hundreds in one channel, as trained ViTs have them.

    Sun et al. 2024, Massive Activations in Large Language Models (https://arxiv.org/abs/2402.17762), which
    finds them in ViTs too. Their squares overflow in float16.
    """
    from benchmarks.parity.mutations import with_weights

    def outlier(weights: dict[str, Any]) -> None:
        weights["blocks.1.mlp.fc2.bias"][7] = 400.0

    return Subject("massive", with_weights(_random(ViTConfig(**_SMALL), "massive"), outlier), threads=threads)


def _resampled(_: Path, threads: int) -> Subject:
    """A DINOv2 whose positions were resampled from a smaller grid, once, before export."""
    from vit_deploy.weights.resize import resized

    return Subject("resampled", resized(_random(CONFIGS["dinov2"], "dinov2"), (96, 96)), threads=threads)


def _digits(folder: Path, threads: int) -> Subject:
    """The trained model that travels with the package, on the digits that it was not trained on."""
    from benchmarks.parity.digits import held_out_pictures
    from vit_deploy.assets import digits_directory

    return Subject(
        "digits", load_model(str(digits_directory())), held_out_pictures(folder / "digits"), threads=threads
    )


_OTHERS: dict[str, Callable[[Path, int], Subject]] = {
    "massive": _massive,
    "resampled": _resampled,
    "digits": _digits,
}
