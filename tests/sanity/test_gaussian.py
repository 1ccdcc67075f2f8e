"""The Gaussian toy: its checks pass, and would not pass on a wrong answer."""

import math

import pytest
import torch

from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis
from mbrl_bilevel.sanity.check import Check, check
from mbrl_bilevel.sanity.gaussian import (
    Data,
    closed_form_checks,
    draw,
    inner_checks,
    optimal_precision,
    outer_variables,
    precision,
)
from mbrl_bilevel.sanity.gaussian_curves import curve_checks, curves, stopped_checks
from mbrl_bilevel.sanity.gaussian_solvers import (
    error_of,
    estimator_checks,
    first_objective,
    loop_checks,
    sampled_checks,
)


def data(seed: int = 0, count: int = 100) -> tuple[Data, Data]:
    generator = torch.Generator().manual_seed(seed)
    return draw(count, generator), draw(count, generator)


def failed(checks: list[Check]) -> list[Check]:
    assert checks
    return [c for c in checks if not c.passed]


def test_a_check_fails_outside_its_tolerance_and_on_nan():
    assert check("", 1.0, 1.1, 0.2).passed
    assert not check("", 1.0, 1.1, 0.05).passed
    assert not check("", math.nan, 0.0, 1.0).passed


def test_draws_have_the_moments_of_the_population():
    (x, y), _ = data()
    residual = y - 10 / math.sqrt(12) * x - 6
    both = torch.cat([x, residual / 1.25], -1)
    torch.testing.assert_close(both.mT @ both / len(x), torch.eye(4, dtype=torch.float64))
    assert both.mean(0).abs().amax() < 1e-12


def test_closed_forms_inner_optima_and_stopped_levels():
    inner, outer = data()
    assert not failed(closed_form_checks(outer))
    assert not failed(inner_checks(inner))
    assert not failed(stopped_checks(inner, outer))


def test_every_hypergradient_finds_the_optimal_reward():
    assert error_of(outer_variables(first_objective())) > 0.5  # it starts away from the answer
    assert not failed(estimator_checks(*data()))


def test_precision_reads_the_parameters_of_an_objective():
    for form in ("scalar", "full"):
        objective = PolicyGradient(Mahalanobis(2, form=form, initial=0.3).double())
        found = precision(outer_variables(objective))
        expected = 0.3 * torch.eye(2, dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    for u in optimal_precision("linear").diagonal().tolist():
        assert u == pytest.approx(0.32, rel=1e-12)


@pytest.mark.slow
def test_every_loop_finds_the_optimal_reward():
    assert not failed(loop_checks(*data()))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sampled_objectives_find_the_optimal_reward(seed):
    assert not failed(sampled_checks(*data(seed), torch.Generator().manual_seed(seed)))


@pytest.mark.slow
def test_curves_settle_where_the_theory_says():
    inner, outer = data()
    assert not failed(curve_checks(inner, outer))
    found = curves(inner, outer)
    mean_error = {k: (c.mean[249] - 6).norm().item() for k, c in found.items()}
    likelihood = mean_error.pop("nll")
    assert max(mean_error.values()) < 1e-4  # a fixed covariance fits the mean as MSE does,
    assert 1e-2 < likelihood < 1  # likelihood waits for its covariance to shrink
    variance = {k: c.covariance[-1, 0, 0].item() for k, c in found.items()}
    assert variance["nll"] == pytest.approx(1.25**2, rel=0.02)
    assert variance["pg, U = I"] == pytest.approx(0.5, rel=0.01)
