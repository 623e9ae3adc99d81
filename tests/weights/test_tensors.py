"""Lazy tensors, and the safetensors writer."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.weights.hashes import sha256_later
from vit_deploy.weights.safetensors_file import read_safetensors
from vit_deploy.weights.source import Source
from vit_deploy.weights.tensors import Weights, WeightTensor, concatenate, write_safetensors


def _weights(tensors):
    return Weights(
        WeightTensor(
            name, tuple(value.shape), str(value.dtype).removeprefix("torch."), lambda value=value: value
        )
        for name, value in tensors.items()
    )


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda s: s != "__metadata__"
)
shapes = st.lists(st.integers(1, 4), max_size=3)
dtypes = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, st.tuples(shapes, dtypes), min_size=1, max_size=5), st.integers(0, 2**31))
def test_what_is_written_is_what_safetensors_reads(described, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=generator).to(dtype) for name, (shape, dtype) in described.items()
    }
    target = io.BytesIO()
    sha256 = write_safetensors(_weights(tensors), target)
    read = safetensors.torch.load(target.getvalue())
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor.float())
    again = io.BytesIO()
    assert write_safetensors(_weights(dict(reversed(tensors.items()))), again) == sha256
    assert again.getvalue() == target.getvalue()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_reading_is_lazy_and_exact(tmp_path, dtype):
    tensors = {"a": torch.randn(3, 5).to(dtype), "b": torch.randn(()).to(dtype)}
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    weights = read_safetensors(tmp_path / "w.safetensors")
    assert {name: tensor.shape for name, tensor in weights.items()} == {"a": (3, 5), "b": ()}
    assert weights["a"].dtype == str(dtype).removeprefix("torch.")
    assert torch.equal(weights["a"].read(), tensors["a"])
    assert torch.equal(weights.as_float32()["b"].read(), tensors["b"].float())
    unread = read_safetensors(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").unlink()
    with pytest.raises(HostileInput, match="cannot be read"):
        unread["a"].read()


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"a": torch.ones(8)}, path)
    weights = read_safetensors(path)
    safetensors.torch.save_file({"a": torch.ones(4)}, path)
    with pytest.raises(HostileInput, match="the file has changed"):
        weights["a"].read()


def test_concatenated_parts():
    parts = {"q": torch.randn(2, 3), "k": torch.randn(4, 3)}
    joined = concatenate("qk", _weights(parts).values())
    assert (joined.name, joined.shape) == ("qk", (6, 3))
    assert torch.equal(joined.read(), torch.cat(list(parts.values())))


def test_integers_are_no_weights():
    with pytest.raises(ImportFailed, match="dtype int8"):
        _weights({"a": torch.ones(2, dtype=torch.int8)}).as_float32()


def test_reading_ahead_keeps_order_and_raises_in_turn():
    from vit_deploy.weights.tensors import ahead

    assert list(ahead([lambda i=i: i for i in range(5)])) == [0, 1, 2, 3, 4]
    assert list(ahead([])) == []
    reads = ahead([lambda: 1, lambda: 1 / 0])
    assert next(reads) == 1
    with pytest.raises(ZeroDivisionError):
        next(reads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [0, 1, 3, (1 << 21) // 4 + 5])
def test_what_is_not_finite_is_counted_without_being_kept(tmp_path, monkeypatch, dtype, size):
    """In pieces of a buffer, of which the last is not full."""
    values = torch.randn(size).to(dtype)
    expected = 0
    if size > 1:
        values[-1], values[0], expected = float("nan"), float("inf"), 2
    safetensors.torch.save_file({"a": values, "b": torch.ones(3)}, tmp_path / "w")
    weights = read_safetensors(tmp_path / "w")
    assert weights["a"].nonfinite() == expected
    assert weights["b"].nonfinite() == 0
    monkeypatch.setattr(WeightTensor, "read", lambda self: pytest.fail("was read"))
    joined = concatenate("ab", [weights["b"], weights["a"]]).renamed("c")
    assert joined.nonfinite() == expected
    turned = weights["b"].rearranged("t", (3, 1), lambda tensor: tensor[:, None])
    assert turned.nonfinite() == 0
    if dtype != torch.float64:  # of which the rounded values are looked at
        assert joined.as_float32().nonfinite() == expected


def test_float64_may_overflow():
    assert _weights({"a": torch.tensor([1e300], dtype=torch.float64)})["a"].nonfinite() == 0
    assert _weights({"a": torch.tensor([1e300], dtype=torch.float64)}).as_float32()["a"].nonfinite() == 1


def test_a_file_that_is_changed_in_place(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"a": torch.ones(8)}, path)
    weights = read_safetensors(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))
    with pytest.raises(HostileInput, match="the file has changed"):
        weights["a"].nonfinite()


def test_parts_of_a_stack():
    stack = torch.arange(24.0).reshape(4, 2, 3)
    weight = _weights({"a": stack})["a"]
    assert torch.equal(weight.at(2, "b").read(), stack[2])
    assert weight.at(2, "b").shape == (2, 3)


def test_a_name_twice():
    one, same, other = (_weights({"a": torch.full((2,), value)})["a"] for value in (1.0, 1.0, 2.0))
    assert len(Weights([one, same])) == 1
    with pytest.raises(HostileInput, match="'a' twice, with different values"):
        Weights([one, other])


def test_nothing_is_hashed_before_it_is_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "w"
    path.write_bytes(b"weights")
    source = Source("timm", "vit", sha256_later(path))
    assert replace(source, sha256="0" * 64).sha256 == "0" * 64
    assert source.sha256 == hashlib.sha256(b"weights").hexdigest()
    path.unlink()
    assert source.sha256 == source.sha256  # it is known now
    assert Source("timm", "vit", source.sha256) == source


def test_a_file_that_is_changed_before_it_is_hashed(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"weights")
    changed, gone = Source("timm", "vit", sha256_later(path)), Source("timm", "vit", sha256_later(path))
    path.write_bytes(b"others!!")
    with pytest.raises(HostileInput, match="is no longer the checkpoint that was loaded"):
        _ = changed.sha256
    path.unlink()
    with pytest.raises(HostileInput, match="No such file"):
        _ = gone.sha256
