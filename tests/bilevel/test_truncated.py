"""Estimates that stop short of a solved system: fallbacks, and few steps of a measured length."""

import math

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.implicit import Implicit, first_order_direction
from mbrl_bilevel.bilevel.linear_solve import dense, largest_eigenvalue
from mbrl_bilevel.bilevel.parameters import Params, ravel
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient
from mbrl_bilevel.bilevel.soba import Soba
from mbrl_bilevel.bilevel.unrolled import Unrolled
from mbrl_bilevel.bilevel.value_gap import ValueGap
from mbrl_bilevel.errors import InputError
from tests.bilevel.gaussian_problem import DTYPE, gaussian_problem, relative_error

B = torch.tensor([1.0, -2.0, 0.5], dtype=DTYPE)


def quadratics(*hessians: Tensor) -> tuple[BilevelProblem, Params, Params]:
    """One member per Hessian A: inner theta^T A theta / 2 - phi^T theta, outer B^T theta."""
    A = torch.stack(hessians)

    def inner(theta: Params, phi: Params, data: object) -> Tensor:
        half = 0.5 * torch.einsum("ei,eij,ej->e", theta["t"], A, theta["t"])
        return half - (phi["p"] * theta["t"]).sum(-1)

    def outer(theta: Params, phi: Params, data: object) -> Tensor:
        return (theta["t"] @ B).sum()

    members = len(hessians)
    theta = {"t": torch.zeros(members, 3, dtype=DTYPE)}
    return (
        BilevelProblem(inner, outer, ensemble=True),
        theta,
        {"p": torch.zeros(members, 3, dtype=DTYPE)},
    )


GOOD = torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=DTYPE))
SADDLE = torch.diag(torch.tensor([1.0, -8.0, 4.0], dtype=DTYPE))
BROKEN = torch.full((3, 3), math.nan, dtype=DTYPE)


def test_a_solve_that_failed_takes_the_first_order_direction_and_is_counted() -> None:
    """dF/dphi of a member is v: H^-1 b where that was found, b / |curvature along b| elsewhere."""
    problem, theta, phi = quadratics(GOOD, SADDLE, BROKEN)
    start = torch.full((3, 3), 50.0, dtype=DTYPE)  # far from any solution, as a warm start can be
    hyper = Implicit(max_residual=1.0, warn=False)(problem, theta, phi, None, None, start)
    along = (B @ SADDLE @ B / (B @ B)).abs()
    expected = torch.stack([B / GOOD.diagonal(), B / along, torch.zeros(3, dtype=DTYPE)])
    torch.testing.assert_close(hyper.state, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(hyper.grad["p"][:2], expected[:2], rtol=1e-5, atol=1e-6)
    assert hyper.metrics()["linear_fallbacks"].item() == 2
    without = Implicit(warn=False)(problem, theta, phi, None, None, start)
    assert "linear_fallbacks" not in without.metrics()
    assert without.state is not None
    assert without.state[1].norm() > 50  # what the fallback protects from


def test_the_first_order_direction_is_one_inner_step() -> None:
    """The hypergradient with it equals that of `Unrolled(1)` at the step size it names."""
    problem, theta, phi = quadratics(SADDLE)
    curvature = (B @ SADDLE @ B / (B @ B)).abs().item()
    step = Unrolled(1, 1 / curvature)(problem, theta, phi, None, None)
    v = first_order_direction(lambda x: x @ SADDLE, B.unsqueeze(0))
    torch.testing.assert_close(step.grad["p"], v, rtol=1e-14, atol=0)
    flat = first_order_direction(lambda x: 0 * x, B)
    assert torch.equal(flat, torch.zeros(3, dtype=DTYPE))
    zero = first_order_direction(lambda x: x, 0 * B)
    assert torch.equal(zero, torch.zeros(3, dtype=DTYPE))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_residual_that_is_no_bound_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="max_residual"):
        Implicit(max_residual=bad)


def test_steps_have_the_length_of_the_largest_curvature() -> None:
    """For every member on its own; the estimate comes from below, within 5 % after 30 products."""
    toy = gaussian_problem(3, members=4)
    inner = InnerGradient(toy.problem, toy.theta, toy.phi, toy.inner)
    flat = ravel(toy.theta, ensemble=True)
    truth = torch.linalg.eigvalsh(dense(inner.hessian_product, flat))[:, -1]
    found = largest_eigenvalue(inner.hessian_product, flat, 30).squeeze(-1)
    assert (found <= truth * (1 + 1e-12)).all()
    assert (found > 0.95 * truth).all()


def test_unrolling_at_a_measured_length_converges() -> None:
    toy = gaussian_problem(3, members=2)
    hyper = Unrolled(400)(toy.problem, toy.theta, toy.phi, toy.inner, toy.outer)
    assert relative_error(hyper.grad, toy.gradient()) < 1e-9


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


def test_a_direction_that_is_not_finite_does_not_stay_in_a_moving_average() -> None:
    toy = gaussian_problem(2)

    def outer(theta: Params, phi: Params, data: tuple[Tensor, Tensor]) -> Tensor:
        return toy.problem.outer(theta, phi, data) + (phi["L"] * data[1].mean()).sum()

    soba = Soba(toy.problem._replace(outer=outer), GaussNewton(), averaging=0.25)
    first = soba.step(toy.theta, toy.phi, toy.inner, toy.outer).grad
    kept = {k: g.clone() for k, g in first.items()}
    x, y = toy.outer
    spoilt = soba.step(toy.theta, toy.phi, toy.inner, (x, y * math.nan)).grad
    assert torch.equal(spoilt["L"], kept["L"])
    assert soba.v is not None
    assert soba.v.isfinite().all()
    after = soba.step(toy.theta, toy.phi, toy.inner, toy.outer).grad
    assert all(g.isfinite().all() for g in after.values())
