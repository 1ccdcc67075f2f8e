"""Changes of the problem that must not change its hypergradient (closed-form Gaussian toy)."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem
from tests.bilevel.gaussian_problem import (
    DTYPE,
    EXACT,
    estimate,
    gaussian_problem,
    inner_solution,
    relative_error,
)

Record = Callable[[str, object], None]


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
