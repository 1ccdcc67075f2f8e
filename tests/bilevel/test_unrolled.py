"""Unrolled inner steps: their rate of convergence, with a given and a measured step size."""

from collections.abc import Callable

import pytest
import torch

from mbrl_bilevel.bilevel.linear_solve import (
    dense,
)
from mbrl_bilevel.bilevel.parameters import ravel
from mbrl_bilevel.bilevel.problem import InnerGradient
from mbrl_bilevel.bilevel.unrolled import Unrolled
from tests.bilevel.gaussian_problem import (
    estimate,
    gaussian_problem,
    relative_error,
)

Record = Callable[[str, object], None]


def test_unrolling_converges_at_the_inner_rate(record_property: Record) -> None:
    """From theta*, every step multiplies the error by 1 - step_size * (smallest curvature).

    Of the covariance's parameters alone: the mean at theta* does not depend on U.
    """
    toy, step_size = gaussian_problem(3), 0.1
    graph = InnerGradient(toy.problem, toy.theta, toy.phi, toy.inner)
    hessian = dense(graph.hessian_product, ravel(graph.gradient))
    of_mean = toy.theta["W"].numel() + toy.theta["c"].numel()
    rate = 1 - step_size * torch.linalg.eigvalsh(hessian[of_mean:, of_mean:]).min().item()
    errors = {
        k: relative_error(estimate(toy, Unrolled(k, step_size)), toy.gradient())
        for k in (60, 90, 250)
    }
    found = (errors[90] / errors[60]) ** (1 / 30)
    record_property("rate", found)
    record_property("inner_rate", rate)
    record_property("error", errors[250])
    assert found == pytest.approx(rate, abs=0.01)
    assert errors[250] < 2e-14


def test_unrolling_at_a_measured_length_converges() -> None:
    toy = gaussian_problem(3, members=2)
    hyper = Unrolled(400)(toy.problem, toy.theta, toy.phi, toy.inner, toy.outer)
    assert relative_error(hyper.grad, toy.gradient()) < 1e-9
