"""Rows are finite where torch says so of each number."""

import itertools

import pytest
import torch

from mbrl_bilevel.finite import finite_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_finite_where_each_number_is(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    numbers = [0.0, -1.5, largest, -largest, torch.inf, -torch.inf, torch.nan]
    x = torch.tensor(list(itertools.product(numbers, repeat=3)), dtype=dtype).reshape(7, 49, 3)
    assert torch.equal(finite_rows(x), x.isfinite().all(-1))
    assert torch.equal(finite_rows(x.transpose(0, 1)), x.isfinite().all(-1).mT)
