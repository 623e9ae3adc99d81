"""Reads files that ``torch.save`` wrote, and never runs the code that a pickle can hold."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.weights.tensors import Weights, WeightTensor, count_nonfinite

if TYPE_CHECKING:
    from pathlib import Path

    import torch

_MAX_NESTING = 8
"""A pickle may hold a dict that holds itself."""

_CODE = re.compile(r"unsupported (global|class)|not an allowed global", re.IGNORECASE)
"""How torch's weights-only unpickler says that a pickle names a function or a class."""


def read_torch_file(path: Path) -> Weights:
    """The tensors of a file that ``torch.save`` wrote. Code in its pickle is never executed.

    Tensors in dictionaries within the dictionary have dotted names: ``model.head.bias``.

    Raises:
        HostileInput: when the file is truncated, its pickle holds anything but tensors and
            plain data, or nests them without end.
        ImportFailed: when it holds no tensors, or tensors without plain data in them.
    """
    tensors = dict(_named(_load(path), path))
    if not tensors:
        raise ImportFailed(
            f"{str(path)!r} holds no state dict",
            expected="tensors by name, at the top or under 'model', 'state_dict' or 'module'",
        )
    return Weights(_described(name, tensor, path) for name, tensor in tensors.items())


def _named(loaded: Any, path: Path, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    if not isinstance(loaded, Mapping):
        return
    if depth > _MAX_NESTING:
        raise HostileInput(
            f"{str(path)!r} nests its state dict more than {_MAX_NESTING} deep, or in itself",
            expected="tensors by name, at the top or under 'model', 'state_dict' or 'module'",
            next_command="have its owner save it again with safetensors.torch.save_file",
        )
    for name, value in loaded.items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from _named(value, path, f"{prefix}{name}.", depth + 1)


def _described(name: str, tensor: torch.Tensor, path: Path) -> WeightTensor:
    import torch

    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise ImportFailed(
            f"weight {name!r} of {str(path)!r} is {tensor.layout} on the {tensor.device.type} device",
            expected="a dense tensor with data",
        )
    dtype = str(tensor.dtype).removeprefix("torch.")
    return WeightTensor(
        name, tuple(tensor.shape), dtype, _constant(tensor), scan=lambda: count_nonfinite(tensor.detach())
    )


def _load(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # torch warns of pickles that other programs wrote; they are read, or refused, below.
            warnings.simplefilter("ignore")
            with torch.serialization.safe_globals(_plain_classes()):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if _CODE.search(str(error)):
            raise HostileInput(
                f"{str(path)!r} holds more than tensors and plain data, and was not opened",
                expected="a file that torch.load(weights_only=True) accepts, or safetensors",
                next_command="have its owner save it again with safetensors.torch.save_file",
            ) from error
        raise _damaged(path, error) from error
    except Exception as error:  # a damaged pickle or archive raises whatever the parser stumbles on
        raise _damaged(path, error) from error


def _plain_classes() -> list[Any]:
    """What training scripts save beside the weights and holds nothing but data: their arguments."""
    return [argparse.Namespace]


def _damaged(path: Path, error: Exception) -> HostileInput:
    # torch's messages go on for pages of advice, of which the first line is the fact.
    lines = str(error).splitlines() or [type(error).__name__]
    reason = (
        "its pickle holds what torch does not write" if isinstance(error, pickle.UnpicklingError) else lines[0]
    )
    return HostileInput(
        f"{str(path)!r} is no whole PyTorch checkpoint: {reason}",
        expected="a file as torch.save wrote it",
        next_command="copy or download the checkpoint again",
    )


def _constant(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: tensor.detach().contiguous()
