"""The squashed Gaussian policy: its density, and the same policy without torch."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from mbrl_bilevel.agents.actor import Actor, normalised_relu, squashed_log_prob, two_layers
from mbrl_bilevel.agents.behaviour import BehaviourPolicy

OBS, LOW, HIGH = 3, (-1.0, 0.5), (3.0, 0.75)  # neither symmetric nor of one width


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_log_prob_is_that_of_torch_distributions():
    generator = seeded()
    mean, log_std, noise = torch.randn(3, 50, 4, generator=generator, dtype=torch.float64)
    raw = mean + log_std.exp() * noise
    law = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])
    expected = Independent(law, 1).log_prob(raw.tanh())
    moderate = (raw.abs() < 8).all(-1)  # beyond, 1 - tanh^2 has no digits left in the reference
    assert moderate.sum() > 30
    found = squashed_log_prob(raw, noise, log_std)
    torch.testing.assert_close(found[moderate], expected[moderate], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.3, -1.0), (-0.5, 0.7)])
def test_its_density_of_unit_actions_integrates_to_one(mean, log_std):
    """By the trapezium rule in the raw action, d tanh(raw) = (1 - tanh(raw)^2) d raw."""
    raw = torch.linspace(-20, 20, 100_001, dtype=torch.float64)
    noise = (raw - mean) / math.exp(log_std)
    one = torch.full_like(raw, log_std)
    density = squashed_log_prob(raw.unsqueeze(-1), noise.unsqueeze(-1), one.unsqueeze(-1)).exp()
    total = torch.trapezoid(density / raw.cosh().square(), raw)
    assert total.item() == pytest.approx(1, abs=1e-9)


def test_log_prob_is_finite_where_tanh_is_one():
    raw = torch.tensor([[60.0], [-300.0]], requires_grad=True)
    zero = torch.zeros_like(raw)
    log_prob = squashed_log_prob(raw, zero, zero)
    # log(1 - tanh(r)^2) -> 2 log 2 - 2 |r|
    expected = -0.5 * math.log(2 * math.pi) - 2 * math.log(2) + 2 * raw.detach().abs()[:, 0]
    torch.testing.assert_close(log_prob, expected)
    log_prob.sum().backward()
    assert raw.grad is not None
    torch.testing.assert_close(raw.grad[:, 0], torch.tensor([2.0, -2.0]))


def test_the_policy_without_torch_acts_as_the_actor():
    """The mean action, and the law of sampled ones: shown the same noise, the same actions."""
    actor = Actor(OBS, torch.tensor(LOW), torch.tensor(HIGH), 16, seeded())
    with torch.no_grad():
        for layer in actor.network.linear_layers():
            layer.bias.normal_(generator=seeded(1))
    policy = BehaviourPolicy(actor.weights(), {})
    obs = torch.randn(40, OBS, generator=seeded(2))
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    with torch.no_grad():
        mean, log_std = actor(obs)
        middle = (low + high) / 2 + (high - low) / 2 * mean.tanh()
        np.testing.assert_allclose(policy(obs.numpy()), middle.numpy(), atol=1e-5)
        noise = np.random.default_rng(3).standard_normal(mean.shape, dtype=np.float32)
        raw = mean + log_std.exp() * torch.from_numpy(noise)
        expected = (low + high) / 2 + (high - low) / 2 * raw.tanh()
        sampled = policy(obs.numpy(), np.random.default_rng(3))
        np.testing.assert_allclose(sampled, expected.numpy(), atol=1e-5)
        ours, _ = actor.sample(obs, seeded(4))
        raw = mean + log_std.exp() * torch.randn(mean.shape, generator=seeded(4))
        torch.testing.assert_close(ours, (low + high) / 2 + (high - low) / 2 * raw.tanh())
    assert (sampled >= np.array(LOW)).all()
    assert (sampled <= np.array(HIGH)).all()
    policy.weights["w1"][:] = 0
    assert actor.network.linear_layers()[0].weight.abs().min() > 0  # a copy


def test_layers_start_as_torchs_own_and_normalised_ones_have_unit_rows():
    """Uniform within 1 / sqrt(inputs): the same deviation; 4 errors of 64 x 64 weights."""
    network = two_layers(1, 64, 64, 2, seeded())
    middle = network.linear_layers()[1].weight
    assert middle.std().item() == pytest.approx(1 / math.sqrt(3 * 64), rel=4 / math.sqrt(2 * 4096))
    x = 5 + 3 * torch.randn(7, 50, generator=seeded())
    expected = ((x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True)).clamp_min(0)
    torch.testing.assert_close(normalised_relu(x), expected, rtol=1e-4, atol=1e-5)
