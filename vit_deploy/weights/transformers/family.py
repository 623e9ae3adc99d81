"""What a family of transformers' vision models is: a table of its config, its classes and its names.

A file of families says only what differs; :mod:`.names` and :mod:`.reading` do the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from vit_deploy.model.fields import Fields
    from vit_deploy.weights.tensors import Weights, WeightTensor


class Rule(NamedTuple):
    """How one kind of weight is called here.

    Attributes:
        theirs: a regular expression for the whole name, without what stands before it.
        ours: our name, with the expression's groups.
        form: what the tensor becomes, exactly and unread, given our name; just renamed when ``None``.
    """

    theirs: str
    ours: str
    form: Callable[[str, WeightTensor], list[WeightTensor]] | None = None


@dataclass(frozen=True)
class ModelClass:
    """What sets one of transformers' model classes apart from its family.

    Attributes:
        heads: our name of each of its heads, by transformers' name.
        settings: fields of our config that it reads otherwise than its family does.
        unused: regular expressions for weights that it has no use for at inference.
    """

    heads: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Setting] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A family of transformers' models.

    Attributes:
        model_types: what ``config.json`` calls it.
        classes: its classes that are read, by name; the most useful first among those of like heads.
        settings: each field of our config, and how it is read.
        prefix: regular expression for what may stand before a name.
        outer: names outside the blocks.
        block: regular expression for the beginning of a name inside a block, with its number.
        inner: names inside a block, after that beginning.
        marks: regular expressions for names that tell the family from others; all must be there.
        unused: regular expressions for weights that no class of it uses at inference.
        without_bias: which of ``q``, ``k``, ``v`` have no bias although the others may.
        tower: where ``config.json`` keeps the image tower's own fields; empty for the top.
        told: fields of ``config.json`` that the weights of a bare file tell, and how.
        processor: the image processor that transformers takes where a checkpoint names none.
        any_size: whether transformers resamples the positions by itself at each picture's size.
    """

    model_types: tuple[str, ...]
    classes: Mapping[str, ModelClass]
    settings: Mapping[str, Setting]
    prefix: str
    outer: tuple[Rule, ...]
    block: str
    inner: tuple[Rule, ...]
    marks: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    without_bias: Setting = lambda _: frozenset()
    tower: str = ""
    told: Mapping[str, Callable[[Weights], Any]] = field(default_factory=dict)
    processor: str = "ViTImageProcessor"
    any_size: bool = False


@dataclass(frozen=True)
class Reading:
    """What the fields of our config are read from.

    Attributes:
        top: the whole of ``config.json``.
        tower: the fields of the image tower; the same as ``top`` for most families.
        weights: under our names; empty while the names are not translated yet.
        class_name: transformers' name of the class.
        kind: what is known of it.
    """

    top: Fields
    tower: Fields
    weights: Weights
    class_name: str
    kind: ModelClass


Setting = Callable[[Reading], Any]
"""Reads the value of one field of our config."""
