"""The policy that gradients of a model reach: its law, its box, its file."""

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution
from torch.nn.functional import softplus

from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.squashed_actor import SquashedActor
from mbrl_bilevel.data.standardizer import Standardizer

OBS, LOW, HIGH = 3, (-1.0, 0.5), (3.0, 0.75)  # neither symmetric nor of one width


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def actor():
    """With biases, so that nothing is centred."""
    found = SquashedActor(OBS, torch.tensor(LOW), torch.tensor(HIGH), (16, 8, 8), seeded())
    with torch.no_grad():
        for layer in found.network.linear_layers():
            layer.bias.normal_(generator=seeded(1))
    return found


def states(count=40):
    return torch.randn(count, OBS, generator=seeded(2))


def test_samples_are_reparametrised_and_squashed():
    policy = actor().double()
    mean, raw_std = policy.network(states().double())[0].chunk(2, -1)
    std = softplus(raw_std) + 1e-3
    noise = torch.randn(40, 2, generator=seeded(3), dtype=torch.float64)
    unit, log_prob = policy.sample(states().double(), seeded(3))
    torch.testing.assert_close(unit, (mean + std * noise).tanh(), rtol=1e-7, atol=1e-9)
    law = TransformedDistribution(Normal(mean, std), [TanhTransform(cache_size=1)])
    expected = Independent(law, 1).log_prob((mean + std * noise).tanh())
    torch.testing.assert_close(log_prob, expected, rtol=1e-6, atol=1e-6)


def test_samples_and_their_density_are_differentiable_in_states_and_parameters():
    policy = actor().double()
    s = states(4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: policy.sample(s, seeded(3)), (s,))
    unit, log_prob = policy.sample(s, seeded(3))
    gradients = torch.autograd.grad(unit.sum() + log_prob.sum(), list(policy.parameters()))
    assert all((g != 0).any() for g in gradients)


@pytest.mark.parametrize("raw", [-1e3, 1e3])
def test_the_density_is_finite_however_far_the_deviation_runs(raw):
    policy = actor()
    with torch.no_grad():
        policy.network.linear_layers()[-1].bias[0, 0, 2:] = raw
    _, std = policy(states())
    unit, log_prob = policy.sample(states(), seeded(3))
    assert std.min() >= 1e-3 * 0.9999
    assert log_prob.isfinite().all()
    gradients = torch.autograd.grad(unit.sum() + log_prob.sum(), list(policy.parameters()))
    assert all(g.isfinite().all() for g in gradients)


def test_unit_actions_fill_the_box():
    unit = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.5]])
    expected = torch.tensor([LOW, HIGH, (1.0, 0.6875)])
    torch.testing.assert_close(actor().scaled(unit), expected)


def test_the_policy_without_torch_acts_as_the_actor_on_observations_of_their_own_units():
    """The mean action, and the law of sampled ones: shown the same noise, the same actions."""
    policy = actor()
    standardizer = Standardizer(OBS)
    standardizer.mean.copy_(torch.tensor([5.0, -3.0, 0.1]))
    standardizer.std.copy_(torch.tensor([10.0, 0.2, 1.0]))
    played = BehaviourPolicy(policy.weights(standardizer), {"activation": "silu"})
    obs = standardizer.restore(states())
    with torch.no_grad():
        mean, std = policy(standardizer.standardize(obs))
        np.testing.assert_allclose(played(obs.numpy()), policy.scaled(mean.tanh()), atol=2e-5)
        noise = np.random.default_rng(3).standard_normal(mean.shape, dtype=np.float32)
        expected = policy.scaled((mean + std * torch.from_numpy(noise)).tanh())
        sampled = played(obs.numpy(), np.random.default_rng(3))
        np.testing.assert_allclose(sampled, expected, atol=2e-5)
    played.weights["w1"][:] = 0
    assert policy.network.linear_layers()[0].weight.abs().max() > 0  # a copy
