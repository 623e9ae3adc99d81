"""Hugging Face transformers checkpoints: every vision transformer that :class:`ViTConfig` can say.

One file per group of families (:mod:`.vit`, :mod:`.dino`, :mod:`.clip`, :mod:`.beit`), each a table of
config fields, classes and names; :mod:`.reading` and :mod:`.names` do the work for all. What
``save_pretrained`` writes is read, what older releases wrote to the hub, and the names that release 5 has
in memory (``transformers.conversion_mapping`` tells which is which). Query, key and value become one ``qkv``.

As transformers does, weights that a class has no use for at inference are left out: a mask token, the
pooler of an image classifier, the decoder of a model for pre-training, a text tower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed
from vit_deploy.model.fields import Fields
from vit_deploy.model.hf_processor import output_size, preprocessing_from_transformers
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.weights import resize
from vit_deploy.weights.bare import Bare
from vit_deploy.weights.files import CONFIG_NAME, PROCESSOR_NAME, read_directory_weights, read_json
from vit_deploy.weights.imported import Model
from vit_deploy.weights.source import Source
from vit_deploy.weights.timm.looks import difference
from vit_deploy.weights.transformers import reading
from vit_deploy.weights.transformers.reading import FAMILIES as FAMILIES
from vit_deploy.weights.transformers.size import any_size, at_size

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.weights.request import Request
    from vit_deploy.weights.tensors import Weights
    from vit_deploy.weights.transformers.family import Family

NESTED_PROCESSOR_NAME = "processor_config.json"
"""Where release 5 writes the image processor of a model of two towers, as ``image_processor``."""

_KERNELS = (
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.weight",
    "embeddings.patch_embedding.weight",
)


def detects(request: Request) -> bool:
    """Whether the reference is a directory with transformers' ``config.json``."""
    path = request.path / CONFIG_NAME
    return path.is_file() and "model_type" in read_json(path)


def load(request: Request) -> Model:
    """The model of a directory that ``save_pretrained`` or the hub wrote.

    Raises:
        ImportFailed: for another kind of model, and for configs that are broken or cannot be said.
        HostileInput: for weights that are truncated or hold code.
    """
    entries = read_json(request.path / CONFIG_NAME)
    family = reading.family_of(entries)
    raw, sha256 = read_directory_weights(request.path, use_ema=request.use_ema)
    name = reading.class_named(entries, family, raw)
    reading.check_family(raw, family, entries)
    config, weights = reading.read_class(raw, family, name, entries)
    processor = _processor(request.path, family)
    size = output_size(processor) if processor and family.any_size else config.image_size
    recipe = (
        preprocessing_from_transformers(processor, any_size(config, size))
        if processor
        else Preprocessing.default(config)
    )
    notes: tuple[str, ...] = raw.notes
    if request.image_size is not None:  # from the size that it was trained at, whatever the processor gives
        config, weights = resize.at_size(config, weights, request.image_size)
        recipe = recipe.at_size(request.image_size)
        notes = (*notes, *resize.size_notes(config))
    elif size != config.image_size:
        notes = (*notes, _size_note(config, size))
        config, weights = at_size(config, weights, size)
    return Model(
        config=config,
        weights=weights,
        preprocessing=recipe,
        labels=reading.labels_of(entries, config.num_classes),
        source=Source("transformers", request.name or name, sha256),
        notes=notes,
    )


def _size_note(config: ViTConfig, size: tuple[int, int]) -> str:
    native, given = ("x".join(map(str, sides)) for sides in (config.image_size, size))
    how = ", and the positions are resampled to it" if config.positions == "learned" else ""
    return f"config.json says {native} pixels and the image processor gives {given}, which is taken{how}"


def speaks(weights: Weights) -> bool:
    """Whether the weights have transformers' names."""
    return any(name.endswith(_KERNELS) for name in weights)


def read(weights: Weights, base: ViTConfig, arch: str, num_classes: int | None) -> Bare:
    """A bare file with transformers' names.

    Family, class, heads, tokens, norms, biases and channels are read off the weights, the epsilon is
    the family's default; sizes and heads of attention are the architecture's, and must fit. No weight
    tells the activation: it is the architecture's if that has the weights' parts, otherwise the family's
    default, and what remains in doubt is noted.

    Raises:
        ImportFailed: when the names are not those of a class that is read, or there is no head.
    """
    family = reading.recognise(weights)
    name = reading.class_of(family, weights)
    headless = "head" not in family.classes[name].heads.values()
    if headless and num_classes != 0 and base.num_classes:
        raise ImportFailed(
            "the checkpoint has no classification head",
            expected="weights named 'classifier' or 'cls_classifier'",
            next_command="add --num-classes 0 to take it as a model without a head",
        )
    told = {key: tell(weights) for key, tell in family.told.items()}
    fields = Fields(told, "the checkpoint")
    config, ours = reading.read_class(weights, family, name, fields, sizes=base)
    default = reading.default_activation(ours, family, name, fields)
    return Bare(config, ours, notes=_doubts(config, ours, base, arch, family, default))


def _doubts(
    config: ViTConfig, weights: Weights, base: ViTConfig, arch: str, family: Family, activation: str
) -> tuple[str, ...]:
    """That the weights are of another family than the architecture, or that the activation may be another."""
    kind = f"transformers' {family.model_types[0]!r}"
    other = difference(weights, base)
    if other:
        return (
            f"the weights have not the parts of {arch}, and are read as {kind} ({config.activation}): {other}",
        )
    if config.activation != activation:
        return (
            f"the activation is that of {arch}, {config.activation}, and no weight tells it; {kind} has "
            f"{activation} unless its config.json says otherwise",
        )
    return ()


def _processor(directory: Path, family: Family) -> dict[str, Any]:
    """The settings of the image processor, with its name; empty where the checkpoint has none."""
    settings: dict[str, Any] = {}
    nested = directory / NESTED_PROCESSOR_NAME
    if (directory / PROCESSOR_NAME).is_file():
        settings = dict(read_json(directory / PROCESSOR_NAME).data)
    elif nested.is_file() and "image_processor" in read_json(nested):
        settings = dict(read_json(nested).fields("image_processor").data)
    if settings and not (settings.get("image_processor_type") or settings.get("feature_extractor_type")):
        settings["image_processor_type"] = family.processor
    return settings
