"""Weights of the data: beta-NLL from J, and what weights leave unchanged."""

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.distributions import DiagonalGaussian
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.objectives.weights import PrecisionWeights
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis
from tests.objectives.test_policy_gradient import LAM, minimise
from tests.rewards.test_mahalanobis import draw, random_reward


def gradient_of_mean(loss, mean: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, mean)[0]


@pytest.mark.parametrize("form", ["scalar", "diagonal"])
@pytest.mark.parametrize("b", [0.0, 0.5, 1.0])
def test_gradient_of_the_mean_is_that_of_beta_nll(b, form):
    reward, x, y = random_reward(form, 3, inputs=2), draw(5, 2, seed=3), draw(5, 3, seed=2)
    mean = draw(5, 3).requires_grad_()
    std = (0.5 * LAM / reward.precision_diagonal(x)).sqrt().detach()
    gaussian = DiagonalGaussian(mean, std.log())
    objective = PolicyGradient(reward, lam=LAM, weights=PrecisionWeights(reward, LAM, b))
    ours = gradient_of_mean(objective(gaussian, x, y)[0], mean)
    nll = 0.5 * ((mean - y) / std).square() + std.log()
    beta_nll = (std ** (2 * b) * nll).sum(-1).mean()  # Seitzer et al. 2022, eq. 5
    theirs = gradient_of_mean(beta_nll, mean)
    torch.testing.assert_close(ours, LAM * theirs)
    plain = {
        0.0: -gaussian.log_prob(y).mean(),
        1.0: 0.5 * (mean - y).square().sum(-1).mean(),
    }
    if b in plain:
        torch.testing.assert_close(ours, LAM * gradient_of_mean(plain[b], mean))


@pytest.mark.parametrize("estimator", ["reparameterized", "score_function"])
def test_sampled_estimators_weight_as_the_exact_one(estimator):
    reward, x, y = random_reward("diagonal", 2, inputs=2), draw(1, 2, seed=3), draw(1, 2, seed=2)
    gaussian = DiagonalGaussian(draw(1, 2), 0.1 * draw(1, 2))
    weights = PrecisionWeights(reward, LAM, 0.7)
    exact, _ = PolicyGradient(reward, lam=LAM, weights=weights)(gaussian, x, y)
    noise = draw(100_000, 1, 2, seed=9)
    objective = PolicyGradient(
        reward, lam=LAM, weights=weights, estimator=estimator, samples=len(noise)
    )
    loss, _ = objective(gaussian, x, y, noise=noise)
    spread = (weights(x) * reward.terms(gaussian.rsample(noise), y, x)).sum(-1).std()
    assert abs(loss - exact) < 4 * spread / len(noise) ** 0.5


@pytest.mark.parametrize("by_dimension", [False, True])
def test_weights_leave_the_optimum_of_an_unrestricted_model(by_dimension):
    reward, x, y = random_reward("diagonal", 2, inputs=2), draw(4, 2, seed=3), draw(4, 2, seed=2)
    weight = (0.3 * draw(4, 2, seed=8)).exp() if by_dimension else (0.3 * draw(4, seed=8)).exp()
    mean, log_std = torch.zeros(4, 2).double(), torch.zeros(4, 2).double()
    parameters = mean.requires_grad_(), log_std.requires_grad_()
    objective = PolicyGradient(reward, lam=LAM, weights=lambda x: weight)
    minimise(lambda: objective(DiagonalGaussian(mean, log_std), x, y)[0], *parameters)
    torch.testing.assert_close(mean.detach(), y, rtol=0, atol=1e-6)
    expected = 0.5 * LAM / reward.precision_diagonal(x).detach()
    torch.testing.assert_close((2 * log_std).exp().detach(), expected, rtol=0, atol=1e-6)


def test_full_form_weighs_by_the_geometric_mean_of_variances():
    reward, x = random_reward("full", 3, inputs=2), draw(5, 2)
    covariance = 0.5 * LAM * torch.linalg.inv(reward.precision(x))
    expected = torch.linalg.det(covariance) ** (0.5 / 3)
    torch.testing.assert_close(PrecisionWeights(reward, LAM, 0.5)(x), expected)


def test_global_rewards_give_one_weight_to_all_data():
    x = draw(2, 5, 3)  # per member
    scalar, diagonal = (
        Mahalanobis(2, form=f, initial=0.5).double() for f in ("scalar", "diagonal")
    )
    half = torch.full((2, 5), 0.5 * LAM / 0.5).double() ** 0.5
    torch.testing.assert_close(PrecisionWeights(scalar, LAM)(x), half)
    torch.testing.assert_close(PrecisionWeights(diagonal, LAM)(x), half[..., None].expand(2, 5, 2))


def test_exponent_is_an_outer_parameter_beside_the_reward():
    reward, x, y = random_reward("diagonal", 2, inputs=2), draw(4, 2, seed=3), draw(4, 2, seed=2)
    gaussian = DiagonalGaussian(draw(4, 2), 0.1 * draw(4, 2))
    weights = PrecisionWeights(reward, LAM, 0.3, learn=True)
    objective = PolicyGradient(reward, lam=LAM, weights=weights)
    phi = dict(objective.named_parameters())
    assert phi["weights.exponent"].requires_grad
    assert len(phi) == len(list(reward.parameters())) + 1  # the shared reward counts once

    def value(*tensors):
        overrides = dict(zip(phi, tensors, strict=True))
        return torch.func.functional_call(objective, overrides, (gaussian, x, y))[0]

    assert torch.autograd.gradcheck(value, [p.detach().requires_grad_() for p in phi.values()])
    assert not PrecisionWeights(reward, LAM, 0.3).exponent.requires_grad


def test_weights_per_dimension_need_separate_dimensions():
    x, y = draw(4, 2), draw(4, 2)
    gaussian = DiagonalGaussian(draw(4, 2), draw(4, 2))
    objective = PolicyGradient(random_reward("full", 2), weights=lambda x: torch.ones(4, 2))
    with pytest.raises(InputError, match="one weight per datum"):
        objective(gaussian, x, y)
    with pytest.raises(InputError, match="must be finite"):
        PrecisionWeights(Mahalanobis(2), 1.0, float("nan"))
