"""Safetensors files that are broken, or whose header lies."""

from __future__ import annotations

import json
import struct

import pytest
import safetensors.torch
import torch

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.weights import load_model


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, 0.3, 0.7, 0.99, -1])
def test_truncated(refused, save, state, keep):
    path = save(state)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)] if isinstance(keep, float) else data[:keep])
    message = refused(path, HostileInput)
    assert str(path) in message
    assert "copy or download" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.safetensors", b"these are not the weights you are looking for"),
        ("w.pth", b"these are not the weights you are looking for"),
        ("w.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 346284714\n"),
        ("w.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 346284714\n"),
        ("w.pt", b"\x80\x02}q\x00."),
        ("w.safetensors", struct.pack("<Q", 2**63 - 1) + b"{}"),
        ("w.safetensors", struct.pack("<Q", 100_000_000) + b"{" * 64),
        ("w.safetensors", struct.pack("<Q", 2) + b"[]"),
        ("w.safetensors", struct.pack("<Q", 8) + b"\xff" * 8),
    ],
    ids=["text", "text.pth", "lfs.bin", "lfs", "emptydict", "hugeheader", "longheader", "list", "noutf8"],
)
def test_wrong_content(refused, tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    refused(path)


def _safetensors(header, data=b""):
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]},
        {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
    ],
)
def test_header_that_lies(refused, tmp_path, entry):
    path = tmp_path / "w.safetensors"
    path.write_bytes(_safetensors({"cls_token": entry}, b"\0" * 8))
    assert "no whole safetensors file" in refused(path, HostileInput)


def _raw(pairs, data):
    """A file whose header is written by hand, so that it may name a tensor twice."""
    body = ",".join(f"{json.dumps(name)}:{json.dumps(entry)}" for name, entry in pairs)
    encoded = f"{{{body}}}".encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def _entry(begin, end, shape):
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("pairs", "size", "word"),
    [
        ([("cls_token", _entry(0, 8, [2])), ("cls_token", _entry(0, 8, [2]))], 8, "names 'cls_token' twice"),
        ([("cls_token", _entry(0, 8, [2])), ("cls_token", _entry(8, 16, [2]))], 16, ""),
        ([("__metadata__", {"a": "b"}), ("__metadata__", {"a": "c"})], 0, ""),
        ([("cls_token", _entry(0, 8, [2])), ("norm.bias", _entry(0, 8, [2]))], 8, ""),
        ([("cls_token", _entry(0, 8, [2])), ("norm.bias", _entry(4, 12, [2]))], 12, ""),
        ([("cls_token", _entry(0, 8, [2]))], 16, ""),
        ([("cls_token", _entry(0, 8, [2])), ("norm.bias", _entry(12, 20, [2]))], 20, ""),
        ([("cls_token", _entry(0, 8, [2])), ("norm.bias", _entry(4, 4, [0]))], 8, ""),
    ],
    ids=["twice", "twice, apart", "metadata", "alias", "overlap", "trailing", "gap", "inside"],
)
def test_bytes_of_two_tensors_or_of_none(tmp_path, refused, pairs, size, word):
    path = tmp_path / "w.safetensors"
    path.write_bytes(_raw(pairs, b"\0" * size))
    message = refused(path, HostileInput)
    assert "no whole safetensors file" in message
    assert word in message


def test_an_empty_alias_of_a_weight(tmp_path, state, refused):
    """A tensor of no numbers is allowed by the format, between any two; it is no weight."""
    tensors = {**state, "norm.bias": torch.zeros(0)}
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(tensors, path)
    assert "'norm.bias' has shape (0,)" in refused(path, ImportFailed)


def test_a_duplicate_is_refused_in_a_directory_too(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(_raw([("a", _entry(0, 8, [2])), ("a", _entry(0, 8, [2]))], b"\0" * 8))
    (tmp_path / "config.json").write_text('{"architecture": "small_test"}')
    with pytest.raises(HostileInput, match="names 'a' twice"):
        load_model(str(tmp_path))
