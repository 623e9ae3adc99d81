"""Reads files that ``torch.save`` wrote, and never runs the code that a pickle can hold."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    from pathlib import Path

    import torch

_NESTS = ("model", "state_dict", "module")
"""Where training scripts put the state dict."""

_AVERAGES = ("model_ema", "state_dict_ema")
"""Where they put the moving average of it (EMA)."""

_MAX_NESTING = 8
"""A pickle may hold a dict that holds itself."""

_CODE = re.compile(r"unsupported (global|class)|not an allowed global", re.IGNORECASE)
"""How torch's weights-only unpickler says that a pickle names a function or a class."""


def read_torch_file(path: Path) -> Weights:
    """The weights of a file that ``torch.save`` wrote. Code in its pickle is never executed.

    The tensors are found at the top, or under the one key that training scripts put them
    (``model``, ``state_dict``, ``module``). A moving average of them (``model_ema``,
    ``state_dict_ema``) is read only where it stands alone: of a file that has both, the weights
    taken are the trained ones, where timm's own loader takes the average. The prefix ``module.``,
    which DistributedDataParallel gives every name, is taken off.

    Raises:
        HostileInput: when the file is truncated, its pickle holds anything but tensors and
            plain data, or nests them without end.
        ImportFailed: when it holds no tensors, or tensors without plain data in them.
    """
    state = _find_state_dict(_load(path), path)
    if not state:
        raise ImportFailed(
            f"{str(path)!r} holds no state dict",
            expected="tensors by name, at the top or under 'model', 'state_dict' or 'module'",
        )
    for name, tensor in state.items():
        if tensor.layout != _strided() or tensor.device.type != "cpu":
            raise ImportFailed(
                f"weight {name!r} of {str(path)!r} is {tensor.layout} on the {tensor.device.type} device",
                expected="a dense tensor with data",
            )
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return Weights(
        WeightTensor(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), _constant(tensor))
        for name, tensor in state.items()
    )


def _load(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # torch warns of pickles that other programs wrote; they are read, or refused, below.
            warnings.simplefilter("ignore")
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


def _strided() -> torch.layout:
    import torch

    return torch.strided


def _constant(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: tensor.detach().contiguous()


def _find_state_dict(loaded: Any, path: Path) -> dict[str, torch.Tensor]:
    import torch

    for _ in range(_MAX_NESTING):
        if not isinstance(loaded, Mapping):
            return {}
        tensors = {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
        keys = _NESTS if tensors else (*_NESTS, *_AVERAGES)
        inner = next((loaded[key] for key in keys if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            return tensors
        loaded = inner
    raise HostileInput(
        f"{str(path)!r} nests its state dict more than {_MAX_NESTING} deep, or in itself",
        expected="tensors by name, at the top or under 'model', 'state_dict' or 'module'",
        next_command="have its owner save it again with safetensors.torch.save_file",
    )
