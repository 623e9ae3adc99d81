"""From ``config.json`` and names to a class, a config and labels: the engine behind the tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed, nearest
from vit_deploy.model.config import ViTConfig
from vit_deploy.weights.tensors import Weights
from vit_deploy.weights.timm.looks import difference
from vit_deploy.weights.transformers import beit, clip, dino, names, vit
from vit_deploy.weights.transformers.family import Family, Reading
from vit_deploy.weights.transformers.refused import MISSING
from vit_deploy.weights.transformers.settings import require

if TYPE_CHECKING:
    from vit_deploy.model.fields import Fields

FAMILIES: tuple[Family, ...] = (*vit.FAMILIES, *dino.FAMILIES, *clip.FAMILIES, *beit.FAMILIES)
"""Every family that is read; of those with the same names, the first speaks for a bare file."""

BY_TYPE = {name: family for family in FAMILIES for name in family.model_types}


def family_of(entries: Fields) -> Family:
    """The family that ``config.json`` names.

    Raises:
        ImportFailed: for code of its own, a family that is not read, and what no family can say.
    """
    if "auto_map" in entries:
        raise ImportFailed(
            "the checkpoint comes with code of its own (auto_map), which is not run",
            expected="one of transformers' own classes",
        )
    model_type = entries.text("model_type")
    if model_type not in BY_TYPE:
        missing = MISSING.get(model_type, "")
        close = nearest(model_type, BY_TYPE, limit=1) if not missing else []
        hint = f", which needs {missing}" if missing else f" (nearest: {close[0]!r})" if close else ""
        raise ImportFailed(
            f"the checkpoint is a {model_type!r} model{hint}",
            expected=f"a model_type of {', '.join(BY_TYPE)}",
            next_command="give it as your own module: -m py:package.module:factory",
        )
    for name in ("quantization_config", "pruned_heads"):
        require(not entries.data.get(name), entries, name, f"no {name}")
    return BY_TYPE[model_type]


def class_named(entries: Fields, family: Family, weights: Weights) -> str:
    """The class that ``config.json`` names, or that the weights look like where it names none.

    Raises:
        ImportFailed: for a class that is not read.
    """
    given = entries.texts("architectures", ())
    if not given:
        return class_of(family, weights)
    if given[0] not in family.classes:
        raise ImportFailed(
            f"the checkpoint is a {given[0]} of model_type {entries.text('model_type')!r}",
            expected=f"one of {', '.join(family.classes)}",
        )
    return given[0]


def class_of(family: Family, weights: Weights) -> str:
    """The class of a family whose heads the weights have, and that knows most of them."""
    tops = names.tops(weights, family)
    having = [name for name, kind in family.classes.items() if tops.issuperset(kind.heads)]
    kinds = family.classes
    return max(having, key=lambda name: (len(kinds[name].heads), names.known(weights, family, kinds[name])))


def recognise(weights: Weights) -> Family:
    """The family that the names of a bare file are of, or the one that knows most of them."""
    for family in FAMILIES:
        if names.fits(weights, family):
            return family
    return max(FAMILIES, key=lambda family: names.known(weights, family))


def check_family(weights: Weights, family: Family, entries: Fields) -> None:
    """Refuse weights that are another family's than ``config.json`` names.

    Raises:
        ImportFailed: naming the family that they look like.
    """
    if names.known(weights, family) == len(weights):
        return
    others = [other for other in FAMILIES if names.fits(weights, other)]
    if others:
        raise ImportFailed(
            f"config.json says model_type={entries.text('model_type')!r} and the weights look like those of "
            f"{others[0].model_types[0]!r}",
            expected="a config and weights that belong together",
        )


def read_class(
    raw: Weights, family: Family, class_name: str, top: Fields, sizes: ViTConfig | None = None
) -> tuple[ViTConfig, Weights]:
    """The config of a class, and its weights under our names.

    Args:
        raw: the weights, under transformers' names.
        family: the family.
        class_name: the class.
        top: ``config.json``, or what is known in its place.
        sizes: whose sizes hold, and whose activation if its parts are those of the weights, where no
            config says them.

    Raises:
        ImportFailed: for what the config says and we cannot, or what the weights lack.
    """
    kind = family.classes[class_name]
    reading = Reading(top, _tower(top, family), Weights(()), class_name, kind)
    weights = names.translate(raw, family, kind, family.without_bias(reading))
    reading = replace(reading, weights=weights)
    values = {name: read(reading) for name, read in {**family.settings, **kind.settings}.items()}
    if sizes is not None:
        values = _with_sizes(values, sizes, same_parts=not difference(weights, sizes))
    patch = values["patch_size"]
    # Every patch embedding is a convolution without padding: what is left over is not seen.
    values["drop_remainder"] = patch > 0 and any(side % patch for side in values["image_size"])
    return ViTConfig(**values), weights


def default_activation(weights: Weights, family: Family, class_name: str, top: Fields) -> str:
    """The activation that transformers computes where no config says one, for weights under our names."""
    kind = family.classes[class_name]
    setting = {**family.settings, **kind.settings}["activation"]
    return str(setting(Reading(top, _tower(top, family), weights, class_name, kind)))


_SIZES = ("image_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_dim", "activation")


def _with_sizes(values: dict[str, Any], sizes: ViTConfig, *, same_parts: bool) -> dict[str, Any]:
    """The architecture's sizes, and its activation where it is of the weights' own family."""
    told = {name: getattr(sizes, name) for name in _SIZES}
    if not same_parts:
        told.pop("activation")
    elif "pool_activation" in values:
        told["pool_activation"] = sizes.activation
    return {**values, **told}


def _tower(top: Fields, family: Family) -> Fields:
    """The fields of the image tower.

    CLIP's early configs have ``vision_config_dict``, whose values hold before those of ``vision_config``.
    """
    for name in (f"{family.tower}_dict", family.tower):
        if family.tower and name in top:
            return top.fields(name)
    return top


def labels_of(entries: Fields, count: int) -> tuple[str, ...]:
    """The names in ``id2label``, or none where they are just LABEL_0, LABEL_1, …."""
    if not count or "id2label" not in entries:
        return ()
    table = entries.fields("id2label")
    labels = tuple(table.text(str(index)) for index in range(count))
    generic = all(label == f"LABEL_{index}" for index, label in enumerate(labels))
    return () if generic else labels
