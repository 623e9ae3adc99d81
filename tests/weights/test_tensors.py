"""Lazy tensors, and the safetensors writer."""

from __future__ import annotations

import io

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.weights.safetensors_file import read_safetensors
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
