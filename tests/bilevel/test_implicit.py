"""Implicit hypergradients: exact and matrix-free, of hard Hessians, and what stands in for them."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.hypergradient import ConvergenceWarning
from mbrl_bilevel.bilevel.implicit import ExactDense, Implicit, first_order_direction
from mbrl_bilevel.bilevel.linear_solve import Status
from mbrl_bilevel.bilevel.parameters import Params, ravel, unravel
from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.bilevel.unrolled import Unrolled
from mbrl_bilevel.errors import InputError
from tests.bilevel.gaussian_problem import DTYPE, relative_error
from tests.bilevel.neural_problem import (
    DECAY,
    SolvedProblem,
    arguments,
    at_random,
    solved_value,
    toy,
)

Record = Callable[[str, object], None]


def problem(eigenvalues: list[float]) -> BilevelProblem:
    """An inner Hessian of these eigenvalues, none of its eigenvectors along a coordinate."""
    n = len(eigenvalues)
    generator = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    hessian = (q * torch.tensor(eigenvalues, dtype=torch.float64)) @ q.mT
    return BilevelProblem(
        lambda theta, phi, data: 0.5 * theta["t"] @ hessian @ theta["t"] - phi["p"] @ theta["t"],
        lambda theta, phi, data: theta["t"].square().sum(),
    )


def solved(eigenvalues: list[float], damping: float = 0.0) -> Status:
    ones = torch.ones(len(eigenvalues), dtype=torch.float64)
    hyper = ExactDense(damping)(problem(eigenvalues), {"t": ones}, {"p": ones}, None, None)
    assert hyper.linear is not None
    return Status(hyper.linear.status.item())


@pytest.mark.parametrize(
    ("smallest", "status"), [(1e-10, Status.CONVERGED), (-1e-10, Status.NEGATIVE_CURVATURE)]
)
def test_an_indefinite_hessian_is_solved_and_named(smallest: float, status: Status) -> None:
    assert solved([1.0, 0.3, smallest]) == status


@pytest.mark.situation("refused")
@pytest.mark.parametrize("smallest", [0.0, 1e-18, -1e-18])
def test_a_hessian_singular_to_rounding_is_refused(smallest: float) -> None:
    with pytest.raises(InputError, match="add damping"):
        solved([1.0, 0.3, smallest])
    assert solved([1.0, 0.3, smallest], damping=1e-6) == Status.CONVERGED


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


def central_difference(w: SolvedProblem, direction: Tensor, h: float) -> float:
    up, down = (unravel(ravel(w.phi) + s * h * direction, w.phi) for s in (1, -1))
    return (solved_value(w, up) - solved_value(w, down)) / (2 * h)


@pytest.mark.parametrize("seed", [0, 1])
def test_derivative_of_the_fully_solved_problem(seed: int, record_property: Record) -> None:
    """Central differences of F(phi) with theta*(phi) solved anew by Newton's method."""
    w = toy()
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(ravel(w.phi).shape, generator=generator, dtype=DTYPE)
    direction /= direction.norm()
    hyper = Implicit(rtol=1e-13, max_iterations=1000)(*arguments(w))
    slope = (ravel(hyper.grad) @ direction).item()
    sizes = (3e-2, 3e-3, 3e-5)
    errors = [abs(central_difference(w, direction, h) - slope) for h in sizes]
    order = math.log(errors[0] / errors[1]) / math.log(10)
    record_property("order", order)
    record_property("error", errors[2])
    assert 1.9 < order < 2.1
    assert errors[2] < 2e-10  # h^2 of truncation and 1e-16 / h of rounding meet near 1e-11
    assert hyper.inner_gradient_norm < 1e-13


def test_implicit_equals_dense(record_property: Record) -> None:
    exact = ExactDense()(*arguments(toy()))
    error = relative_error(
        Implicit(rtol=1e-13, max_iterations=1000)(*arguments(toy())).grad, exact.grad
    )
    record_property("error", error)
    assert error < 1e-12


def test_the_error_is_proportional_to_the_inner_gradient(record_property: Record) -> None:
    """Half as far from theta*, half the error: the reason to log `inner_gradient_norm`."""
    w = toy()
    exact = ExactDense()(*arguments(w)).grad
    generator = torch.Generator().manual_seed(4)
    away = torch.randn(ravel(w.theta).shape, generator=generator, dtype=DTYPE)
    errors, norms = [], []
    for size in (1e-5, 1e-6):
        theta = unravel(ravel(w.theta) + size * away, w.theta)
        hyper = ExactDense()(*arguments(w._replace(theta=theta)))
        errors.append(relative_error(hyper.grad, exact))
        norms.append(hyper.inner_gradient_norm.item())
    ratio = math.log(errors[0] / errors[1]) / math.log(norms[0] / norms[1])
    record_property("order", ratio)
    assert 0.9 < ratio < 1.1


def test_an_indefinite_hessian_is_said_and_gauss_newton_solves_it() -> None:
    w = at_random()
    with pytest.warns(ConvergenceWarning, match="negative_curvature"):
        stopped = Implicit()(*arguments(w))
    assert stopped.linear is not None
    assert stopped.linear.status.item() == Status.NEGATIVE_CURVATURE
    assert ExactDense()(*arguments(w)).metrics()["linear_status"] == Status.NEGATIVE_CURVATURE
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solved = Implicit(curvature=GaussNewton(), damping=DECAY)(*arguments(w))
    assert solved.linear is not None
    assert solved.linear.status.item() == Status.CONVERGED
