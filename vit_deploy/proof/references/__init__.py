"""The source libraries' own models, as something to compare ours with: one module per source.

A module here bears the name of a :class:`~vit_deploy.weights.source.Source`'s kind and defines::

    def build(request: Request, model: Model) -> Reference

which loads the checkpoint as the library's own users would, and says where its stages are read. It
must take nothing from our import but what the request left open: what is taken from it is not proved.
``build`` is called, and the reference run, under :func:`vit_deploy.proof.double.all_float64`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from vit_deploy.errors import BackendMissing, UsageFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import Tensor, nn

    from vit_deploy.weights.imported import Model
    from vit_deploy.weights.request import Request

EMBED = "embed"
"""The input of the first block: ``(b, n, d)``."""


def first_tensor(value: Any) -> Tensor:
    """The tensor that a module takes or gives: itself, or the first of a tuple or of an output's fields."""
    import torch

    while not isinstance(value, torch.Tensor):
        value = next(iter(value.values() if isinstance(value, Mapping) else value))
    return value


@dataclass(frozen=True)
class Tap:
    """Where one stage is read in the library's model.

    Attributes:
        module: the dotted name of a submodule.
        at: whether its input or its output is the stage.
        read: from what went in or came out to the stage's tensor, batch first.
    """

    module: str
    at: Literal["input", "output"] = "output"
    read: Callable[[Any], Tensor] = first_tensor


@dataclass(frozen=True)
class Reference:
    """A source library's own model of a checkpoint.

    Stages have our names and shapes: ``embed`` and ``blocks.<i>`` are ``(b, n, d)``; ``tokens``,
    ``embedding``, ``logits`` and ``image_embeds`` are the outputs of those names. ``embed``, every
    block and the model's main output must be given; another output that the library does not compute
    may be left out.

    Attributes:
        library: its name and, as ``version``, what is installed of it.
        module: its model, in evaluation mode.
        taps: the stages that are read inside the module.
        outputs: runs the module on ``(b, c, h, w)`` and gives the stages that are not tapped.
    """

    library: str
    version: str
    module: nn.Module
    taps: Mapping[str, Tap]
    outputs: Callable[[Tensor], Mapping[str, Tensor]] = field(repr=False)

    def run(self, pixel_values: Tensor, take: Callable[[str, Tensor], None]) -> None:
        """Give ``take`` each stage by name as it is computed, so that none has to be kept.

        Args:
            pixel_values: ``(b, c, h, w)`` in float64.
            take: called once or more for each stage.
        """
        handles = [self._hook(name, tap, take) for name, tap in self.taps.items()]
        try:
            for name, value in self.outputs(pixel_values).items():
                take(name, value)
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, tap: Tap, take: Callable[[str, Tensor], None]) -> Any:
        module = self.module.get_submodule(tap.module)
        if tap.at == "output":
            return module.register_forward_hook(lambda _, __, result: take(name, tap.read(result)))
        return module.register_forward_pre_hook(
            lambda _, args, kwargs: take(name, tap.read(args or kwargs)), with_kwargs=True
        )


def block_taps(blocks: str, depth: int, read: Callable[[Any], Tensor] = first_tensor) -> dict[str, Tap]:
    """The taps of ``embed`` and of every block.

    Args:
        blocks: the dotted name of the list of blocks.
        depth: how many there are.
        read: from what a block takes or gives to ``(b, n, d)``.
    """
    taps = {f"blocks.{index}": Tap(f"{blocks}.{index}", "output", read) for index in range(depth)}
    return {EMBED: Tap(f"{blocks}.0", "input", read), **taps}


def require_library(name: str, kind: str, command: str, module: str = "") -> str:
    """The version of an installed library that can be imported.

    Args:
        name: its distribution's name.
        kind: what checkpoints of its are called.
        command: what installs it.
        module: what is imported of it; ``name`` when empty.

    Raises:
        BackendMissing: when it is not installed, or cannot be imported.
    """
    from importlib import metadata

    from vit_deploy.torchvision_schemas import let_torchvision_import

    try:
        version = metadata.version(name)
        let_torchvision_import()
        importlib.import_module(module or name)
    except metadata.PackageNotFoundError as error:
        raise BackendMissing(
            f"{name} is not installed, and the import of a {kind} checkpoint is proved against it",
            expected=f"{name}",
            next_command=command,
        ) from error
    except Exception as error:  # a library that does not fit another one may raise anything
        raise cannot_be_imported(module or name, error) from error
    return version


def cannot_be_imported(module: str, error: Exception, name: str = "") -> BackendMissing:
    """The error for a library that is installed and whose import, or that of a name in it, fails."""
    statement = f"from {module} import {name}" if name else f"import {module}"
    return BackendMissing(
        f"{module} is installed and cannot be imported: {first_line(error)}",
        expected="versions of torch and torchvision, and of what else it needs, that fit",
        next_command=f"python -c '{statement}', which tells all of it",
    )


def first_line(error: Exception) -> str:
    """An exception of somebody else's in a line: the first of its message, or two where that says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def builder(kind: str) -> Callable[[Request, Model], Reference]:
    """What builds the reference for a kind of source.

    Raises:
        UsageFailed: for a kind that has no library of its own.
    """
    name = f"{__name__}.{kind}"
    if not kind.isidentifier() or kind.startswith("_") or importlib.util.find_spec(name) is None:
        raise UsageFailed(
            f"a model from {kind!r} has no source library to be compared with",
            expected="a checkpoint of timm, transformers or another library that vit-deploy imports from",
            next_command="leave --prove out",
        )
    module: ModuleType = importlib.import_module(name)
    build: Callable[[Request, Model], Reference] = module.build
    return build
