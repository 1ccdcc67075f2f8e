"""Losses of mixtures: values by definition, gradients by closed forms and finite differences."""

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.mixture import Mixture
from mbrl_bilevel.objectives.mixture_losses import (
    policy_gradient,
    sampled_energy_score,
    squared_error_reward,
)

Y = torch.tensor([-0.7, 0.2, 1.5], dtype=torch.float64)
GRID = torch.linspace(-10.0, 10.0, 4_001, dtype=torch.float64)
CELL = float(GRID[1] - GRID[0])
REPETITIONS = 4_000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def parameters():
    """Logits, means and log deviations of three mixtures of three components."""
    return 0.7 * torch.randn(3, len(Y), 3, generator=seeded(3), dtype=torch.float64)


def mixture(parameters):
    logits, mean, log_std = parameters.unbind(0)
    return Mixture(logits.log_softmax(-1), mean, 0.5 * log_std)


def gradient(loss):
    at = parameters().requires_grad_()
    return torch.autograd.grad(loss(mixture(at)).sum(), at)[0]


def sampled_gradients(loss, count):
    """Many estimates at once, on an axis of their own: [REPETITIONS, 3, len(Y), 3]."""
    at = parameters().unsqueeze(1).repeat(1, REPETITIONS, 1, 1).requires_grad_()
    p = mixture(at)
    found = torch.autograd.grad(loss(p, p.sample(count, seeded())).sum(), at)[0]
    return found.movedim(1, 0)


def deviations(estimates, exact):
    """Of their mean from the exact gradient, in standard errors."""
    return ((estimates.mean(0) - exact) / (estimates.std(0) / REPETITIONS**0.5)).abs().max()


@pytest.mark.parametrize("count", [3, 8])
def test_sampled_energy_score_has_the_gradient_of_the_closed_form(count):
    """27 numbers: four standard errors are passed once in 600 of such tests."""
    exact = gradient(lambda p: p.energy_score(Y))
    found = sampled_gradients(lambda p, a: sampled_energy_score(p, Y, a), count)
    assert deviations(found, exact) < 4


def test_without_the_baseline_the_gradient_is_right_and_far_from_y_its_variance_larger():
    """Near y the costs are about 0 on average, and no baseline is needed; 10 away it is."""

    def without(y, factor=1.0):
        def loss(p, a):
            apart = (a.unsqueeze(1) - a).abs().sum(1) / (len(a) - 1)
            return (p.log_prob(a) * ((a - y).abs() - factor * apart)).mean(0)

        return loss

    exact = gradient(lambda p: p.energy_score(Y))
    assert deviations(sampled_gradients(without(Y), 8), exact) < 4
    # One generation of a pair held fixed: half of the term's gradient.
    assert deviations(sampled_gradients(without(Y, 0.5), 8), exact) > 10
    far = Y + 10
    found = sampled_gradients(lambda p, a: sampled_energy_score(p, far, a), 8)
    assert found.var(0).sum() < 0.2 * sampled_gradients(without(far), 8).var(0).sum()


def test_sampled_energy_score_is_the_mean_over_pairs():
    p = mixture(parameters())
    generations = p.sample(7, seeded())
    for i, value in enumerate(sampled_energy_score(p, Y, generations).tolist()):
        a, y = generations[:, i].tolist(), float(Y[i])
        pairs = sum(abs(b - c) for b in a for c in a) / 42
        assert value == pytest.approx(sum(abs(b - y) for b in a) / 7 - 0.5 * pairs)


def test_two_generations_are_refused():
    p = mixture(parameters())
    with pytest.raises(InputError, match="2 generations"):
        sampled_energy_score(p, Y, p.sample(2, seeded()))


def entropy(p):
    log_prob = p.log_prob(GRID.unsqueeze(-1))
    return -CELL * (log_prob.exp() * log_prob).sum(0)


def test_policy_gradient_on_the_squared_error_has_the_gradient_of_the_integral():
    def exact_loss(p):
        mean, variance = p.moments()
        return (mean - Y).square() + variance - 0.3 * entropy(p)

    def sampled(p, a):
        return policy_gradient(p, squared_error_reward(a, Y), a, lam=0.3)

    assert deviations(sampled_gradients(sampled, 8), gradient(exact_loss)) < 4


def test_the_gradient_of_the_value_by_finite_differences():
    """Along one direction, the expected loss by the grid moves as its gradient says."""
    direction = torch.randn(3, len(Y), 3, generator=seeded(5), dtype=torch.float64)

    def loss(p):
        log_prob = p.log_prob(GRID.unsqueeze(-1))
        reward = -(GRID.unsqueeze(-1) - Y).square()
        return (CELL * log_prob.exp() * (0.3 * log_prob - reward)).sum(0)

    step = 1e-5
    slope = sum(
        sign * loss(mixture(parameters() + sign * step * direction)).sum() for sign in (1, -1)
    ) / (2 * step)
    found = sampled_gradients(
        lambda p, a: policy_gradient(p, squared_error_reward(a, Y), a, lam=0.3), 8
    )
    along = (found * direction).sum((1, 2, 3))
    assert abs(along.mean() - slope) < 4 * along.std() / REPETITIONS**0.5


def test_a_density_as_the_reward_leaves_no_gradient_at_itself():
    """r = lam log p(a) less lam log p(a): every generation costs the same, not only on average."""
    p = mixture(parameters())
    found = gradient(
        lambda q: policy_gradient(q, 2 * p.log_prob(a := p.sample(8, seeded())), a, lam=2.0)
    )
    torch.testing.assert_close(found, torch.zeros_like(found))
