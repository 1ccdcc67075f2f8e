"""Soft actor-critic against slow references, closed forms and itself."""

import copy
import math

import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from mbrl_bilevel.agents.policy_updates import SoftActorCritic
from mbrl_bilevel.agents.setting_groups import PolicySettings
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.errors import InputError

OBS, LOW, HIGH = 3, (-1.0, 0.5), (3.0, 0.75)  # neither symmetric nor of one width


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def agent(seed=0, low=LOW, high=HIGH, soft_values=True, **settings):
    settings = {"policy_hidden": 16, "discount": 0.9, "policy_learning_rate": 1e-3, **settings}
    bounds = torch.tensor(low), torch.tensor(high)
    policy = PolicySettings(**settings)
    return SoftActorCritic(policy, OBS, *bounds, seeded(seed), soft_values=soft_values)


def transitions(count, seed=1, terminated=None):
    generator = seeded(seed)
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    unit = torch.rand(count, len(LOW), generator=generator)
    ends = (torch.rand(count, generator=generator) < 0.3).float()
    return Batch(
        torch.randn(count, OBS, generator=generator),
        low + unit * (high - low),
        torch.randn(count, generator=generator),
        torch.randn(count, OBS, generator=generator),
        ends if terminated is None else torch.full((count,), float(terminated)),
    )


class Reference:
    """One update written as the paper has it: two critics apart, three optimisers, plain layers."""

    def __init__(self, sac, layer_norm, rates):
        self.layer_norm = layer_norm
        self.sac, self.generator = sac, copy.deepcopy(sac.generator.get_state())
        self.actor = self.layers(sac.actor.network, 0)
        self.critics = [self.layers(sac.critic, i) for i in range(2)]
        self.targets = [self.layers(sac.target, i) for i in range(2)]
        self.log_alpha = sac.log_temperature.detach().clone().requires_grad_()
        groups = (self.actor, rates[0]), (self.critics[0] + self.critics[1], rates[1])
        self.optimizers = [
            torch.optim.Adam(group, lr=rate)
            for group, rate in (*groups, ([self.log_alpha], rates[1]))
        ]

    @staticmethod
    def layers(network, member):
        return [
            parameter.detach()[member].clone().requires_grad_()
            for layer in network.linear_layers()
            for parameter in (layer.weight, layer.bias)
        ]

    @staticmethod
    def forward(layers, x, layer_norm=False):
        w1, b1, w2, b2, w3, b3 = layers
        for weight, bias in ((w1, b1), (w2, b2)):
            x = x @ weight + bias
            if layer_norm:
                x = x - x.mean(1, keepdim=True)
                x = x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt()
            x = torch.relu(x)
        return x @ w3 + b3

    def q(self, layers, obs, unit):
        return self.forward(layers, torch.cat([obs, unit], 1), self.layer_norm)[:, 0]

    def act(self, obs, generator):
        mean, log_std = self.forward(self.actor, obs).chunk(2, 1)
        std = log_std.clamp(-20, 2).exp()
        raw = mean + std * torch.randn(mean.shape, generator=generator)
        density = Normal(mean, std).log_prob(raw) - torch.log(1 - raw.tanh() ** 2)
        return raw.tanh(), density.sum(1)

    def update(self, batch):
        generator = torch.Generator()
        generator.set_state(self.generator)
        sac, alpha = self.sac, self.log_alpha.detach().exp()
        unit = 2 * (batch.action - torch.tensor(LOW)) / (torch.tensor(HIGH) - torch.tensor(LOW)) - 1
        with torch.no_grad():
            following, log_prob = self.act(batch.next_observation, generator)
            both = [self.q(t, batch.next_observation, following) for t in self.targets]
            soft = torch.minimum(*both) - (alpha * log_prob if sac.soft_values else 0)
            y = torch.where(
                batch.terminated == 1, batch.reward, batch.reward + sac.settings.discount * soft
            )
        losses = [
            (self.q(c, batch.observation, unit) - y).square().mean() / 2 for c in self.critics
        ]
        action, log_prob = self.act(batch.observation, generator)
        values = torch.minimum(*(self.q(c, batch.observation, action) for c in self.critics))
        actor_loss = (alpha * log_prob - values).mean()
        alpha_loss = -self.log_alpha * (log_prob.detach() + sac.target_entropy).mean()
        every = [*self.actor, *self.critics[0], *self.critics[1], self.log_alpha]
        own = [
            *torch.autograd.grad(actor_loss, self.actor),
            *torch.autograd.grad(losses[0], self.critics[0]),
            *torch.autograd.grad(losses[1], self.critics[1]),
            *torch.autograd.grad(alpha_loss, [self.log_alpha]),
        ]
        for parameter, gradient in zip(every, own, strict=True):
            parameter.grad = gradient
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            for target, critic in zip(self.targets, self.critics, strict=True):
                for t, c in zip(target, critic, strict=True):
                    rate = sac.settings.target_rate
                    t.copy_((1 - rate) * t + rate * c)
        self.generator = generator.get_state()
        return sum(losses).item()


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("soft_values", [False, True])
@pytest.mark.parametrize("actor_rate", [None, 2e-4])
def test_updates_are_those_of_a_slow_reference(layer_norm, actor_rate, soft_values):
    """Three updates in a row; float32, whose rounding the relative 1e-4 allows for."""
    settings = {"target_rate": 0.1, "temperature": 0.3, "critic_layer_norm": layer_norm}
    settings["soft_values"] = soft_values
    sac = agent(**settings, actor_learning_rate=actor_rate)  # of the critics: 1e-3
    reference = Reference(sac, layer_norm, (actor_rate or 1e-3, 1e-3))
    for seed in range(3):
        batch = transitions(32, seed)
        metrics = sac.update(batch)
        assert metrics["critic_loss"].item() == pytest.approx(reference.update(batch), rel=1e-4)
    close = {"rtol": 1e-4, "atol": 2e-6}
    torch.testing.assert_close(sac.log_temperature, reference.log_alpha, **close)
    pairs = [(sac.actor.network, 0, reference.actor)]
    pairs += [(sac.critic, i, reference.critics[i]) for i in range(2)]
    pairs += [(sac.target, i, reference.targets[i]) for i in range(2)]
    for network, member, expected in pairs:
        for ours, theirs in zip(Reference.layers(network, member), expected, strict=True):
            torch.testing.assert_close(ours, theirs, **close)


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_the_average_follows_the_actor(rate):
    sac = agent(averaging_rate=rate)
    expected = [p.detach().clone() for p in sac.actor.parameters()]
    for seed in range(3):
        sac.update(transitions(32, seed))
        expected = [
            (1 - rate) * mean + rate * p.detach()
            for mean, p in zip(expected, sac.actor.parameters(), strict=True)
        ]
    for ours, theirs in zip(sac.average.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert not ours.requires_grad
    for ours, theirs in zip(sac.average.parameters(), sac.actor.parameters(), strict=True):
        assert torch.equal(ours, theirs) == (rate == 1)


def test_the_actor_s_loss_moves_no_critic():
    """With the critics' own loss at its minimum their gradients are 0, the actor's are not."""
    sac = agent()
    batch = transitions(8, terminated=1)
    q = sac.value(sac.critic, batch.observation, batch.action).detach()
    with torch.no_grad():  # one critic's output becomes the other's, so that one reward fits both
        for ours in sac.critic.parameters():
            ours[1] = ours[0]
    sac.update(batch._replace(reward=q[0]))
    for parameter in sac.critic.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() < 1e-6
        assert parameter.requires_grad
    assert max(p.grad.abs().max() for p in sac.actor.parameters()) > 1e-3


def test_only_terminated_rows_forget_the_future():
    """A change of the next observation is nothing to a terminated row, all to a truncated one."""
    losses = {}
    for ends in (0, 1):
        batch = transitions(16, terminated=ends)
        other = batch._replace(next_observation=batch.next_observation + 1)
        losses[ends] = [agent().update(b)["critic_loss"].item() for b in (batch, other)]
    assert losses[1][0] == losses[1][1]
    assert losses[0][0] != losses[0][1]


@pytest.mark.parametrize("target_entropy", [-20.0, 20.0])
def test_the_temperature_rises_where_entropy_is_wanted(target_entropy):
    sac = agent(target_entropy=target_entropy)
    sac.update(transitions(16))
    change = sac.log_temperature.item()
    assert change == pytest.approx(math.copysign(1e-3, target_entropy), rel=1e-3)  # Adam's first


@pytest.mark.slow
def test_a_bandit_is_learned_to_its_soft_optimum():
    """One step, reward -(a - c)^2 / (2 w^2), temperature alpha held still.

    Then pi* is proportional to exp(r / alpha): a Gaussian about c of variance alpha w^2 = 0.02^2,
    narrow enough for the squashing to keep it one: Q(a) = r(a), and in the unit action the entropy
    is log(sqrt(2 pi e) sqrt(alpha) w / half_width). What gradient noise leaves after so few steps:
    the mean within that deviation, the entropy within 0.15 nats (a deviation that is off by 15 %),
    Q within 0.1 of rewards from -2 to 0.
    """
    c, w, alpha = 0.4, 0.2, 0.01
    settings = PolicySettings(
        policy_hidden=32, policy_learning_rate=3e-3, target_rate=1.0, temperature=alpha
    )
    bounds = torch.tensor([-0.5]), torch.tensor([1.0])
    sac = SoftActorCritic(settings, 1, *bounds, seeded())
    sac.log_temperature.requires_grad_(False)
    generator = seeded(1)
    one = torch.ones(128, 1)
    for step in range(1200):
        if step == 900:
            sac.optimizer.param_groups[0]["lr"] = 3e-4
        near, _ = sac.actor.sample(one, generator)
        anywhere = -0.5 + 1.5 * torch.rand(128, 1, generator=generator)
        action = torch.where(torch.rand(128, 1, generator=generator) < 0.5, near, anywhere).detach()
        reward = -((action - c) ** 2)[:, 0] / (2 * w**2)
        metrics = sac.update(Batch(one, action, reward, one, torch.ones(128)))
    mean, _ = sac.actor(one[:1])
    deviation = math.sqrt(alpha) * w
    assert (0.25 + 0.75 * mean.tanh()).item() == pytest.approx(c, abs=deviation)
    entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(deviation / 0.75)
    assert metrics["entropy"].item() == pytest.approx(entropy, abs=0.15)
    actions = torch.linspace(0.0, 0.8, 9).unsqueeze(-1)
    q = sac.value(sac.critic, torch.ones(9, 1), actions).detach()
    expected = -((actions - c) ** 2)[:, 0] / (2 * w**2)
    torch.testing.assert_close(q, expected.expand(2, -1), rtol=0, atol=0.1)


def test_its_state_continues_bit_for_bit():
    first = agent()
    for seed in range(2):
        first.update(transitions(8, seed))
    second = agent(seed=5)
    second.load_state(first.state())
    second.generator.set_state(first.generator.get_state())
    saved = {k: v.clone() for k, v in second.state().items()}
    for seed in range(2, 4):
        first.update(transitions(8, seed))
    untouched = second.state()  # the two share no memory
    assert all(torch.equal(saved[k], untouched[k]) for k in saved)
    for seed in range(2, 4):
        second.update(transitions(8, seed))
    a, b = first.state(), second.state()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["log_temperature"], saved["log_temperature"])


@pytest.mark.parametrize(
    "low", [(-math.inf, 0.5), (3.0, 0.5)], ids=["without end", "above the upper ones"]
)
def test_bounds_of_actions_that_cannot_be(low):
    with pytest.raises(InputError, match="soft actor-critic needs a bounded box"):
        agent(low=low)


@pytest.mark.parametrize(("scaled", "alpha"), [(True, 0.05), (False, 0.2)])
def test_the_initial_temperature_is_in_rewards_before_or_after_their_scale(scaled, alpha):
    sac = agent(temperature=0.2, reward_scale=0.25, scale_temperature=scaled)
    assert sac.log_temperature.item() == pytest.approx(math.log(alpha))


def test_imitation_raises_the_density_of_the_datas_actions_and_nothing_but_its_own_parts():
    """The optimum is known: data from a squashed Gaussian have its mean and deviation."""
    generator = torch.Generator().manual_seed(0)
    settings = PolicySettings(policy_hidden=32, policy_learning_rate=3e-3)
    sac = SoftActorCritic(settings, 1, torch.tensor([-2.0]), torch.tensor([4.0]), generator)
    obs = torch.zeros(1024, 1)
    raw = 0.4 + 0.3 * torch.randn(1024, 1, generator=generator)
    batch = Batch(obs, 1 + 3 * raw.tanh(), torch.zeros(1024), obs, torch.ones(1024))
    before = sac.log_temperature.item()
    for _ in range(1000):
        sac.update(batch, imitate=True)
    mean, log_std = sac.actor(obs[:1])
    # the likelihood of these draws is largest at their own mean and deviation
    assert mean.item() == pytest.approx(raw.mean().item(), abs=0.01)
    assert log_std.exp().item() == pytest.approx(raw.std().item(), abs=0.01)
    assert sac.log_temperature.item() == before
    known = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    exact = known.log_prob(raw.tanh())[:, 0]
    torch.testing.assert_close(sac.actor.log_prob(obs, batch.action), exact, rtol=1e-3, atol=1e-3)


def test_near_data_the_actors_loss_weighs_values_of_unit_size_against_imitation():
    generator = torch.Generator().manual_seed(0)
    low, high = -torch.ones(2), 3 * torch.ones(2)
    small = PolicySettings(policy_hidden=8)
    sac = SoftActorCritic(small, 3, low, high, generator, value_weight=0.7)
    data = Batch(
        torch.randn(16, 3, generator=generator),
        low + (high - low) * torch.rand(16, 2, generator=generator),
        torch.randn(16, generator=generator),
        torch.randn(16, 3, generator=generator),
        torch.zeros(16),
    )
    near = Batch(*(part[:5] for part in data))
    sac.optimizer.step = lambda: None  # type: ignore[method-assign,assignment]
    start = generator.get_state()
    sac.update(data, behaviour=near)
    found = [p.grad.clone() for p in sac.actor.parameters() if p.grad is not None]
    generator.set_state(start)
    sac.actor.sample(data.next_observation, generator)  # the targets' draw
    act, log_prob = sac.actor.sample(data.observation, generator)
    unit = (torch.cat([data.observation, (act - 1) / 2], -1),)
    q = sac.critic(*unit).squeeze(-1).amin(0)
    values = (log_prob - q).mean() / q.detach().abs().mean()  # the temperature is 1 at first
    imitation = -sac.actor.log_prob(near.observation, near.action).mean()
    expected = torch.autograd.grad(0.7 * values + imitation, list(sac.actor.parameters()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_update_that_is_not_finite_is_left_out_and_counted(bad):
    generator = torch.Generator().manual_seed(0)
    small = PolicySettings(policy_hidden=8)
    sac = SoftActorCritic(small, 2, -torch.ones(1), torch.ones(1), generator)
    good = Batch(
        torch.randn(8, 2), torch.rand(8, 1), torch.randn(8), torch.randn(8, 2), torch.zeros(8)
    )
    spoilt = good._replace(reward=torch.full((8,), bad))
    before = {k: v.clone() for k, v in sac.state().items() if "adam" not in k}
    metrics = sac.update(spoilt)
    assert metrics["skipped_steps"] == 1.0
    assert all(value.isfinite() for value in metrics.values())
    for name, value in before.items():  # no momentum yet
        torch.testing.assert_close(sac.state()[name], value, rtol=0, atol=0)
    assert sac.update(good)["skipped_steps"] == 0.0
    assert not torch.equal(sac.state()["log_temperature"], before["log_temperature"])


def test_a_lower_rate_is_part_of_its_state():
    first, second = (agent(actor_learning_rate=2e-4) for _ in range(2))
    assert not first.learning_rate_scaled
    first.scale_learning_rate(0.1)
    second.load_state(first.state())
    assert second.learning_rate_scaled
    rates = [group["lr"] for group in second.optimizer.param_groups]
    assert rates == pytest.approx([1e-4, 2e-5, 1e-4])  # critics, actor, temperature
