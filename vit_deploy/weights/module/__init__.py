"""Any PyTorch module, from a user's own factory: ``py:package.module:factory``.

The module is described by running it (:mod:`vit_deploy.weights.module.probe`), never taken for our ViT. Its
code is not stored: whatever needs eager PyTorch needs the code named again by the user, and never
imports it because a manifest says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.model.module_config import PREFIX, ModuleConfig
from vit_deploy.weights.checks import check_names, check_shapes
from vit_deploy.weights.module.model import ModuleModel, load_into, weights_of
from vit_deploy.weights.source import Source
from vit_deploy.weights.tensors import digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from vit_deploy.weights.imported import Model
    from vit_deploy.weights.module.probe import Example
    from vit_deploy.weights.request import Request


def detects(request: Request) -> bool:
    """Whether the reference names a factory in Python code."""
    return request.reference.startswith(PREFIX)


def load(request: Request) -> ModuleModel:
    """The module that a factory gives, run once.

    Raises:
        ImportFailed: when the factory cannot be imported or called, gives no module, or one that does
            not run, or whose weights do not fit the file.
        HostileInput: when the file of weights is truncated or holds code.
    """
    from vit_deploy.weights.module.factory import make
    from vit_deploy.weights.module.probe import parse_shapes

    name = request.reference.removeprefix(PREFIX)
    made = make(name, request.seed)
    module = _prepared(made.module, name)
    shapes = parse_shapes(request.input_shape) if request.input_shape else ()
    example = _example(module, made.said, name, shapes)
    _initialise(module, example)
    if request.weights is not None:
        _load_file(module, request.weights)
    config = _config(module, example, made.said, name, request)
    return _model(module, example, made.said, config)


def code_not_named(config: ModuleConfig) -> UsageFailed:
    """The refusal to import code because a manifest names it."""
    return UsageFailed(
        f"eager PyTorch needs the code that the bundle was made from ({PREFIX}{config.factory}), and a "
        "manifest's word alone imports nothing",
        expected="the code named by you",
        next_command=f"the same command with -m {PREFIX}{config.factory}, or with --trust-code",
    )


def with_code(described: Model, code: str) -> ModuleModel:
    """The model of a bundle with the user's module in it, which the user has named.

    Args:
        described: the bundle's model, its weights unread.
        code: ``package.module:factory``, with or without ``py:``.

    Raises:
        UsageFailed: when the bundle was made from other code, or from none.
        ImportFailed: when the module is no longer the one that was exported.
    """
    from vit_deploy.weights.module.factory import make
    from vit_deploy.weights.module.probe import probe

    config = described.config
    name = code.removeprefix(PREFIX)
    if not isinstance(config, ModuleConfig) or config.factory != name:
        made_from = described.source.name
        raise UsageFailed(
            f"the bundle was made from {made_from}, not from {PREFIX}{name}",
            expected=f"-m {made_from}" if isinstance(config, ModuleConfig) else "no -m: it needs no code",
        )
    made = make(name, config.seed)
    module = _prepared(made.module, name)
    shapes = tuple((port.name, port.shape) for port in config.inputs)
    example = _example(module, made.said, name, shapes)
    _initialise(module, example)
    _require_same(module, described, config)
    load_into(module, described.weights)
    probed = probe(module, example, made.said.get("output_names", ()))
    if probed.outputs != config.outputs:
        raise ImportFailed(
            f"{PREFIX}{name} gives {_listed(probed.outputs)} now",
            expected=f"{_listed(config.outputs)}, as when the bundle was made",
            next_command="export it again, into another bundle",
        )
    return ModuleModel(
        config=config,
        weights=described.weights,
        preprocessing=described.preprocessing,
        labels=described.labels,
        source=described.source,
        live=module,
        example=example,
    )


def _listed(ports: Sequence[Any]) -> str:
    return ", ".join(f"{port.name} {port.shape}" for port in ports)


def _prepared(module: nn.Module, name: str) -> nn.Module:
    """The module in float32 on the CPU, frozen, in evaluation mode.

    Raises:
        ImportFailed: for parameters without data, or of a kind that cannot be compared.
    """
    import torch
    from torch.nn.parameter import is_lazy

    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for key, tensor in tensors.items():
        if is_lazy(tensor):
            continue
        odd = tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided
        if tensor.is_meta or odd:
            kind = "without data" if tensor.is_meta else f"{tensor.dtype}, {tensor.layout}"
            raise ImportFailed(
                f"the weight {key!r} of {name} is {kind}", expected="dense floating numbers, or whole ones"
            )
    module = module.to("cpu").eval()
    return module if any(map(is_lazy, tensors.values())) else _frozen(module)


def _frozen(module: nn.Module) -> nn.Module:
    return module.float().requires_grad_(requires_grad=False)


def _initialise(module: nn.Module, example: Example) -> None:
    """Lazy layers get their weights from a first run."""
    from torch.nn.parameter import is_lazy

    from vit_deploy.weights.module.probe import probe

    if any(map(is_lazy, module.parameters())):
        probe(module, example)
        _frozen(module)


def _example(
    module: nn.Module, said: Mapping[str, Any], name: str, shapes: Sequence[tuple[str, tuple[int, ...]]]
) -> Example:
    from vit_deploy.weights.module.probe import example_of

    given = said.get("example_inputs")
    if given is None and not shapes:
        size = _image_size(module, said)
        if not size:
            raise ImportFailed(
                f"{PREFIX}{name} does not say what its module takes",
                expected="example_inputs beside the module, or the shape of its input",
                next_command=f"-m {PREFIX}{name} --input-shape 3x224x224",
            )
        shapes = (("", size),)
    return example_of(module, given, said.get("input_names", ()), shapes)


def _image_size(module: nn.Module, said: Mapping[str, Any]) -> tuple[int, ...]:
    """``(c, h, w)`` as a preprocessing recipe tells it, or nothing."""
    recipe = _recipe(module, said)
    if "input_size" in recipe:
        return tuple(recipe["input_size"])
    if "image_size" in recipe and "mean" in recipe:
        return (len(recipe["mean"]), *recipe["image_size"])
    return ()


def _recipe(module: nn.Module, said: Mapping[str, Any]) -> Mapping[str, Any]:
    """The preprocessing that was said, or timm's ``pretrained_cfg`` on the module."""
    from collections.abc import Mapping as Dictionary

    found = said.get("preprocessing", getattr(module, "pretrained_cfg", None))
    found = found.to_dict() if hasattr(found, "to_dict") else found
    return found if isinstance(found, Dictionary) else {}


def _config(
    module: nn.Module, example: Example, said: Mapping[str, Any], name: str, request: Request
) -> ModuleConfig:
    from vit_deploy.weights.module.probe import probe

    probed = probe(module, example, said.get("output_names", ()))
    labels = said.get("labels") or ()
    classes = "logits" if any(port.name == "logits" for port in probed.outputs) else ""
    if labels and not classes:
        fitting = [port.name for port in probed.outputs if port.shape == (len(labels),)]
        if len(fitting) != 1:
            raise ImportFailed(
                f"there are {len(labels)} labels, and the outputs are {_listed(probed.outputs)}",
                expected="one output of that many numbers",
                next_command="name the output that scores the classes 'logits', in output_names",
            )
        classes = fitting[0]
    return ModuleConfig(
        factory=name,
        inputs=example.ports,
        outputs=probed.outputs,
        depth=probed.depth,
        fixed_batch=probed.fixed_batch,
        class_output=classes,
        own_weights=request.weights is None,
        seed=request.seed,
    )


def _model(module: nn.Module, example: Example, said: Mapping[str, Any], config: ModuleConfig) -> ModuleModel:
    from vit_deploy.model.preprocess import Preprocessing

    recipe = None
    written = _recipe(module, said)
    if config.takes_image:
        if "resize" in written:
            recipe = Preprocessing.from_dict(written)
        else:
            recipe = Preprocessing.from_timm(written, config) if written else Preprocessing.default(config)
        if (recipe.channels, *recipe.image_size) != config.inputs[0].shape:
            raise ImportFailed(
                f"its preprocessing gives pictures of {(recipe.channels, *recipe.image_size)}",
                expected=f"{config.inputs[0].shape}, the module's input",
            )
    elif "preprocessing" in said:
        raise ImportFailed(
            f"{PREFIX}{config.factory} has a preprocessing, and its inputs are {_listed(config.inputs)}",
            expected="one picture: (c, h, w) with 1, 3 or 4 channels",
        )
    weights = weights_of(module)
    labels = tuple(map(str, said.get("labels") or ()))
    if labels and len(labels) != config.num_classes:
        raise ImportFailed(
            f"there are {len(labels)} labels for {config.num_classes} classes", expected="one label per class"
        )
    return ModuleModel(
        config=config,
        weights=weights,
        preprocessing=recipe,
        labels=labels,
        source=Source("module", PREFIX + config.factory, lambda: digest_of(weights)),
        live=module,
        example=example,
    )


def _load_file(module: nn.Module, path: Path) -> None:
    from vit_deploy.weights.files import read_checkpoint_file

    found = read_checkpoint_file(path)
    own = weights_of(module)
    expected = {name: tensor.shape for name, tensor in own.items()}
    check_names(expected, found, "the module that the factory gives")
    check_shapes(expected, found, "the module that the factory gives")
    for name, tensor in found.items():
        if tensor.stored().dtype != own[name].stored().dtype:
            raise ImportFailed(f"weight {name!r} has dtype {tensor.dtype}", expected=own[name].dtype)
    load_into(module, found)


def _require_same(module: nn.Module, described: Model, config: ModuleConfig) -> None:
    """Refuse a module that is no longer the one that the bundle was made from."""
    own = weights_of(module)
    expected = {name: tensor.shape for name, tensor in own.items()}
    check_names(expected, described.weights, "the module that the factory gives now")
    check_shapes(expected, described.weights, "the module that the factory gives now")
    kept = digest_of(described.weights) if config.own_weights else ""
    if config.own_weights and digest_of(own) != kept:
        raise ImportFailed(
            f"the weights that {described.source.name} gives are not the bundle's",
            expected=f"weights with SHA-256 {kept[:16]}…, as when it was exported",
            next_command=f"export again: vit-deploy export -m {described.source.name} -o ANOTHER",
        )
