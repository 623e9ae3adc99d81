from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file, save_file
from torch import nn

from vit_deploy.proof.double import all_float64

NARROW = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: torch.zeros(3, dtype=dtype),
        lambda dtype: torch.arange(3, dtype=dtype),
        lambda dtype: torch.tensor([0.1], dtype=dtype),
        lambda dtype: torch.linspace(0, 1, 3, dtype=dtype),
        lambda dtype: torch.arange(3).to(dtype),
        lambda dtype: torch.arange(3).to("cpu", dtype),
        lambda dtype: torch.arange(3).to(dtype=dtype),
        lambda dtype: torch.arange(3).type(dtype),
        lambda dtype: torch.arange(3).new_ones(2, dtype=dtype),
        lambda dtype: torch.ones(3).softmax(-1, dtype=dtype),
        lambda dtype: F.softmax(torch.ones(3), dim=-1, dtype=dtype),
        lambda dtype: torch.ones(3).sum(dtype=dtype),
        lambda dtype: nn.Linear(2, 3, dtype=dtype).weight,
        lambda dtype: nn.Linear(2, 3).to(dtype).weight,
    ],
)
def test_a_narrow_dtype_is_read_as_float64(make, dtype):
    with all_float64() as mode:
        made = make(dtype)
    assert made.dtype == torch.float64
    assert not mode.narrow


@pytest.mark.parametrize("cast", ["float", "half", "bfloat16"])
def test_narrow_casts_are_wide(cast: str):
    third = torch.tensor(1, dtype=torch.float64) / 3
    with all_float64():
        assert getattr(third, cast)() == third
        assert third.type("torch.FloatTensor") == third
        assert getattr(nn.Linear(2, 3), cast)().weight.dtype == torch.float64


def test_the_default_dtype_is_float64_inside_alone():
    before = torch.get_default_dtype()
    with all_float64():
        assert torch.get_default_dtype() == torch.float64
        assert torch.ones(1).dtype == torch.float64
        assert nn.LayerNorm(3).weight.dtype == torch.float64
    assert torch.get_default_dtype() == before
    with pytest.raises(RuntimeError, match="halfway"), all_float64():
        raise RuntimeError("halfway")
    assert torch.get_default_dtype() == before
    assert torch.zeros(1, dtype=torch.float16).dtype == torch.float16


def test_what_is_no_narrow_number_stays():
    with all_float64():
        assert torch.arange(3).dtype == torch.int64
        assert torch.zeros(3, dtype=torch.int32).dtype == torch.int32
        assert torch.ones(3, dtype=torch.bool).to(torch.uint8).dtype == torch.uint8
        assert torch.zeros(3, dtype=torch.complex64).dtype == torch.complex64
        assert torch.finfo(torch.float32).bits == 32


def test_files_of_weights_are_read_as_they_are(tmp_path):
    state = {f"{dtype}": (torch.randn(5, 3) * 7).to(dtype) for dtype in (*NARROW, torch.float64)}
    torch.save(state, tmp_path / "w.pt")
    save_file(state, tmp_path / "w.safetensors")
    with all_float64():
        read = [torch.load(tmp_path / "w.pt", weights_only=True), load_file(tmp_path / "w.safetensors")]
        module = nn.Linear(3, 5, bias=False)
        module.load_state_dict({"weight": read[1]["torch.bfloat16"]})
    for found in read:
        for name, value in state.items():
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value)
    assert torch.equal(module.weight, state["torch.bfloat16"].double())


def test_narrow_numbers_are_told():
    import numpy as np

    table = torch.from_numpy(np.ones(3, dtype=np.float32))
    with all_float64() as mode:
        torch.ones(3) + 1
        assert not mode.narrow
        torch.ones(3) + table
    assert mode.narrow == {"torch.Tensor.add"}


class RotaryInFloat32(nn.Module):
    """The habits of libraries: a table in float32, positions and a norm cast down."""

    def __init__(self) -> None:
        super().__init__()
        frequencies = 1 / 10_000 ** (torch.arange(0, 8, 2, dtype=torch.int64).float() / 8)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        angles = torch.arange(x.shape[0], dtype=torch.float32)[:, None] * self.frequencies
        turned = x * angles.cos().to(x.dtype)
        return F.layer_norm(turned.to(torch.float32), (4,)).type_as(x)


def test_a_library_that_computes_in_float32_comes_out_exact():
    x = torch.randn(9, 4, dtype=torch.float64)
    frequencies = 1 / 10_000 ** (torch.arange(0, 8, 2).double() / 8)
    turned = x * (torch.arange(9).double()[:, None] * frequencies).cos()
    exact = F.layer_norm(turned, (4,))
    assert (RotaryInFloat32()(x) - exact).abs().max() > 1e-8
    with all_float64() as mode:
        found = RotaryInFloat32()(x)
    assert (found - exact).abs().max() < 1e-14
    assert not mode.narrow
