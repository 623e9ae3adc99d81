"""Ways to read a field of our config out of transformers' ``config.json``: what the tables are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed
from vit_deploy.model.fields import Fields, shown

if TYPE_CHECKING:
    from vit_deploy.weights.tensors import Weights
    from vit_deploy.weights.transformers.family import Reading, Setting

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
"""Our name of each activation of ``transformers.activations.ACT2FN`` that we have."""


def constant(value: Any) -> Setting:
    """The same for every checkpoint of the family."""
    return lambda _: value


def integer(name: str, default: int) -> Setting:
    """A whole number of the tower's config."""
    return lambda reading: reading.tower.integer(name, default)


def number(name: str, default: float) -> Setting:
    """A number of the tower's config."""
    return lambda reading: reading.tower.number(name, default)


def boolean(name: str, default: bool) -> Setting:
    """A truth value of the tower's config."""
    return lambda reading: reading.tower.boolean(name, default)


def pair(name: str, default: int) -> Setting:
    """Height and width, or one number for both."""
    return lambda reading: reading.tower.pair(name, (default, default))


def square_image(default: int) -> Setting:
    """A square picture, where transformers resamples the positions at each call."""
    return lambda reading: square(reading.tower, default)


def square(entries: Fields, default: int) -> tuple[int, int]:
    """The picture's size, which must be square: its positions are taken for those of a square.

    Raises:
        ImportFailed: for an oblong picture.
    """
    size = entries.pair("image_size", (default, default))
    require(size[0] == size[1], entries, "image_size", "a square picture: transformers takes it for one")
    return size


def patch_size(default: int) -> Setting:
    """The side of the patches, which must be square."""

    def read(reading: Reading) -> int:
        height, width = reading.tower.pair("patch_size", (default, default))
        require(height == width, reading.tower, "patch_size", "square patches")
        return height

    return read


def num_heads(default: int) -> Setting:
    """The number of heads, which must share the width among them."""

    def read(reading: Reading) -> int:
        tower = reading.tower
        heads = tower.integer("num_attention_heads", default)
        if "head_dim" in tower and "hidden_size" in tower:
            whole = tower.integer("head_dim") * heads == tower.integer("hidden_size")
            require(whole, tower, "head_dim", "hidden_size / heads")
        return heads

    return read


def activation(name: str, default: str) -> Setting:
    """One of :data:`ACTIVATIONS`."""

    def read(reading: Reading) -> str:
        theirs = reading.tower.text(name, default)
        require(theirs in ACTIVATIONS, reading.tower, name, f"one of {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[theirs]

    return read


def has(name: str) -> Setting:
    """Whether there is a weight of our name."""
    return lambda reading: name in reading.weights


def present(name: str, what: str) -> Setting:
    """``True``, and an error where the weights lack what the config or the class asks for."""

    def read(reading: Reading) -> bool:
        if name not in reading.weights:
            raise ImportFailed(
                f"the checkpoint is a {reading.class_name} and its weights have no {what}",
                expected=f"weights with a {what}, or the class that goes with them",
            )
        return True

    return read


def registers(name: str, default: int) -> Setting:
    """The number of register tokens, which the weights must have."""

    def read(reading: Reading) -> int:
        count = reading.tower.integer(name, default)
        if count and "reg_token" not in reading.weights:
            raise ImportFailed(
                f"config.json says {name}={count} and the weights have no register tokens",
                expected="weights with register tokens, or a config without them",
            )
        return count

    return read


def num_classes(reading: Reading) -> int:
    """The rows of the classifier, which ``id2label`` must name; 0 for a class without one.

    Two is transformers' default. Of no classes (``num_labels=0``) it makes a model without a head.
    """
    if "head" not in reading.kind.heads.values():
        return 0
    top, head = reading.top, reading.weights.get("head.weight")
    named = len(top.fields("id2label").data) if "id2label" in top else None
    if head is None:
        if named == 0:
            return 0
        theirs = next(name for name, ours in reading.kind.heads.items() if ours == "head")
        raise ImportFailed(
            f"the checkpoint is a {reading.class_name} and its weights have no classification head",
            expected=f"a weight named '{theirs}.weight'",
        )
    rows = head.shape[0] if head.shape else 0
    if named is not None and named != rows:
        raise ImportFailed(
            f"config.json names {named} classes and the head has {rows}",
            expected="as many in id2label as the head has rows",
        )
    return rows


def pooler_size(reading: Reading) -> int:
    """The width of the pooler, 0 where there is none; its activation must be the hyperbolic tangent."""
    if "pre_logits.weight" not in reading.weights:
        return 0
    tower = reading.tower
    require(tower.text("pooler_act", "tanh") == "tanh", tower, "pooler_act", "'tanh'")
    return tower.integer("pooler_output_size", tower.integer("hidden_size", 768))


def last_stage_only(reading: Reading) -> str:
    """The pooling of a backbone, whose feature map must be the normalised last one: our tokens."""
    top = reading.top
    require(top.boolean("apply_layernorm", True), top, "apply_layernorm", "apply_layernorm=true")
    depth = top.integer("num_hidden_layers", 12)
    stages = top.texts("out_features", ()) or (f"stage{depth}",)
    require(tuple(stages) == (f"stage{depth}",), top, "out_features", f"the last stage alone, 'stage{depth}'")
    return "token"


def require(holds: bool, entries: Fields, name: str, expected: str) -> None:
    """Refuse a value of a config that cannot be said here.

    Raises:
        ImportFailed: naming the key and its value.
    """
    if not holds:
        raise ImportFailed(
            f"{entries.where} says {name}={shown(entries.data.get(name))}, which is not supported",
            expected=expected,
        )


def ends(weights: Weights, tail: str | tuple[str, ...]) -> bool:
    """Whether any name of a bare file ends so."""
    return any(name.endswith(tail) for name in weights)


def size_of(weights: Weights, tail: str, axis: int, default: int = 0) -> int:
    """The size of the first tensor of a bare file whose name ends so."""
    for name, tensor in weights.items():
        if name.endswith(tail) and len(tensor.shape) > axis:
            return tensor.shape[axis]
    return default
