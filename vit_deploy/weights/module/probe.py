"""Runs a user's module once, to find out what it takes and gives.

The module is run on two samples, so that its outputs show which of their sizes is the batch. One that
cannot take two is run at the batch of its own example, or at one, and is known by that from then on.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.model.module_config import Port, shapes_text
from vit_deploy.weights.module.adapter import named_outputs
from vit_deploy.weights.module.factory import foreign_code

if TYPE_CHECKING:
    from collections.abc import Iterator

PRODUCTS_PER_BLOCK = 4
"""Matrix products and convolutions that count as one block of depth: a block of a ViT has four (qkv,
projection, and two in the MLP), its attention not counted. What stands side by side is counted as if it
stood one behind the other, so the depth is a little too large rather than too small; it only sets the
error that verification grants where eager PyTorch happens to be exact."""

_PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "convolution", "linear", "mv", "addmv"})
_TRIED_BATCH = 2
_STEADY = 1e-4
"""Relative difference of two runs on one input above which a module is called random: far above what
the order of a sum can do, far below what dropout does."""


@dataclass(frozen=True)
class Example:
    """What a module is shown.

    Attributes:
        tensors: by name, each with the batch first.
        keywords: the names by which ``forward`` is given them; empty where it goes by position.
    """

    tensors: Mapping[str, Tensor]
    keywords: tuple[str, ...] = ()

    @property
    def ports(self) -> tuple[Port, ...]:
        """The inputs without the batch."""
        return tuple(Port(name, tuple(tensor.shape[1:])) for name, tensor in self.tensors.items())

    @property
    def batch_size(self) -> int:
        """The batch that it came with."""
        return next(iter(self.tensors.values())).shape[0]

    def at(self, batch_size: int) -> tuple[Tensor, ...]:
        """The inputs in order: the example itself, or its first sample again and again, each a little
        darker, so that no two are alike."""
        if batch_size == self.batch_size:
            return tuple(self.tensors.values())
        weights = torch.linspace(1.0, 0.5, batch_size)
        return tuple(
            tensor[:1] * weights.reshape(-1, *[1] * (tensor.ndim - 1)) for tensor in self.tensors.values()
        )


@dataclass(frozen=True)
class Probed:
    """What was found out.

    Attributes:
        outputs: in the module's own order, without the batch.
        depth: see :data:`PRODUCTS_PER_BLOCK`.
        fixed_batch: the one batch that it runs at; 0 where two samples went through.
    """

    outputs: tuple[Port, ...]
    depth: int
    fixed_batch: int


def parse_shapes(text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """``3x224x224``, or ``image:3x224x224,state:8``: names (may be empty) and shapes without the batch.

    Raises:
        UsageFailed: for anything else.
    """
    found = []
    for word in text.split(","):
        name, _, shape = word.strip().rpartition(":")
        if not re.fullmatch(r"[1-9]\d{0,8}(x[1-9]\d{0,8})*", shape) or math.prod(_sizes(shape)) > 2**31:
            raise UsageFailed(
                f"--input-shape is {text!r}",
                expected="sizes without the batch, such as 3x224x224, or image:3x224x224,state:8",
            )
        found.append((name, _sizes(shape)))
    return tuple(found)


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def example_of(
    module: nn.Module, given: Any, names: Sequence[str], shapes: Sequence[tuple[str, tuple[int, ...]]]
) -> Example:
    """What to show a module: shapes that were asked for, or the example that came with it.

    Args:
        module: the module.
        given: its ``example_inputs``: a tensor, several in a tuple, or a dict by name of the arguments
            of ``forward``; or ``None``.
        names: its ``input_names``; those of ``forward``'s arguments where empty.
        shapes: as :func:`parse_shapes` gives them; they go before ``given``.

    Raises:
        ImportFailed: for an example that is not made of floating tensors with one batch.
    """
    arguments = _arguments(module)
    if shapes:
        generator = torch.Generator().manual_seed(0)
        tensors = [torch.randn((_TRIED_BATCH, *shape), generator=generator) for _, shape in shapes]
        written = [name for name, _ in shapes]
        fallbacks = _names(len(shapes), names, arguments)
        chosen = [name or fallback for name, fallback in zip(written, fallbacks, strict=True)]
        by_keyword = isinstance(given, Mapping) or len(shapes) > 1
        keywords = tuple(chosen) if by_keyword and all(name in arguments for name in chosen) else ()
        return _checked(dict(zip(chosen, tensors, strict=True)), keywords)
    if isinstance(given, Mapping):
        keyed = {str(name): tensor for name, tensor in given.items()}
        return _checked(keyed, tuple(keyed) if all(name in arguments for name in keyed) else ())
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    return _checked(dict(zip(_names(len(listed), names, arguments), listed, strict=True)), ())


def _arguments(module: nn.Module) -> list[str]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        found = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # a compiled forward does not tell
        return []
    return [entry.name for entry in found if entry.kind in named]


def _names(count: int, given: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Names of the inputs: those given, or the arguments' own, or their places."""
    for names in (given, arguments):
        if len(names) >= count:
            return [str(name) for name in names[:count]]
    return ["input"] if count == 1 else [f"input_{index}" for index in range(count)]


def _checked(tensors: dict[str, Any], keywords: tuple[str, ...]) -> Example:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.ndim < 1:
            kind = f"a tensor of {tensor.dtype}" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
            raise ImportFailed(
                f"the example input {name!r} is {kind}",
                expected="a floating tensor with the batch first",
                next_command="export a small module around it that makes the rest from floating inputs",
            )
    if len({tensor.shape[0] for tensor in tensors.values()}) != 1 or not tensors:
        raise ImportFailed(
            f"the example inputs have the batches {[tensor.shape[0] for tensor in tensors.values()]}",
            expected="one batch, the first size of each",
        )
    return Example({name: tensor.detach().float().cpu() for name, tensor in tensors.items()}, keywords)


def run(module: nn.Module, example: Example, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """The module's outputs by name.

    Raises:
        ImportFailed: for outputs that are no tensors.
    """
    with torch.no_grad(), plain_attention(), foreign_code():
        if example.keywords:
            return named_outputs(module(**dict(zip(example.keywords, tensors, strict=True))))
        return named_outputs(module(*tensors))


@contextmanager
def plain_attention() -> Iterator[None]:
    """Keep PyTorch's fused encoder layers out: one operator for all of them says nothing of what it does,
    and cannot be exported."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts matrix products and convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in _PRODUCTS
        return func(*args, **(kwargs or {}))


def probe(module: nn.Module, example: Example, names: Sequence[str] = ()) -> Probed:
    """Run a module in evaluation mode and read its outputs.

    Args:
        module: the module.
        example: what it is shown.
        names: its ``output_names``; where they stand gives the names where this is empty.

    Raises:
        ImportFailed: when it does not run on the example, or gives what cannot be compared.
    """
    errors: dict[int, Exception] = {}
    for size in dict.fromkeys((_TRIED_BATCH, example.batch_size, 1)):
        counted = _Products()
        try:
            with counted:
                found = run(module, example, example.at(size))
        except ImportFailed:
            raise
        except Exception as error:  # whatever the user's code raises
            errors[size] = error
            continue
        outputs = _ports(found, size, names)
        _refuse_inputs(found, example.at(size))
        depth = max(1, math.ceil(counted.count / PRODUCTS_PER_BLOCK))
        return Probed(outputs, depth, 0 if size == _TRIED_BATCH else size)
    size, cause = next(reversed(errors.items()))
    lines = str(cause).splitlines() or [""]
    raise ImportFailed(
        f"the module does not run on inputs of {shapes_text(example.ports, size)}: "
        f"{type(cause).__name__}: {lines[0]}",
        expected="a forward pass on the example",
        next_command="--input-shape with the shape that it takes, without the batch, or example_inputs",
    ) from cause


def _ports(found: Mapping[str, Tensor], size: int, names: Sequence[str]) -> tuple[Port, ...]:
    if not found:
        raise ImportFailed("the module returns no tensor", expected="one or more")
    if names and len(names) != len(found):
        raise ImportFailed(
            f"output_names has {len(names)} names for {len(found)} outputs: {', '.join(found)}",
            expected="a name for each",
        )
    for name, tensor in found.items():
        if not tensor.is_floating_point():
            raise ImportFailed(
                f"the output {name!r} is of {tensor.dtype}",
                expected="floating numbers: what is compared is how far they are from eager PyTorch's",
                next_command="export a small module around it that leaves that output out",
            )
        if tensor.ndim < 1 or tensor.shape[0] != size:
            raise ImportFailed(
                f"the output {name!r} has shape {tuple(tensor.shape)} at batch {size}",
                expected=f"the batch first: ({size}, …)",
                next_command="export a small module around it that puts the batch first",
            )
    chosen = [str(name) for name in names] or list(found)
    return tuple(
        Port(name, tuple(tensor.shape[1:])) for name, tensor in zip(chosen, found.values(), strict=True)
    )


def _refuse_inputs(found: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> None:
    """A graph cannot have one value for an input and an output."""
    for name, tensor in found.items():
        if any(tensor.shape == given.shape and torch.equal(tensor, given) for given in inputs):
            raise ImportFailed(
                f"the output {name!r} is an input, unchanged",
                expected="outputs that are computed",
                next_command="leave that output out",
            )


def unsteady(module: nn.Module, example: Example, batch_size: int) -> str:
    """Which output differs when the module is run twice on one input; empty where none does."""
    tensors = example.at(batch_size)
    first, second = (run(module, example, tensors) for _ in range(2))
    for name, before in first.items():
        difference = float((second[name].double() - before.double()).norm())
        if not difference <= _STEADY * max(float(before.double().norm()), 1e-30):
            return name
    return ""
