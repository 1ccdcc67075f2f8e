"""Faults of published conjugate-gradient codes, put in one by one: each must be found out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.bilevel import implicit, problem
from mbrl_bilevel.bilevel.hypergradient import Hypergradient
from mbrl_bilevel.bilevel.implicit import Implicit
from mbrl_bilevel.bilevel.linear_solve import CG, Iterate, LinearSolution, dot
from mbrl_bilevel.bilevel.parameters import Params, ravel
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient, Partials
from tests.bilevel.gaussian_problem import gaussian_problem, relative_error
from tests.bilevel.test_linear_solve import check_cg


class OldResidual(CG):
    """The next direction from the residual before the step."""

    def step(self, at: Iterate, product: Tensor, curvature: Tensor) -> Iterate:
        x, r, _ = super().step(at, product, curvature)
        return Iterate(x, r, at.r + dot(r, r) / dot(at.r, at.r) * at.p)


class StaleRatio(CG):
    """beta from the old residual twice, so always 1."""

    def step(self, at: Iterate, product: Tensor, curvature: Tensor) -> Iterate:
        x, r, _ = super().step(at, product, curvature)
        return Iterate(x, r, r + at.p)


class ScaledStep(CG):
    """x moves by a "learning rate" times the step, the residual by the whole step."""

    def step(self, at: Iterate, product: Tensor, curvature: Tensor) -> Iterate:
        x, r, p = super().step(at, product, curvature)
        return Iterate(at.x + 0.9 * (x - at.x), r, p)


class BreakBeforeStore(CG):
    """Leaves as soon as the residual is small, with the iterate from before that step."""

    def step(self, at: Iterate, product: Tensor, curvature: Tensor) -> Iterate:
        x, r, p = super().step(at, product, curvature)
        done = dot(r, r).sqrt() < 1e-11
        return Iterate(torch.where(done, at.x, x), r, p)


@pytest.mark.parametrize("fault", [OldResidual, StaleRatio, ScaledStep, BreakBeforeStore])
def test_a_faulty_cg_is_found_out(fault: type[CG]) -> None:
    with pytest.raises(AssertionError):
        check_cg(fault(), 1e2, 1e-12, 1e-10)


def check_scalar_parameter() -> None:
    """theta* = phi and F = theta*^2 / 4: dF/dphi = phi / 2, all of them 0-dimensional."""
    half = BilevelProblem(
        lambda theta, phi, data: 0.5 * (theta["a"] - phi["b"]).square(),
        lambda theta, phi, data: 0.25 * theta["a"].square(),
    )
    one = torch.tensor(1.0, dtype=torch.float64)
    hyper = Implicit(rtol=1e-14)(half, {"a": one}, {"b": one}, None, None)
    assert hyper.grad["b"].shape == ()
    assert hyper.grad["b"].item() == 0.5


def check_closed_form() -> None:
    toy = gaussian_problem(3)
    hyper = Implicit(rtol=1e-14, max_iterations=200)(
        toy.problem, toy.theta, toy.phi, toy.inner, toy.outer
    )
    assert relative_error(hyper.grad, toy.gradient()) < 1e-13


def test_without_faults_the_checks_pass() -> None:
    check_cg(CG(), 1e2, 1e-12, 1e-10)
    check_scalar_parameter()
    check_closed_form()


def lose_scalars(parameters: Params, ensemble: bool = False) -> Tensor:
    return ravel({k: p if p.ndim else 0.0 * p for k, p in parameters.items()}, ensemble)


def keep_the_sign(inner: InnerGradient, outer: Partials, solution: LinearSolution) -> Hypergradient:
    """The indirect part added, as if theta* followed the gradient of a reward."""
    indirect = inner.cross_product(solution.x)
    grad = {k: g + indirect[k] for k, g in outer.phi.items()}
    return Hypergradient(grad, outer.loss, inner.norm, solution, solution.x)


def forget_the_cross_term(
    inner: InnerGradient, outer: Partials, solution: LinearSolution
) -> Hypergradient:
    """First-order shortcut: the explicit derivative alone."""
    return Hypergradient(outer.phi, outer.loss, inner.norm, solution, solution.x)


@pytest.mark.parametrize(
    ("module", "name", "fault", "check"),
    [
        (problem, "ravel", lose_scalars, check_scalar_parameter),
        (implicit, "from_linear_solution", keep_the_sign, check_closed_form),
        (implicit, "from_linear_solution", forget_the_cross_term, check_closed_form),
    ],
)
def test_a_faulty_hypergradient_is_found_out(
    module: object,
    name: str,
    fault: object,
    check: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, name, fault)
    with pytest.raises(AssertionError):
        check()
