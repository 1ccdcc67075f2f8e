"""The bound on log deviations: never passed, monotone, and inverted."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mbrl_bilevel.models.soft_bound import soft_bound, soft_bound_inverse


@given(st.floats(-1e6, 1e6), st.floats(-12, 0), st.floats(0.5, 40))
def test_no_value_passes_the_soft_bound(value, low, width):
    bounded = soft_bound(torch.tensor(value, dtype=torch.float64), low, low + width).item()
    assert low - 1e-9 <= bounded <= low + width + 1e-9  # up to rounding


def test_the_soft_bound_is_monotone_and_inverted():
    value = torch.linspace(-14, 6, 400, dtype=torch.float64)
    bounded = soft_bound(value, -10.0, 2.0)
    assert (bounded.diff() > 0).all()
    torch.testing.assert_close(soft_bound_inverse(bounded, -10.0, 2.0), value, rtol=0, atol=1e-8)


def two_softplus(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """The definition, by log(1 + e^z) without an approximation for large z."""

    def softplus(z: torch.Tensor) -> torch.Tensor:
        return torch.logaddexp(z, torch.zeros_like(z))

    value = high - softplus(high - value)
    return low + softplus(value - low) * (high - low) / softplus(value.new_tensor(high - low))


@pytest.mark.parametrize(("low", "high"), [(-10.0, 2.0), (-3.0, -1.0), (-25.0, 4.9), (-60.0, 5.0)])
def test_the_soft_bound_is_the_definition_by_two_softplus(low, high):
    """Values and both derivatives; torch's own softplus is z beyond 20, which costs 3e-9."""
    value = torch.linspace(low - 40, high + 40, 2001, dtype=torch.float64, requires_grad=True)
    found, expected = soft_bound(value, low, high), two_softplus(value, low, high)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    slopes = [torch.autograd.grad(y.sum(), value, create_graph=True)[0] for y in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-8)
    curves = [torch.autograd.grad(y.sum(), value)[0] for y in slopes]
    torch.testing.assert_close(*curves, rtol=0, atol=1e-8)


def test_in_float32_the_soft_bound_rounds_by_little_and_stays_finite():
    value = torch.linspace(-300, 300, 4001, requires_grad=True)
    found = soft_bound(value, -10.0, 2.0)
    expected = two_softplus(value.detach().double(), -10.0, 2.0)
    # two float32 roundings of numbers up to 12
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-6)
    found.sum().backward()
    assert value.grad is not None
    assert value.grad.isfinite().all()
    ends = soft_bound(torch.tensor([-torch.inf, torch.inf]), -10.0, 2.0)
    torch.testing.assert_close(ends, torch.tensor([-10.0, 2.0]))
