"""The files of a checkpoint: one of weights, shards under an index, and JSON beside them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.model.fields import Fields
from vit_deploy.weights.dialects import unwrap
from vit_deploy.weights.hashes import sha256_later
from vit_deploy.weights.npz_file import read_npz
from vit_deploy.weights.safetensors_file import read_safetensors
from vit_deploy.weights.tensors import Weights, WeightTensor
from vit_deploy.weights.torch_file import read_torch_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

CONFIG_NAME = "config.json"
PROCESSOR_NAME = "preprocessor_config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
INDEX_NAMES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WEIGHT_NAMES = (
    "model.safetensors",
    "pytorch_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""What timm and transformers call a file of weights, in the order of preference."""

READERS: dict[str, Callable[[Path], Weights]] = {
    ".safetensors": read_safetensors,
    ".pth": read_torch_file,
    ".pt": read_torch_file,
    ".bin": read_torch_file,
    ".ckpt": read_torch_file,
    ".pth.tar": read_torch_file,
    ".npz": read_npz,
}
"""What reads a checkpoint file, by how its name ends."""

_MAX_JSON = 32 << 20
"""Bytes of the largest JSON file that is read; a config is a few thousand."""


def ends_like_a_checkpoint(path: Path) -> bool:
    """Whether the file's name ends like that of a checkpoint."""
    return path.name.endswith(tuple(READERS))


def read_checkpoint_file(path: Path, *, use_ema: bool = False) -> Weights:
    """The weights of the ViT in a checkpoint file, unread, without what training wraps around them.

    Args:
        path: of the file.
        use_ema: take the moving average of the weights where there is one.

    Raises:
        ImportFailed: as :func:`read_file` and :func:`~vit_deploy.weights.dialects.unwrap` say.
        HostileInput: when the file is truncated or holds code.
    """
    return unwrap(read_file(path), use_ema=use_ema)


def read_file(path: Path) -> Weights:
    """The tensors of a checkpoint file, unread, under the names that they have there.

    Raises:
        ImportFailed: when there is no such file, it may not be read, or has another kind of content.
        HostileInput: when it is truncated or holds code.
    """
    if not path.is_file():
        kind = "a folder, not a checkpoint file," if path.is_dir() else "no checkpoint file"
        raise ImportFailed(
            f"there is {kind} at {str(path)!r}",
            expected="a .safetensors, .pth, .pt, .bin, .ckpt or .npz file",
            next_command=f"ls {str(path.parent)!r}",
        )
    read = next((reader for ending, reader in READERS.items() if path.name.endswith(ending)), None)
    if read is None:
        raise ImportFailed(
            f"{path.name!r} does not end like a checkpoint",
            expected=f"a name that ends in one of {', '.join(READERS)}",
        )
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ImportFailed(
            f"{str(path)!r} may not be read: {error.strerror}", expected="a file that you may read"
        ) from error
    return read(path)


def read_directory_weights(
    directory: Path, names: Sequence[str] = WEIGHT_NAMES, *, use_ema: bool = False
) -> tuple[Weights, Callable[[], str]]:
    """The weights in a checkpoint's directory, unread and unwrapped, and what computes their SHA-256.

    The hash of shards is that of the sorted hashes of all of them.

    Args:
        directory: of the checkpoint.
        names: of the files of weights that are looked for, in this order.
        use_ema: take the moving average of the weights where there is one.

    Raises:
        ImportFailed: when there are none, or a shard is missing.
        HostileInput: when a file is truncated, holds code, or an index points out of the directory.
    """
    for name in names:
        if (directory / name).is_file():
            return read_checkpoint_file(directory / name, use_ema=use_ema), sha256_later(directory / name)
    for name in INDEX_NAMES:
        if (directory / name).is_file():
            weights, sha256 = _read_shards(directory / name)
            return unwrap(weights, use_ema=use_ema), sha256
    raise ImportFailed(
        f"there are no weights in {str(directory)!r}",
        expected=f"one of {', '.join((*names, *INDEX_NAMES))}",
        next_command=f"ls {str(directory)!r}",
    )


def _read_shards(index: Path) -> tuple[Weights, Callable[[], str]]:
    places = read_json(index).fields("weight_map")
    shards = {name: places.text(name) for name in sorted(places.data)}
    opened: dict[str, Weights] = {}
    for shard in sorted(set(shards.values())):
        if shard != Path(shard).name or shard in {"", ".", ".."} or "\\" in shard:
            raise HostileInput(
                f"{index.name} points to {shard!r}, out of its own directory",
                expected="names of files beside it",
                next_command="do not use this checkpoint",
            )
        opened[shard] = read_file(index.parent / shard)
    tensors = [_tensor_in(opened[shard], name, shard) for name, shard in shards.items()]
    hashes = [sha256_later(index.parent / shard) for shard in opened]
    return Weights(tensors), lambda: _hash_of_hashes(compute() for compute in hashes)


def _hash_of_hashes(hashes: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def _tensor_in(weights: Weights, name: str, shard: str) -> WeightTensor:
    if name not in weights:
        raise ImportFailed(
            f"weight {name!r} is not in {shard!r}, where the index says it is",
            expected="shards that belong to their index",
            next_command="copy or download the checkpoint again",
        )
    return weights[name]


def read_json(path: Path) -> Fields:
    """The JSON object in a file.

    Raises:
        ImportFailed: when it cannot be read, is no JSON, or holds something other than an object.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ImportFailed(f"{str(path)!r} is larger than {_MAX_JSON} bytes", expected="a short JSON file")
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ImportFailed(
            f"{str(path)!r} cannot be read: {error.strerror}", expected="a JSON file that you may read"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ImportFailed(f"{str(path)!r} is no JSON: {error}", expected="a JSON object") from error
    return Fields(data, path.name)
