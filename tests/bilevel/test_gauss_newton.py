"""Gauss-Newton products against the dense Hessian of a network."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.implicit import ExactDense, Implicit
from mbrl_bilevel.bilevel.linear_solve import dense
from mbrl_bilevel.bilevel.parameters import Params, ravel
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient
from mbrl_bilevel.errors import InputError
from tests.bilevel.neural_problem import (
    DECAY,
    PROBLEM,
    arguments,
    at_random,
    inner,
    outer,
    predict,
    toy,
)

Record = Callable[[str, object], None]


def test_gauss_newton_is_positive_and_close_to_the_hessian(record_property: Record) -> None:
    product = GaussNewton().products(PROBLEM, at_random().theta, toy().phi, toy().inner)
    matrix = dense(product, ravel(toy().theta))
    assert (matrix - matrix.T).norm() < 1e-14 * matrix.norm()
    assert torch.linalg.eigvalsh(matrix).min() > -1e-14 * matrix.norm()
    exact = ravel(ExactDense()(*arguments(toy())).grad)
    estimator = Implicit(curvature=GaussNewton(), damping=DECAY, rtol=1e-8, max_iterations=500)
    close = ravel(estimator(*arguments(toy())).grad)
    cosine = torch.cosine_similarity(exact, close, dim=0).item()
    record_property("cosine", cosine)
    assert cosine > 0.99


def test_gauss_newton_is_the_hessian_at_a_realizable_optimum(record_property: Record) -> None:
    """Every x with y = mean(x) +- s(x) and U(x) = (lam/2) s(x)^-2: Hessian = lam Fisher there."""
    lam = 0.8
    theta = at_random(3).theta
    half = toy().inner.x
    with torch.no_grad():
        mean, log_std = predict(theta, toy().inner).unbind(-1)
    x = torch.cat([half, half])
    y = torch.cat([mean + log_std.exp(), mean - log_std.exp()])
    data = toy().inner._replace(x=x, y=y)
    phi = {"U": 0.5 * lam * (-2 * log_std).exp().repeat(2)}

    def loss(outputs: Tensor, phi: Params, data: object) -> Tensor:
        m, s = outputs.unbind(-1)
        return (phi["U"] * ((m - y).square() + (2 * s).exp()) - lam * s).mean()

    def fisher(outputs: Tensor, phi: Params, data: object) -> Tensor:
        s = outputs[..., 1]
        information = torch.stack([(-2 * s).exp(), 2 * torch.ones_like(s)], -1)
        return torch.diag_embed(lam * information / len(s))

    problem = BilevelProblem.of_outputs(predict, loss, outer)
    graph = InnerGradient(problem, theta, phi, data)
    hessian = dense(graph.hessian_product, ravel(theta))
    assert graph.norm < 1e-13
    for metric in (None, fisher):
        product = GaussNewton(metric).products(problem, theta, phi, data)
        error = ((dense(product, ravel(theta)) - hessian).norm() / hessian.norm()).item()
        record_property("error", error)
        assert error < 1e-13


def test_gauss_newton_needs_the_outputs() -> None:
    problem = BilevelProblem(inner, outer)
    with pytest.raises(InputError, match="of_outputs"):
        Implicit(curvature=GaussNewton())(problem, *arguments(toy())[1:])
