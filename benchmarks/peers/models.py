"""The models that are compared: timm's architectures, with seeded weights that every tool is given.

Nothing heavy is imported here: the workers of every environment read this table.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.model.config import OutputName

IMAGE_SIZE = 224
SEED = 0
LARGEST_BATCH = 8
"""What everything is prepared for, so that measuring one batch size makes nothing anew."""


@dataclass(frozen=True)
class PeerModel:
    """One model of the comparison.

    Attributes:
        name: as the command line takes it.
        title: as the table shows it.
        timm: timm's name of the architecture.
        arguments: what timm's constructor is told beside the name.
        transformers: the ``model_type`` that it has in transformers.
        output: the output that is compared, in our names.
        note: what the table has to say of it.
        slow_from: the batch size from which an inference takes a second or more on few cores.
    """

    name: str
    title: str
    timm: str
    transformers: str = "vit"
    arguments: dict[str, Any] = field(default_factory=dict)
    output: OutputName = "logits"
    note: str = ""
    slow_from: int = 8

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as a job file holds it."""
        return asdict(self)


_AT_224 = "at 224 × 224, not the 518 × 518 it was trained at"
_TOWER = "vision tower up to its pooled output, before CLIP's projection"
_DINOV2: dict[str, Any] = {
    "transformers": "dinov2",
    "arguments": {"img_size": IMAGE_SIZE},
    "output": "embedding",
    "note": _AT_224,
}
_CLIP: dict[str, Any] = {
    "transformers": "clip_vision_model",
    "arguments": {"num_classes": 0},
    "output": "embedding",
    "note": _TOWER,
}

MODELS = {
    entry.name: entry
    for entry in (
        PeerModel("vit-ti", "ViT-Ti/16", "vit_tiny_patch16_224", slow_from=64),
        PeerModel("vit-s", "ViT-S/16", "vit_small_patch16_224", slow_from=16),
        PeerModel("vit-b", "ViT-B/16", "vit_base_patch16_224"),
        PeerModel("vit-l", "ViT-L/16", "vit_large_patch16_224", slow_from=2),
        PeerModel("dinov2-s", "DINOv2-S/14", "vit_small_patch14_dinov2", slow_from=16, **_DINOV2),
        PeerModel("dinov2-b", "DINOv2-B/14", "vit_base_patch14_dinov2", **_DINOV2),
        PeerModel("clip-b", "CLIP-B/16", "vit_base_patch16_clip_224", **_CLIP),
    )
}


def largest_batch(batch_sizes: Sequence[int]) -> int:
    """The batch size that artefacts are made for."""
    return max(LARGEST_BATCH, *batch_sizes)
