"""The linear solver alone, against factorisation and against scipy's solvers."""

import math

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor

from mbrl_bilevel.bilevel.linear_solve import (
    CG,
    Iterate,
    LinearSolution,
    Matvec,
    Method,
    MinimalResidual,
    Neumann,
    Status,
    dense,
    dot,
    largest_eigenvalue,
    solve,
)
from mbrl_bilevel.bilevel.parameters import ravel
from mbrl_bilevel.bilevel.problem import InnerGradient
from mbrl_bilevel.errors import InputError
from tests.bilevel.gaussian_problem import gaussian_problem

N = 30


def symmetric(eigenvalues: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    n = eigenvalues.shape[-1]
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    a = (q * eigenvalues) @ q.T
    return 0.5 * (a + a.T)


def system(condition: float, n: int = N, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A positive definite matrix of this condition number and a right-hand side."""
    eigenvalues = torch.logspace(0, -np.log10(condition), n, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed + 1)
    return symmetric(eigenvalues, seed), torch.randn(n, generator=generator, dtype=torch.float64)


def multiply(a: Tensor) -> Matvec:
    return lambda x: (a @ x.unsqueeze(-1)).squeeze(-1)


def relative_error(x: Tensor, reference: Tensor) -> float:
    return ((x - reference).norm() / reference.norm()).item()


# Attainable: the residual stalls at about 1e-16 |A| |x|, which is `condition` times larger than
# 1e-16 |b|; 100 times as much leaves room for the rounding of any processor. The solution is about
# `condition` |b| long, so that its relative error is about that of the residual; again 100 times.
CASES = [(1.0, 1e-14, 1e-12), (1e2, 1e-12, 1e-10), (1e4, 1e-10, 1e-8), (1e6, 1e-8, 1e-6)]


def check_cg(method: Method, condition: float, rtol: float, error: float) -> LinearSolution:
    """What a conjugate-gradient method has to do; the mutants of test_mutations fail here."""
    a, b = system(condition)
    solution = solve(multiply(a), b, method=method, rtol=rtol, max_iterations=20 * N)
    assert solution.status.item() == Status.CONVERGED
    # Chebyshev's bound on the steps; a fault that restarts can mend is slower.
    assert solution.iterations <= math.sqrt(condition) / 2 * math.log(2 * condition / rtol) + 1
    assert relative_error(solution.x, torch.linalg.solve(a, b)) < error
    residual = (b - a @ solution.x).norm()
    assert residual <= 1.1 * rtol * b.norm()  # computed afresh, with rounding of its own
    assert solution.residual_norm.item() == pytest.approx(residual.item(), rel=0.1, abs=1e-15)
    return solution


@pytest.mark.parametrize(("condition", "rtol", "error"), CASES)
def test_cg_equals_factorisation_and_scipy(condition: float, rtol: float, error: float) -> None:
    solution = check_cg(CG(), condition, rtol, error)
    a, b = system(condition)
    peers = (scipy.sparse.linalg.cg, scipy.sparse.linalg.minres)
    for peer in peers:
        x, info = peer(a.numpy(), b.numpy(), rtol=rtol, maxiter=40 * N)
        assert info == 0
        # minres measures its residual against |A| |x|, which is larger than |b|.
        slack = 1.0 if peer is peers[0] else condition
        assert relative_error(solution.x, torch.as_tensor(x)) < 3 * error * slack


def test_cg_needs_no_more_products_than_scipy() -> None:
    a, b = system(1e4)
    products = 0

    def count(x: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        return a.numpy() @ x

    operator = scipy.sparse.linalg.LinearOperator((N, N), matvec=count, dtype=np.float64)
    scipy.sparse.linalg.cg(operator, b.numpy(), rtol=1e-10, maxiter=1000)
    solution = solve(multiply(a), b, rtol=1e-10, max_iterations=1000)
    assert solution.iterations.item() <= 1.1 * products + 1  # rounding may cost a few


@pytest.mark.parametrize("method", [Neumann(), Neumann(step_size=1.5), MinimalResidual()])
def test_other_methods_reach_the_same_solution(method: Method) -> None:
    a, b = system(20.0)
    solution = solve(multiply(a), b, method=method, rtol=1e-13, max_iterations=2000)
    assert solution.status.item() == Status.CONVERGED
    assert relative_error(solution.x, torch.linalg.solve(a, b)) < 1e-12


def test_neumann_is_the_truncated_series() -> None:
    a, b = system(20.0)
    eta, terms = 0.7, 7
    series, term = torch.zeros_like(b), eta * b
    for _ in range(terms):
        series, term = series + term, term - eta * a @ term
    solution = solve(
        multiply(a), b, method=Neumann(eta), rtol=0.0, max_iterations=terms, check_every=None
    )
    torch.testing.assert_close(solution.x, series, rtol=1e-14, atol=1e-14)


def test_minimal_residual_never_lengthens_the_residual() -> None:
    a, b = system(1e4)
    x, last = torch.ones_like(b), float("inf")
    for _ in range(50):
        one = solve(
            multiply(a), b, method=MinimalResidual(), x0=x, max_iterations=1, check_every=None
        )
        x, residual = one.x, (b - a @ one.x).norm().item()
        assert residual <= last * (1 + 1e-12)
        last = residual


def test_one_unknown() -> None:
    a, b = torch.tensor([[4.0]], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    for method in (CG(), Neumann(), MinimalResidual()):
        solution = solve(multiply(a), b, method=method, rtol=1e-15)
        assert (solution.x.item(), solution.iterations.item()) == (0.5, 1)


@pytest.mark.parametrize("start", [None, torch.ones(N, dtype=torch.float64)])
def test_zero_right_hand_side(start: Tensor | None) -> None:
    a, _ = system(1e2)
    solution = solve(multiply(a), torch.zeros(N, dtype=torch.float64), x0=start)
    assert torch.equal(solution.x, torch.zeros(N, dtype=torch.float64))
    assert solution.status.item() == Status.CONVERGED
    assert solution.iterations.item() == 0


def test_warm_start() -> None:
    a, b = system(1e2)
    exact = torch.linalg.solve(a, b)
    at_once = solve(multiply(a), b, x0=exact, rtol=1e-12)
    assert at_once.iterations.item() == 0
    cold = solve(multiply(a), b, rtol=1e-10)
    warm = solve(multiply(a), b, x0=exact * (1 + 1e-6), rtol=1e-10)
    assert warm.status.item() == Status.CONVERGED
    assert warm.iterations.item() < cold.iterations.item()
    assert relative_error(warm.x, exact) < 1e-8


@pytest.mark.parametrize("method", [CG(), Neumann(), MinimalResidual()])
@pytest.mark.parametrize("negative", [1, N // 2, N])
def test_indefinite_is_said(method: Method, negative: int) -> None:
    eigenvalues = torch.linspace(1.0, 2.0, N, dtype=torch.float64)
    eigenvalues[:negative] *= -1
    b = torch.ones(N, dtype=torch.float64)
    solution = solve(multiply(symmetric(eigenvalues, 3)), b, method=method, max_iterations=500)
    assert solution.status.item() == Status.NEGATIVE_CURVATURE
    assert torch.isfinite(solution.x).all()


def test_a_singular_inconsistent_system_does_not_count_as_solved() -> None:
    a = torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64))
    solution = solve(multiply(a), torch.ones(3, dtype=torch.float64), max_iterations=50)
    assert solution.status.item() != Status.CONVERGED
    assert solution.residual_norm > 0.1


def test_a_singular_consistent_system_is_solved() -> None:
    a = torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64))
    b = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    solution = solve(multiply(a), b, rtol=1e-14)
    assert solution.status.item() == Status.CONVERGED
    torch.testing.assert_close(solution.x, torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64))


def test_too_few_iterations_are_said_with_the_true_residual() -> None:
    a, b = system(1e6)
    solution = solve(multiply(a), b, rtol=1e-10, max_iterations=5)
    assert solution.status.item() == Status.MAX_ITERATIONS
    assert solution.iterations.item() == 5
    assert solution.residual_norm.item() == pytest.approx((b - a @ solution.x).norm().item())


def test_a_tolerance_out_of_reach_is_never_claimed() -> None:
    a, b = system(1e6)
    solution = solve(multiply(a), b, rtol=1e-16, max_iterations=400)
    assert solution.status.item() == Status.MAX_ITERATIONS


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_is_said(bad: float) -> None:
    a, b = system(1e2)
    spoilt = a.clone()
    spoilt[3, 3] = bad
    assert solve(multiply(spoilt), b).status.item() == Status.NON_FINITE
    b[0] = bad
    assert solve(multiply(a), b).status.item() == Status.NON_FINITE


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_float32_squares_neither_vanish_nor_overflow(size: float) -> None:
    a, b = (t.float() for t in system(10.0))
    solution = solve(multiply(a), b * size, rtol=1e-5)
    assert solution.status.item() == Status.CONVERGED
    assert relative_error(solution.x.double() / size, torch.linalg.solve(a, b).double()) < 1e-4


def test_damping_shifts_the_eigenvalues() -> None:
    a, b = system(1e4)
    solution = solve(multiply(a), b, damping=0.3, rtol=1e-13)
    exact = torch.linalg.solve(a + 0.3 * torch.eye(N, dtype=torch.float64), b)
    assert relative_error(solution.x, exact) < 1e-12


def members() -> tuple[Tensor, Tensor]:
    """Five systems: well and badly conditioned, one indefinite, one with b = 0."""
    pairs = [system(c, seed=i) for i, c in enumerate((1.0, 10.0, 1e3, 10.0, 10.0))]
    a, b = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    a[3] -= 0.5 * torch.eye(N, dtype=torch.float64)
    b[4] = 0.0
    return a, b


@pytest.mark.parametrize("method", [CG(), Neumann(), MinimalResidual()])
@pytest.mark.parametrize("check_every", [1, 7])
def test_members_at_once_equal_members_one_by_one(method: Method, check_every: int) -> None:
    """600 iterations are far from every borderline.

    What converges needs less than half (CG about 60 for the worst system, Neumann 240 for condition
    10), what does not would need many times more.
    """
    a, b = members()
    together = solve(
        multiply(a), b, method=method, rtol=1e-11, max_iterations=600, check_every=check_every
    )
    done = Status.CONVERGED
    worst = done if isinstance(method, CG) else Status.MAX_ITERATIONS
    assert together.status.tolist() == [done, done, worst, Status.NEGATIVE_CURVATURE, done]
    for e in range(len(b)):
        alone = solve(multiply(a[e]), b[e], method=method, rtol=1e-11, max_iterations=600)
        assert together.status[e] == alone.status
        if alone.status != Status.NEGATIVE_CURVATURE:  # which has no solution to compare
            assert (together.x[e] - alone.x).norm() <= 1e-8 * alone.x.norm()


def test_a_fixed_budget_never_looks_and_takes_every_step() -> None:
    a, b = system(1e4)
    solution = solve(multiply(a), b, max_iterations=4, check_every=None)
    same = solve(multiply(a), b, max_iterations=4)
    assert solution.iterations.item() == 4
    assert torch.equal(solution.x, same.x)


def test_a_drifted_residual_is_found_out_and_repaired() -> None:
    """A method whose running residual lies converges all the same, by restarts."""

    class Optimist(CG):
        def step(self, at: Iterate, product: Tensor, curvature: Tensor) -> Iterate:
            x, r, p = super().step(at, product, curvature)
            return Iterate(x, torch.where(dot(r, r) < 1e-4, 0 * r, r), p)

    a, b = system(10.0)
    solution = solve(multiply(a), b, method=Optimist(), rtol=1e-12, max_iterations=500)
    assert solution.status.item() == Status.CONVERGED
    assert (b - a @ solution.x).norm() <= 1.0001e-12 * b.norm()
    short = solve(multiply(a), b, method=Optimist(), rtol=1e-12, max_iterations=10)
    assert short.status.item() == Status.MAX_ITERATIONS


@pytest.mark.parametrize(
    "bad",
    [{"damping": -1.0}, {"rtol": -1.0}, {"max_iterations": 0}, {"check_every": 0}],
)
def test_bad_arguments_are_named(bad: dict[str, float]) -> None:
    a, b = system(1.0)
    with pytest.raises(InputError, match=next(iter(bad))):
        solve(multiply(a), b, **bad)  # type: ignore[arg-type]


def test_steps_have_the_length_of_the_largest_curvature() -> None:
    """For every member on its own; the estimate comes from below, within 5 % after 30 products."""
    toy = gaussian_problem(3, members=4)
    inner = InnerGradient(toy.problem, toy.theta, toy.phi, toy.inner)
    flat = ravel(toy.theta, ensemble=True)
    truth = torch.linalg.eigvalsh(dense(inner.hessian_product, flat))[:, -1]
    found = largest_eigenvalue(inner.hessian_product, flat, 30).squeeze(-1)
    assert (found <= truth * (1 + 1e-12)).all()
    assert (found > 0.95 * truth).all()
