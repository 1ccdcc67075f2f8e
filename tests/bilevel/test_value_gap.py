"""The value-gap hypergradient: its order in nu, and few steps of it."""

import math
from collections.abc import Callable

import pytest
import torch

from mbrl_bilevel.bilevel.implicit import ExactDense
from mbrl_bilevel.bilevel.unrolled import Unrolled
from mbrl_bilevel.bilevel.value_gap import ValueGap
from mbrl_bilevel.errors import InputError
from tests.bilevel.gaussian_problem import DTYPE, gaussian_problem, relative_error
from tests.bilevel.neural_problem import (
    arguments,
    newton,
    toy,
)

Record = Callable[[str, object], None]


def test_value_gap_orders(record_property: Record) -> None:
    """Error O(nu) one-sided and O(nu^2) central, the penalised problems solved to rounding."""
    w = toy()
    exact = ExactDense()(*arguments(w)).grad
    for order, low, high in ((1, 0.85, 1.15), (2, 1.85, 2.15)):
        errors = [
            relative_error(ValueGap(nu, order, minimiser=newton)(*arguments(w)).grad, exact)
            for nu in (1e-3, 1e-4)
        ]
        slope = math.log10(errors[0] / errors[1])
        record_property(f"order_{order}", slope)
        record_property(f"error_{order}", errors[0])
        assert low < slope < high


@pytest.mark.parametrize(
    ("dtype", "nu", "error"), [(DTYPE, 1e-5, 1e-6), (torch.float32, 3e-4, 1e-2)]
)
def test_a_value_gap_of_few_steps_is_unrolling_by_first_derivatives(
    dtype: torch.dtype, nu: float, error: float
) -> None:
    """From theta*, 5 steps of one length: they differ by the penalty's and by rounding error.

    Both are proportional to 1e-16 (1e-7) over nu, or to nu squared.
    """
    toy = gaussian_problem(3, members=2)
    theta = {k: v.to(dtype) for k, v in toy.theta.items()}
    phi = {k: v.to(dtype) for k, v in toy.phi.items()}
    inner, outer = (tuple(p.to(dtype) for p in d) for d in (toy.inner, toy.outer))
    arguments = (toy.problem, theta, phi, inner, outer)
    by_steps = ValueGap(nu, steps=5)(*arguments)
    assert by_steps.state is None
    assert relative_error(by_steps.grad, Unrolled(5)(*arguments).grad) < error


def test_a_value_gap_of_no_steps_is_refused() -> None:
    with pytest.raises(InputError, match="0 gradient steps"):
        ValueGap(steps=0)
