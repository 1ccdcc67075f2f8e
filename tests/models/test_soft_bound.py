"""The bound on log deviations: never passed, monotone, and inverted."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mbrl_bilevel.models.soft_bound import soft_bound, soft_bound_inverse


@given(st.floats(-1e6, 1e6), st.floats(-12, 0), st.floats(0.5, 6))
def test_no_value_passes_the_soft_bound(value, low, width):
    bounded = soft_bound(torch.tensor(value, dtype=torch.float64), low, low + width).item()
    assert low - 1e-9 <= bounded <= low + width + 1e-9  # up to rounding


def test_the_soft_bound_is_monotone_and_inverted():
    value = torch.linspace(-14, 6, 400, dtype=torch.float64)
    bounded = soft_bound(value, -10.0, 2.0)
    assert (bounded.diff() > 0).all()
    torch.testing.assert_close(soft_bound_inverse(bounded, -10.0, 2.0), value, rtol=0, atol=1e-8)
