"""The matrices are the functions that the sources of checkpoints call."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from vit_deploy.model.config import Resampling
from vit_deploy.model.resample import interpolate_positions, interpolation_matrix, resample_grid

KERNELS = get_args(Resampling)
SIZES = [((4, 6), (8, 3)), ((14, 14), (14, 28)), ((7, 5), (37, 37)), ((1, 3), (2, 9)), ((16, 16), (1, 1))]


def grid(old: tuple[int, int], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(old[0] * old[1], 5, dtype=dtype, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_matrices_are_what_torch_interpolates(kernel: Resampling, old, new) -> None:
    expected = interpolate_positions(grid(old), old, new, kernel)
    torch.testing.assert_close(resample_grid(grid(old), old, new, kernel), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_at_its_own_size_a_grid_stays_as_it_is_to_the_bit(kernel: Resampling) -> None:
    for old in ((4, 6), (37, 37), (1, 3)):
        values = grid(old, torch.float32)
        assert torch.equal(resample_grid(values, old, old, kernel), values)
        assert interpolate_positions(values, old, old, kernel) is values


@pytest.mark.parametrize("kernel", KERNELS)
def test_in_float32_matrices_are_as_near_to_the_truth_as_torch_is(kernel: Resampling) -> None:
    old, new = (37, 37), (61, 24)
    exact = interpolate_positions(grid(old), old, new, kernel)
    values = grid(old).float()
    theirs = (interpolate_positions(values, old, new, kernel) - exact).norm()
    ours = (resample_grid(values, old, new, kernel) - exact).norm()
    assert ours <= 2 * theirs


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_row_of_a_matrix_adds_up_to_one(kernel: Resampling) -> None:
    matrix = interpolation_matrix(7, 19, kernel, torch.zeros(1, dtype=torch.float64))
    assert matrix.shape == (19, 7)
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(19, dtype=torch.float64))


def test_half_precision_positions_are_resampled_in_float32() -> None:
    values = grid((4, 6)).half()
    expected = interpolate_positions(values, (4, 6), (9, 9), "bicubic")
    assert expected.dtype == torch.float32
    found = resample_grid(values.float(), (4, 6), (9, 9), "bicubic")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert interpolation_matrix(4, 9, "bicubic", values).dtype == torch.float16
