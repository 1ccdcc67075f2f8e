"""Every estimator against the closed form of theory T2 to T6, and symmetries of the problem."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.bilevel.closed_form import mahalanobis_gradient, mahalanobis_value, to_cholesky
from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.hypergradient import Estimator
from mbrl_bilevel.bilevel.implicit import ExactDense, Implicit
from mbrl_bilevel.bilevel.linear_solve import MinimalResidual, Neumann, Status
from mbrl_bilevel.bilevel.minimise import minimise
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient
from mbrl_bilevel.bilevel.unrolled import Unrolled
from mbrl_bilevel.bilevel.value_gap import ValueGap
from tests.bilevel.gaussian_problem import (
    DTYPE,
    EXACT,
    SolvedProblem,
    estimate,
    gaussian_problem,
    inner_solution,
    negative_J,
    negative_log_likelihood,
    predict,
    relative_error,
    sample_nll,
)

Record = Callable[[str, object], None]
# Direct solves are limited by rounding times the condition number (about 10), the others by
# their own parameters: truncation of the series, of the unrolled steps, and nu^2.
ESTIMATORS = [
    pytest.param(ExactDense(), 1e-13, id="exact_dense"),
    pytest.param(EXACT, 1e-13, id="implicit"),
    pytest.param(Implicit(method=Neumann(), rtol=1e-13, max_iterations=3000), 1e-12, id="neumann"),
    pytest.param(
        Implicit(method=MinimalResidual(), rtol=1e-13, max_iterations=3000), 1e-12, id="minres_step"
    ),
    pytest.param(
        Implicit(curvature=GaussNewton(), rtol=1e-14, max_iterations=1000), 1e-13, id="gauss_newton"
    ),
    pytest.param(Unrolled(steps=100, step_size=0.2), 1e-12, id="unrolled"),
    pytest.param(ValueGap(nu=1e-3), 1e-5, id="value_gap"),
]


@pytest.mark.parametrize(("estimator", "tolerance"), ESTIMATORS)
@pytest.mark.parametrize("n", [1, 3])
def test_every_estimator_equals_the_closed_form(
    estimator: Estimator, tolerance: float, n: int, record_property: Record
) -> None:
    toy = gaussian_problem(n)
    error = relative_error(estimate(toy, estimator), toy.gradient())
    record_property("error", error)
    assert error < tolerance


def test_seventeen_dimensions(record_property: Record) -> None:
    toy = gaussian_problem(17, rows=60)
    error = relative_error(estimate(toy, EXACT), toy.gradient())
    record_property("error", error)
    assert error < 1e-12


def test_theta_star_and_value(record_property: Record) -> None:
    """The inner gradient vanishes at theory T3's solution, and F there is theory T6's."""
    toy = gaussian_problem(3)
    gradient = InnerGradient(toy.problem, toy.theta, toy.phi, toy.inner)
    value = negative_log_likelihood(toy.theta, toy.phi, toy.outer)
    expected = mahalanobis_value(toy.U, toy.residual_covariance, toy.lam.item())
    record_property("gradient", gradient.norm.item())
    record_property("value", abs((value - expected).item()))
    assert gradient.norm < 1e-13
    assert abs(value - expected) < 1e-13


def test_theta_star_is_found_from_elsewhere() -> None:
    toy = gaussian_problem(2)
    start = {k: torch.zeros_like(v) for k, v in toy.theta.items()}
    found = minimise(
        lambda theta: toy.problem.inner_loss(theta, toy.phi, toy.inner),
        start,
        tolerance=1e-11,
    )
    assert relative_error(found, toy.theta) < 1e-8


@pytest.mark.parametrize("u", [0.1, 0.32, 0.6, 1.0])
@pytest.mark.parametrize("estimator", [ExactDense(), EXACT])
def test_unit_values_of_a_scalar_reward(u: float, estimator: Estimator) -> None:
    """dNLL/du = -1/(2u) + s^2/lam: a 0-dimensional outer variable, and 0-dimensional theta."""
    s, lam = 1.25, 1.0
    y = torch.tensor([-s, s], dtype=DTYPE)

    def inner(theta: Params, phi: Params, y: Tensor) -> Tensor:
        fit = (theta["mean"] - y).square().mean() + (2 * theta["log_std"]).exp()
        return phi["u"] * fit - lam * theta["log_std"]

    def outer(theta: Params, phi: Params, y: Tensor) -> Tensor:
        z = (theta["mean"] - y) * (-theta["log_std"]).exp()
        return (0.5 * z.square()).mean() + theta["log_std"]

    phi = {"u": torch.tensor(u, dtype=DTYPE)}
    log_std = 0.5 * torch.log(torch.tensor(lam / (2 * u), dtype=DTYPE))
    theta = {"mean": torch.zeros((), dtype=DTYPE), "log_std": log_std}
    hyper = estimator(BilevelProblem(inner, outer), theta, phi, y, y)
    assert hyper.grad["u"].shape == ()
    assert hyper.grad["u"].item() == pytest.approx(-1 / (2 * u) + s**2 / lam, abs=1e-13)


@pytest.mark.parametrize("estimator", [ExactDense(), EXACT])
def test_no_gradient_at_the_optimum(estimator: Estimator, record_property: Record) -> None:
    """At U* = (lam/2) S_res^-1 (theory T4) nothing is left, and F is the likelihood's optimum."""
    toy = gaussian_problem(3)
    best = torch.linalg.cholesky(0.5 * toy.lam * torch.linalg.inv(toy.residual_covariance))
    phi = {**toy.phi, "L": best}
    toy = toy._replace(phi=phi, theta=inner_solution(phi, toy.inner))
    hyper = estimator(toy.problem, toy.theta, toy.phi, toy.inner, toy.outer)
    size = max(g.abs().max().item() for g in hyper.grad.values())
    n = toy.U.shape[-1]
    logdet = torch.linalg.slogdet(toy.residual_covariance).logabsdet.item()
    maximum_likelihood = 0.5 * logdet + 0.5 * n * (1 + math.log(2 * math.pi))
    record_property("gradient", size)
    record_property("value", abs(hyper.outer_loss.item() - maximum_likelihood))
    assert size < 1e-13
    assert hyper.outer_loss.item() == pytest.approx(maximum_likelihood, abs=1e-13)


def test_input_dependent_reward(record_property: Record) -> None:
    """U(x) of four contexts: dF/dU(x) = w(x) (S_res(x)/lam - U(x)^-1/2), solved all at once."""
    contexts, n, rows, lam = 4, 2, 30, 1.3
    generator = torch.Generator().manual_seed(1)
    y_in, y_out = (
        torch.randn(contexts, rows, n, generator=generator, dtype=DTYPE) for _ in range(2)
    )
    weight = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DTYPE)
    noise = torch.randn(contexts, n, n, generator=generator, dtype=DTYPE)
    phi = {"L": (torch.eye(n, dtype=DTYPE) + 0.2 * noise).tril()}
    shared = {"log_lam": torch.tensor(lam, dtype=DTYPE).log()}

    def tabular(theta: Params, y: Tensor) -> tuple[Params, tuple[Tensor, Tensor]]:
        return {**theta, "W": y.new_zeros(contexts, 1, n)}, (y.new_zeros(contexts, rows, 1), y)

    def inner(theta: Params, phi: Params, y: Tensor) -> Tensor:
        table, data = tabular(theta, y)
        return (weight * negative_J(predict(table, data), {**phi, **shared}, data)).sum()

    def outer(theta: Params, phi: Params, y: Tensor) -> Tensor:
        return (weight * sample_nll(*tabular(theta, y)).mean(-1)).sum()

    solved = [
        inner_solution({"L": L, **shared}, (y.new_zeros(rows, 1), y))
        for L, y in zip(phi["L"], y_in, strict=True)
    ]
    theta = {k: torch.stack([s[k] for s in solved]) for k in ("log_diagonal", "off")}
    theta["c"] = y_in.mean(1)
    hyper = EXACT(BilevelProblem(inner, outer), theta, phi, y_in, y_out)
    residual = y_out - theta["c"].unsqueeze(1)
    each = residual.unsqueeze(-1) * residual.unsqueeze(-2)
    U = (phi["L"] @ phi["L"].mT).unsqueeze(1).expand_as(each)
    per_sample = to_cholesky(
        mahalanobis_gradient(U, each, lam), phi["L"].unsqueeze(1).expand_as(each)
    )
    expected = {"L": weight.view(-1, 1, 1) * per_sample.mean(1)}
    error = relative_error(hyper.grad, expected)
    record_property("error", error)
    assert error < 1e-13


@pytest.mark.parametrize(
    "estimator",
    [
        ExactDense(),
        EXACT,
        Implicit(curvature=GaussNewton(), rtol=1e-14, max_iterations=1000),
        Unrolled(steps=100, step_size=0.2),
    ],
)
def test_an_ensemble_equals_its_members_one_by_one(
    estimator: Estimator, record_property: Record
) -> None:
    """Members have inner data of their own; the outer loss is their mean, so is the gradient."""
    members = 4
    toy = gaussian_problem(2, members=members)
    together = estimator(toy.problem, toy.theta, toy.phi, toy.inner, toy.outer)
    single = toy.problem._replace(ensemble=False)
    alone = [
        estimator(
            single,
            {k: v[e] for k, v in toy.theta.items()},
            toy.phi,
            tuple(part[e] for part in toy.inner),
            toy.outer,
        )
        for e in range(members)
    ]
    mean = {k: torch.stack([a.grad[k] for a in alone]).mean(0) for k in toy.phi}
    error = relative_error(together.grad, mean)
    record_property("error", error)
    assert error < 1e-13
    assert relative_error(together.grad, toy.gradient()) < 1e-12
    assert together.inner_gradient_norm.shape == (members,)


@pytest.mark.parametrize("estimator", [ExactDense(), Implicit(), Unrolled(100, 0.2)])
def test_float32_is_close_to_float64(estimator: Estimator, record_property: Record) -> None:
    toy = gaussian_problem(3)
    single = SolvedProblem(
        toy.problem,
        {k: v.float() for k, v in toy.theta.items()},
        {k: v.float() for k, v in toy.phi.items()},
        tuple(part.float() for part in toy.inner),
        tuple(part.float() for part in toy.outer),
        toy.residual_covariance,
    )
    found = {k: g.double() for k, g in estimate(single, estimator).items()}
    error = relative_error(found, toy.gradient())
    record_property("error", error)
    assert error < 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_equals_cpu() -> None:
    toy = gaussian_problem(3, members=4)
    moved = SolvedProblem(
        toy.problem,
        {k: v.cuda() for k, v in toy.theta.items()},
        {k: v.cuda() for k, v in toy.phi.items()},
        tuple(part.cuda() for part in toy.inner),
        tuple(part.cuda() for part in toy.outer),
        toy.residual_covariance,
    )
    found = {k: g.cpu() for k, g in estimate(moved, EXACT).items()}
    assert relative_error(found, estimate(toy, EXACT)) < 1e-12


def test_the_state_is_a_warm_start() -> None:
    toy = gaussian_problem(3)
    args = (toy.problem, toy.theta, toy.phi, toy.inner, toy.outer)
    first = EXACT(*args)
    assert first.linear is not None
    assert first.linear.status.item() == Status.CONVERGED
    again = Implicit(rtol=1e-12)(*args, state=first.state)
    assert again.linear is not None
    assert again.linear.iterations.item() == 0
    assert relative_error(again.grad, first.grad) < 1e-13


def test_adding_to_the_reward_changes_nothing() -> None:
    """A term c(x, y; phi) of the reward: exactly the same gradient, exactly zero for its phi."""
    toy = gaussian_problem(3)

    def shifted(theta: Params, phi: Params, data: tuple[Tensor, Tensor]) -> Tensor:
        x, y = data
        return toy.problem.inner(theta, phi, data) - (phi["shift"] * x * y[:, :2]).sum(-1).mean()

    phi = {**toy.phi, "shift": torch.tensor(1.7, dtype=DTYPE)}
    problem = BilevelProblem(shifted, toy.problem.outer)
    hyper = EXACT(problem, toy.theta, phi, toy.inner, toy.outer)
    plain = estimate(toy, EXACT)
    assert hyper.grad["shift"].item() == 0.0
    assert all(torch.equal(hyper.grad[k], plain[k]) for k in plain)


def test_reward_and_temperature_have_one_scale(record_property: Record) -> None:
    """(U, lam) -> (cU, c lam) leaves theta* alone: <dF/dL, L>/2 + dF/d(log lam) = 0."""
    toy = gaussian_problem(3)
    grad = estimate(toy, EXACT)
    along = 0.5 * (grad["L"] * toy.phi["L"]).sum() + grad["log_lam"]
    record_property("error", abs(along.item()))
    assert abs(along) < 1e-13
    c = 3.0
    scaled = {"L": c**0.5 * toy.phi["L"], "log_lam": toy.phi["log_lam"] + math.log(c)}
    moved = estimate(toy._replace(phi=scaled), EXACT)
    expected = {"L": grad["L"] / c**0.5, "log_lam": grad["log_lam"]}
    assert relative_error(moved, expected) < 1e-13


def test_rotated_targets_rotate_the_gradient(record_property: Record) -> None:
    """y -> y Q, U -> Q^T U Q: dF/dU turns along, whatever triangular factors stand in between."""
    n = 3
    toy = gaussian_problem(n)
    generator = torch.Generator().manual_seed(5)
    Q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=DTYPE))
    turned = {**toy.phi, "L": torch.linalg.cholesky(Q.T @ toy.U @ Q)}
    inner, outer = ((x, y @ Q) for x, y in (toy.inner, toy.outer))
    rotated = toy._replace(
        phi=turned, inner=inner, outer=outer, theta=inner_solution(turned, inner)
    )
    grad, moved = estimate(toy, EXACT), estimate(rotated, EXACT)
    # A symmetric change dU of U is the change L tril-half(L^-1 dU L^-T) of its Cholesky factor.
    generator.manual_seed(6)
    dU = torch.randn(n, n, generator=generator, dtype=DTYPE)
    dU = dU + dU.T

    def along(grad: Params, L: Tensor, dU: Tensor) -> float:
        inverse = torch.linalg.inv(L)
        middle = inverse @ dU @ inverse.T
        half = middle.tril(-1) + 0.5 * torch.diag(middle.diagonal())
        return (grad["L"] * (L @ half)).sum().item()

    difference = along(grad, toy.phi["L"], dU) - along(moved, turned["L"], Q.T @ dU @ Q)
    record_property("error", abs(difference))
    assert abs(difference) < 1e-12
    assert moved["log_lam"].item() == pytest.approx(grad["log_lam"].item(), abs=1e-12)


def test_the_order_of_a_batch_is_nothing(record_property: Record) -> None:
    toy = gaussian_problem(3)
    order = torch.randperm(len(toy.inner[0]), generator=torch.Generator().manual_seed(2))
    inner = tuple(part[order] for part in toy.inner)
    outer = tuple(part[order.flip(0)] for part in toy.outer)
    shuffled = toy._replace(inner=inner, outer=outer)
    error = relative_error(estimate(shuffled, EXACT), estimate(toy, EXACT))
    record_property("error", error)
    assert error < 1e-14
