"""The sampled estimators: unbiased, of low variance, and with the right second derivatives."""

import math

import pytest
import torch
from scipy import integrate, stats

from mbrl_bilevel.models.categorical import Categorical, gumbel_noise
from mbrl_bilevel.models.distributions import DiagonalGaussian, FullGaussian
from mbrl_bilevel.objectives.estimators import (
    enumerated,
    leave_one_out,
    magic_box,
    reparameterized,
    score_function,
)
from tests.rewards.test_mahalanobis import draw, random_reward

N, GROUPS = 2, 40_000
X = torch.zeros(1, 1, dtype=torch.float64)
Y = torch.tensor([[0.5, 0.2]], dtype=torch.float64)
REWARD = random_reward("full", N).requires_grad_(False)


def gaussian_of(theta: torch.Tensor, kind: str):
    """Gaussians in two dimensions from vectors [b, 4] or [b, 5] of parameters."""
    mean, log_std = theta[:, :2], theta[:, 2:4]
    if kind == "diagonal":
        return DiagonalGaussian(mean, log_std)
    below = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=theta.dtype)
    return FullGaussian(mean, torch.diag_embed(log_std.exp()) + theta[:, 4, None, None] * below)


def theta_of(kind: str) -> torch.Tensor:
    theta = torch.tensor([[0.3, -0.4, -0.2, 0.1, 0.5]], dtype=torch.float64)
    return theta[:, : 4 + (kind == "full")]


def per_group(function, theta: torch.Tensor, noise: torch.Tensor, second: bool = False):
    """Gradient (or Hessian) of `function(theta, noise)` for each group of generations alone.

    theta [1, k] is the same for all groups, which stand on the batch axis of noise [g, b, n].
    """
    rows = theta.detach().expand(noise.shape[1], -1).clone().requires_grad_()
    (first,) = torch.autograd.grad(function(rows, noise).sum(), rows, create_graph=second)
    if not second:
        return first
    columns = first.sum(0).unbind()
    return torch.stack(
        [torch.autograd.grad(c, rows, retain_graph=True)[0] for c in columns], dim=-1
    )


def derivatives(function, theta: torch.Tensor, second: bool = False):
    """Gradient [k] (or Hessian [k, k]) of `function(theta)` at theta [1, k]."""
    of_theta = lambda rows, _: function(rows)  # noqa: E731
    return per_group(of_theta, theta, torch.zeros(1, 1, 1), second)[0]


def agrees(samples: torch.Tensor, expected: torch.Tensor) -> bool:
    """Mean of independent samples within 4 standard errors (6e-5 by chance for one figure)."""
    standard_error = samples.std(0) / math.sqrt(len(samples))
    return bool(((samples.mean(0) - expected).abs() <= 4 * standard_error + 1e-12).all())


def reward_of(y_hat: torch.Tensor) -> torch.Tensor:
    b = y_hat.shape[-2]
    return REWARD(y_hat, Y.expand(b, -1), X.expand(b, -1))


def exact(kind: str):
    return lambda theta: REWARD.expected(gaussian_of(theta, kind), Y, X)


def estimate(name: str, kind: str, **options):
    estimator = {"score": score_function, "path": reparameterized}[name]
    return lambda theta, noise: estimator(reward_of, gaussian_of(theta, kind), noise, **options)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("path", {}), ("score", {}), ("score", {"baseline": "none"})],
)
def test_gradients_are_unbiased(name, options, kind):
    theta = theta_of(kind)
    samples = per_group(estimate(name, kind, **options), theta, draw(5, GROUPS, N, seed=3))
    assert agrees(samples, derivatives(exact(kind), theta))


@pytest.mark.parametrize("name", ["path", "score"])
def test_values_are_the_mean_reward(name):
    theta, noise = theta_of("full"), draw(5, 1, N)
    expected = reward_of(gaussian_of(theta, "full").rsample(noise)).mean()
    assert estimate(name, "full")(theta, noise).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["path", "score"])
def test_second_derivatives_are_unbiased(name):
    theta = theta_of("full")
    noise = draw(5, GROUPS, N, seed=4)
    samples = per_group(estimate(name, "full"), theta, noise, second=True)
    hessian = derivatives(exact("full"), theta, second=True)
    assert hessian.abs().amax() > 1
    assert agrees(samples, hessian)


def test_hessian_of_a_plain_surrogate_is_wrong():
    theta, noise = theta_of("full"), draw(5, GROUPS, N, seed=4)

    def naive(theta, noise):
        gaussian = gaussian_of(theta, "full")
        samples = gaussian.rsample(noise).detach()
        rewards = reward_of(samples)
        return (gaussian.log_prob(samples) * (rewards - leave_one_out(rewards))).mean(0)

    gradient = derivatives(exact("full"), theta)
    assert agrees(per_group(naive, theta, noise), gradient)
    hessian = derivatives(exact("full"), theta, second=True)
    wrong = per_group(naive, theta, noise, second=True).mean(0)
    assert (wrong - hessian).norm() > hessian.norm()
    # the sign itself: J is concave in the mean, the surrogate says convex
    assert hessian[0, 0] < 0 < wrong[0, 0]


def test_magic_box_carries_every_derivative_of_the_score():
    theta = torch.tensor(0.4, dtype=torch.float64)

    def expectation(theta):  # Bernoulli(sigmoid(theta)), reward 1 for a success: E = sigmoid
        log_p = torch.nn.functional.logsigmoid(theta)
        return torch.sigmoid(theta).detach() * magic_box(log_p)

    theta = theta.requires_grad_()
    got, expected = expectation(theta), torch.sigmoid(theta)
    for _ in range(3):
        (got,) = torch.autograd.grad(got, theta, create_graph=True)
        (expected,) = torch.autograd.grad(expected, theta, create_graph=True)
        assert got.item() == pytest.approx(expected.item(), rel=1e-12)


def test_leave_one_out_is_the_mean_of_the_others():
    rewards = draw(4, 3)
    for g in range(4):
        others = torch.cat([rewards[:g], rewards[g + 1 :]])
        torch.testing.assert_close(leave_one_out(rewards)[g], others.mean(0))


def test_leave_one_out_lowers_the_variance_and_paths_lower_it_further():
    theta, noise = theta_of("diagonal"), draw(5, 4000, N, seed=3)
    variance = {
        key: per_group(function, theta, noise).var(0).sum().item()
        for key, function in (
            ("none", estimate("score", "diagonal", baseline="none")),
            ("loo", estimate("score", "diagonal")),
            ("path", estimate("path", "diagonal")),
        )
    }
    assert variance["path"] < 0.5 * variance["loo"]
    assert variance["loo"] < 0.7 * variance["none"]


def test_error_falls_as_the_root_of_the_samples():
    theta = theta_of("diagonal")
    spread = [
        per_group(estimate("path", "diagonal"), theta, draw(g, 2000, N, seed=g)).std(0)
        for g in (4, 16)
    ]
    # a ratio of two deviations of 2000 samples has a relative error of 1 / sqrt(2000) = 2.2 %
    torch.testing.assert_close(
        spread[0] / spread[1], torch.full((4,), 2.0).double(), rtol=0.09, atol=0
    )


def test_a_shift_of_the_reward_changes_nothing_at_all():
    theta, noise = theta_of("diagonal"), draw(5, 1, N)

    def on_a_grid(y_hat):  # rewards on a binary grid: their sums and quarters are exact
        return torch.round(reward_of(y_hat) * 2.0**20) / 2.0**20

    def gradient(reward):
        function = lambda t: score_function(reward, gaussian_of(t, "diagonal"), noise)  # noqa: E731
        return derivatives(function, theta)

    shifted = gradient(lambda y_hat: on_a_grid(y_hat) + 37.0)
    assert (gradient(on_a_grid) - shifted).abs().amax() == 0.0
    path = [
        derivatives(
            lambda t, c=c: reparameterized(
                lambda y_hat: reward_of(y_hat) + c, gaussian_of(t, "diagonal"), noise
            ),
            theta,
        )
        for c in (0.0, 37.3)
    ]
    assert (path[0] - path[1]).abs().amax() == 0.0


def group_maximum(n: int, groups: int) -> float:
    """E of the greatest of `groups` chi-squared variables of n degrees of freedom."""
    return integrate.quad(lambda q: 1 - stats.chi2.cdf(q, n) ** groups, 0, 40 + 6 * n)[0]


@pytest.mark.parametrize(("n", "shrunk"), [(1, 0.445), (17, 0.715)])
def test_group_minimum_shrinks_the_gradient_of_the_published_code(n, shrunk):
    r"""E[(r_g - min r) score_g], averaged over g, is dE[r] - dE[min r] / G.

    (The sum of scores is the score of the whole group.) At y = mu, r = -s^2 chi^2_n, so the
    derivative in log s keeps the share 1 - E[max chi^2] / (G n) of the right one, -2 n s^2.
    """
    share = 1 - group_maximum(n, 5) / (5 * n)
    assert share == pytest.approx(shrunk, abs=5e-4)

    def loss(log_std, noise):
        gaussian = DiagonalGaussian(torch.zeros(len(log_std), n).double(), log_std.expand(-1, n))
        square = lambda y_hat: -y_hat.square().sum(-1)  # noqa: E731
        return score_function(square, gaussian, noise, transform="normalize")

    log_std = torch.zeros(1, 1, dtype=torch.float64)
    samples = per_group(loss, log_std, draw(5, 20_000, n, seed=2))
    assert agrees(samples, torch.tensor(-2.0 * n * share, dtype=torch.float64))
    assert not agrees(samples, torch.tensor(-2.0 * n, dtype=torch.float64))


@pytest.mark.parametrize(("n", "ratio"), [(1, 2.36), (17, 1.417)])
def test_group_minimum_inflates_the_stationary_variance(n, ratio):
    """Under residuals of variance lam / (2 u) the fixed point is `ratio` times that."""
    noise = draw(200_000 // n, 5, n, seed=1)
    residual = draw(200_000 // n, 1, n, seed=2)
    log_std = torch.tensor(0.5 * math.log(ratio), dtype=torch.float64, requires_grad=True)
    square = (log_std.exp() * noise - residual).square().sum(-1)
    # J with u = 1, lam = 2, in the form dE[r] - dE[min r] / G derived above
    gain = -(square.mean() - square.amax(1).mean() / 5) + 2 * n * log_std
    (slope,) = torch.autograd.grad(gain, log_std)
    curvature = 4 * n  # of J in log s near the optimum, to turn a slope into an error of log s^2
    assert 2 * abs(slope.item()) / curvature < 0.01
    right = -(2 * n * ratio) + 2 * n  # the slope of the true J there, for comparison
    assert abs(right) > 20 * abs(slope.item())


def test_rbf_and_clipping_act_as_named():
    theta, noise = theta_of("diagonal"), draw(5, 1, N)
    gaussian = gaussian_of(theta, "diagonal")
    rewards = reward_of(gaussian.rsample(noise))
    for estimator in (reparameterized, score_function):
        value = estimator(reward_of, gaussian, noise, transform="rbf")
        torch.testing.assert_close(value, rewards.exp().mean(0))
    clipped = derivatives(
        lambda t: score_function(
            reward_of, gaussian_of(t, "diagonal"), noise, clip_log_prob=(50.0, 60.0)
        ),
        theta,
    )
    assert (clipped == 0).all()  # a clip by value kills every gradient beyond it


def categorical_reward(y_hat: torch.Tensor) -> torch.Tensor:
    return torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64)[y_hat]


@pytest.mark.parametrize("second", [False, True])
def test_categorical_samples_agree_with_enumeration(second):
    logits = draw(1, 4)
    noise = gumbel_noise((5, GROUPS, 4), torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = per_group(
        lambda t, z: score_function(categorical_reward, Categorical(t), z), logits, noise, second
    )
    value = lambda t: enumerated(categorical_reward, Categorical(t))  # noqa: E731
    assert agrees(samples, derivatives(value, logits, second))


def test_enumeration_is_the_sum_over_classes():
    categorical = Categorical(draw(3, 2, 4))
    expected = (categorical.probs * categorical_reward(torch.arange(4))).sum(-1)
    torch.testing.assert_close(enumerated(categorical_reward, categorical), expected)
