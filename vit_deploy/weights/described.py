"""Each source of checkpoints in words: how it is named on the command line, and what it maps to."""

from __future__ import annotations

from dataclasses import dataclass

from vit_deploy.model.architectures import NAMED_CONFIGS, source_of
from vit_deploy.weights.transformers import FAMILIES


@dataclass(frozen=True)
class SourceDescription:
    """A source, for people.

    Attributes:
        name: what it is called.
        given_as: what to put after ``-m``.
        maps_to: the architectures, model types or layouts that it reads.
    """

    name: str
    given_as: str
    maps_to: tuple[str, ...]


def described_sources() -> tuple[SourceDescription, ...]:
    """Every source, in the order in which a reference is tried."""
    named = {
        source: tuple(name for name in NAMED_CONFIGS if source_of(name) == source)
        for source in ("timm", "torchvision", "open_clip")
    }
    model_types = tuple(sorted({kind for family in FAMILIES for kind in family.model_types}))
    return (
        SourceDescription("native", "a bundle that vit-deploy wrote", ("any architecture",)),
        SourceDescription("timm", "a directory or hf-hub:timm/NAME.TAG; FILE --arch NAME", named["timm"]),
        SourceDescription("transformers", "a directory or hf-hub:ORG/NAME; FILE --arch NAME", model_types),
        SourceDescription("open_clip", "a directory or hf-hub:ORG/NAME; FILE --arch NAME", named["open_clip"]),
        SourceDescription("torchvision", "FILE.pth --arch NAME", named["torchvision"]),
        SourceDescription("jax_npz", "FILE.npz --arch NAME", ("AugReg", "big_vision", "SigLIP")),
        SourceDescription("module", "py:PACKAGE.MODULE:FACTORY", ("any torch.nn.Module",)),
    )
