"""The zoo: tiny checkpoints of every family, from every source, as people get them.

``SPECIMENS`` must load and be proved; ``STRANGERS`` must be refused in words. Adding one is a line in
its source's module; adding a source is a module here and its name in ``SOURCES``.

    specimen = by_id("timm/deit_tiny_patch16_224")
    model = load_model(**specimen.save(tmp_path))
"""

from __future__ import annotations

from tests.specimens import dialects, jax_npz, native, open_clip, timm, torchvision, transformers
from tests.specimens.specimen import Specimen, Stranger

SOURCES = (timm, transformers, torchvision, open_clip, jax_npz, native, dialects)

SPECIMENS: tuple[Specimen, ...] = tuple(entry for source in SOURCES for entry in source.SPECIMENS)
STRANGERS: tuple[Stranger, ...] = tuple(entry for source in SOURCES for entry in source.STRANGERS)


def by_id(name: str) -> Specimen:
    """The specimen or stranger called ``source/name``."""
    return next(entry for entry in (*SPECIMENS, *STRANGERS) if entry.id == name)


__all__ = ["SOURCES", "SPECIMENS", "STRANGERS", "Specimen", "Stranger", "by_id"]
