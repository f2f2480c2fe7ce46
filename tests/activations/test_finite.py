"""One bad number among many is found, whatever the dtype; large finite ones are none."""

import pytest
import torch

from interp_transfer.activations.finite import all_finite

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [(0, 0), (3, 40), (499, 129)])
def test_one_bad_number_is_found(dtype: torch.dtype, bad: float, place: tuple[int, int]) -> None:
    rows = torch.randn(500, 130, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert all_finite(rows)
    rows[place] = bad
    assert not all_finite(rows)
    assert not all_finite(rows.T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_numbers_are_finite_and_so_is_nothing(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    assert all_finite(torch.full((50, 50), most, dtype=dtype))
    assert all_finite(torch.full((50, 50), -most, dtype=dtype))
    assert all_finite(torch.empty(0, 5, dtype=dtype))
