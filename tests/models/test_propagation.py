"""Propagation against slow references and the closed forms of linear Gaussian ensembles."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.protocols import TrajectoryModel
from tests.models.test_dynamics import dynamics, transitions

# Members of a linear world: x' = A_e x + B_e a + c_e + s_e noise (one observation, one action).
A = torch.tensor([0.9, 1.1, 0.7], dtype=torch.float64)
B = torch.tensor([0.5, 0.2, 0.4], dtype=torch.float64)
C = torch.tensor([0.1, -0.2, 0.35], dtype=torch.float64)
S = torch.tensor([0.1, 0.3, 0.2], dtype=torch.float64)
OBS, ACTIONS = 1.5, torch.tensor([0.5, -1.0, 0.3, 0.8], dtype=torch.float64)
SEQUENCES = 30_000


def linear() -> DynamicsModel:
    """The linear world in networks without hidden layers, behind odd standardisers."""
    model = DynamicsModel(
        1, 1, ModelSettings(members=3, hidden=()), generator=torch.Generator().manual_seed(0)
    )
    model = model.double()
    inputs, targets = model.input_standardizer, model.target_standardizer
    inputs.mean.copy_(torch.tensor([2.0, -1.0]))
    inputs.std.copy_(torch.tensor([3.0, 0.5]))
    targets.mean.fill_(0.4)
    targets.std.fill_(0.25)
    with torch.no_grad():
        layer: Any = model.network.network.layers[0]
        slopes = torch.stack([A - 1, B], -1)  # of the change, by (observation, action)
        layer.weight[..., 0] = slopes * inputs.std / targets.std
        layer.bias[:, 0, 0] = (C + slopes @ inputs.mean - targets.mean) / targets.std
    model.network.set_std((S / targets.std).unsqueeze(-1))
    return model


def roll(model: TrajectoryModel, sequences: int = SEQUENCES, seed: int = 0) -> Tensor:
    """Particles [p n t+1] of one environment whose every sequence is the same."""
    obs = torch.full((1, 1), OBS, dtype=torch.float64)
    actions = ACTIONS[None, None, :, None].expand(1, sequences, -1, -1)
    found = model.trajectories(obs, actions, torch.Generator().manual_seed(seed))
    return found.observations[:, 0, :, :, 0]


def of_one_member() -> tuple[Tensor, Tensor]:
    """Mean and variance [e t+1] of the state when a member moves it all the way."""
    mean, variance = [torch.full((3,), OBS, dtype=torch.float64)], [torch.zeros(3).double()]
    for a in ACTIONS:
        mean.append(A * mean[-1] + B * a + C)
        variance.append(A**2 * variance[-1] + S**2)
    return torch.stack(mean, -1), torch.stack(variance, -1)


def of_a_member_a_step() -> tuple[Tensor, Tensor]:
    """Mean and variance [t+1] when a member drawn anew moves it at every step.

    E x' and E x'^2 are those of the mixture, whatever the law of x beyond its two moments.
    """
    first, second = [torch.tensor(OBS).double()], [torch.tensor(OBS**2).double()]
    for a in ACTIONS:
        m, v, rest = first[-1], second[-1], B * a + C
        first.append((A * m + rest).mean())
        second.append((A**2 * v + 2 * A * m * rest + rest**2 + S**2).mean())
    mean = torch.stack(first)
    return mean, torch.stack(second) - mean**2


def check_moments(sample: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Mean and variance of [k t] within five standard errors, the latter's from the sample."""
    count, deviation = len(sample), variance.sqrt()
    assert ((sample.mean(0) - mean).abs() <= 5 * deviation / count**0.5 + 1e-12).all()
    squares = (sample - mean).square()
    error = squares.std(0) / count**0.5
    assert ((squares.mean(0) - variance).abs() <= 5 * error + 1e-12).all()


def test_every_particle_of_ts_inf_stays_with_its_member() -> None:
    sample = roll(Propagation(linear(), "ts_inf", particles=6))
    mean, variance = of_one_member()
    for particle in range(6):
        check_moments(sample[particle], mean[particle // 2], variance[particle // 2])


@pytest.mark.parametrize(
    ("kind", "particles"), [("ts1", 1), ("ts1", 4), ("mixture", 1), ("mixture", 2)]
)
def test_ts1_and_the_mixture_have_the_moments_of_a_member_a_step(kind: str, particles: int) -> None:
    sample = roll(Propagation(linear(), kind, particles=particles), SEQUENCES // particles)
    check_moments(sample.flatten(0, 1), *of_a_member_a_step())


def test_the_mixture_is_gaussian_after_a_step_where_ts1_is_not() -> None:
    """Excess kurtosis of the law after one step: 0, and that of the mixture of Gaussians."""
    gap = A * OBS + B * ACTIONS[0] + C
    gap = gap - gap.mean()
    variance = (S**2 + gap**2).mean()
    mixed = (3 * S**4 + 6 * S**2 * gap**2 + gap**4).mean() / variance**2 - 3
    assert mixed > 0.5  # otherwise the two could not be told apart
    for kind, expected in (("ts1", float(mixed)), ("mixture", 0.0)):
        step = roll(Propagation(linear(), kind, particles=1))[0, :, 1]
        z = (step - step.mean()) / step.std(correction=0)
        fourth = z.pow(4)
        error = float(fourth.std()) / len(z) ** 0.5
        assert float(fourth.mean()) - 3 == pytest.approx(expected, abs=5 * error)


def test_means_are_those_of_the_members_exactly() -> None:
    sample = roll(Propagation(linear(), "mean"), sequences=2)
    torch.testing.assert_close(sample, of_one_member()[0].unsqueeze(1).expand_as(sample))


def test_ts1_deals_every_member_its_share_and_changes_them() -> None:
    """Members without noise can be told from what they do; 100 rows leave 2 of 102 places over."""
    model = linear()
    model.network.set_std(torch.full((3, 1), 1e-9, dtype=torch.float64))
    sample = roll(Propagation(model, "ts1", particles=2), sequences=50).flatten(0, 1)
    chosen = []
    for t, a in enumerate(ACTIONS):
        means = A * sample[:, t : t + 1] + B * a + C
        distance, member = (means - sample[:, t + 1 : t + 2]).abs().min(1)
        assert distance.max() < 1e-3
        chosen.append(member)
        assert all(32 <= count <= 34 for count in torch.bincount(member, minlength=3).tolist())
    assert len({tuple(member.tolist()) for member in chosen}) > 1


@pytest.mark.parametrize("learn_reward", [False, True])
def test_means_are_repeated_single_steps_of_one_member(learn_reward: bool) -> None:
    model = dynamics(learn_reward=learn_reward)
    model.elites = torch.tensor([2, 0])
    g = torch.Generator().manual_seed(4)
    obs, actions = transitions(3).observation, torch.randn(3, 5, 6, 2, generator=g)
    imagined = Propagation(model, "mean").trajectories(obs, actions, g)
    assert imagined.observations.shape == (2, 3, 5, 7, 3)
    assert torch.equal(imagined.observations[..., 0, :], obs[:, None].expand(2, 3, 5, 3))
    for p, member in enumerate([2, 0]):
        state = obs.unsqueeze(1).expand(-1, 5, -1).reshape(-1, 3)
        for t in range(6):
            mean = model.predict(state, actions[:, :, t].reshape(-1, 2)).mean[member]
            state = (state + mean[:, :3]).clamp(model.lowest, model.highest)
            found = imagined.observations[p, :, :, t + 1].reshape(-1, 3)
            torch.testing.assert_close(found, state, rtol=1e-4, atol=1e-4)
            if learn_reward:
                reward = imagined.rewards[p, :, :, t].reshape(-1)
                torch.testing.assert_close(reward, mean[:, 3], rtol=1e-4, atol=1e-4)
    assert (imagined.rewards is None) == (not learn_reward)
    assert imagined.disagreement is None


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_the_mixtures_first_step_has_the_mixtures_marginal_moments(covariance: str) -> None:
    """A network of several dimensions with a reward, one step, against `predict`."""
    model = dynamics(learn_reward=True, options={"covariance": covariance})
    model.lowest.fill_(-1e9)
    model.highest.fill_(1e9)
    obs, act, count = transitions(1).observation, transitions(1).action, 40_000
    actions = act[:, None, None].expand(1, count, 1, 2)
    found = Propagation(model, "mixture").trajectories(
        obs, actions, torch.Generator().manual_seed(0)
    )
    change = found.observations[0, 0, :, 1] - obs
    sample = torch.cat([change, found.rewards[0, 0]], -1)
    members = model.predict(obs, act)
    mean = members.mean[:, 0].mean(0)
    variance = (members.std[:, 0].square() + members.mean[:, 0].square()).mean(0) - mean.square()
    check_moments(sample.double(), mean.double(), variance.double())
    correlation = torch.corrcoef(sample.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / count**0.5  # dimensions are independent


@pytest.mark.parametrize("kind", ["ts1", "ts_inf", "mixture"])
def test_sampled_particles_differ_and_repeat_by_seed(kind: str) -> None:
    model = dynamics(learn_reward=True)
    obs, actions = transitions(2).observation, torch.randn(2, 5, 6, 2)
    futures = Propagation(model, kind, particles=8)

    def once(seed: int) -> Any:
        return futures.trajectories(obs, actions, torch.Generator().manual_seed(seed))

    first, second, other = once(0), once(0), once(1)
    assert first.observations.shape == (8, 2, 5, 7, 3)
    assert first.rewards.shape == (8, 2, 5, 6)
    assert torch.equal(first.observations, second.observations)
    assert torch.equal(first.rewards, second.rewards)
    assert not torch.equal(first.observations, other.observations)
    assert (first.observations[:, :, :, 1:].std(0) > 0).all()


@pytest.mark.parametrize(
    ("kind", "count"), [("ts1", 4), ("ts_inf", 4), ("mean", 4), ("mixture", 1)]
)
def test_one_evaluation_of_every_elite_is_the_default(kind: str, count: int) -> None:
    """Rows that the network sees a step: as many for every kind."""
    model, seen = dynamics(), []
    futures = Propagation(model, kind)
    hook = futures.network.network.register_forward_hook(
        lambda layer, args, out: seen.append(out.shape[:2])
    )
    found = futures.trajectories(
        transitions(2).observation, torch.zeros(2, 5, 3, 2), torch.Generator()
    )
    hook.remove()
    assert len(found.observations) == count
    assert seen == [(4, 10)] * 3


def test_the_model_itself_is_ts_inf_with_one_particle_per_elite() -> None:
    model = dynamics()
    obs, actions = transitions(2).observation, torch.randn(2, 5, 6, 2)
    plain = Propagation(model).trajectories(obs, actions, torch.Generator().manual_seed(0))
    named = Propagation(model, "ts_inf", particles=4).trajectories(
        obs, actions, torch.Generator().manual_seed(0)
    )
    assert torch.equal(plain.observations, named.observations)


def test_disagreement_of_means_by_hand() -> None:
    """One environment, one sequence: deviation of members' paths over the training deviation 3."""
    model = Propagation(linear(), "mean", disagreement=True)
    obs = torch.full((1, 1), OBS, dtype=torch.float64)
    found = model.trajectories(obs, ACTIONS[None, None, :, None], torch.Generator())
    mean = of_one_member()[0][:, 1:]
    expected = ((mean - mean.mean(0)).square().sum(0) / 3).sqrt() / 3.0
    torch.testing.assert_close(found.disagreement, expected[None, None])


@pytest.mark.parametrize("kind", ["ts1", "ts_inf"])
def test_disagreement_of_particles_is_their_spread_over_dimensions(kind: str) -> None:
    model = dynamics()
    obs, actions = transitions(2).observation, torch.randn(2, 5, 6, 2)
    found = Propagation(model, kind, particles=8, disagreement=True).trajectories(
        obs, actions, torch.Generator().manual_seed(0)
    )
    for b in range(2):
        for n in range(5):
            for t in range(6):
                after = found.observations[:, b, n, t + 1] / model.input_standardizer.std[:3]
                spread = [float(after[:, i].var(correction=0)) for i in range(3)]
                assert found.disagreement is not None
                expected = pytest.approx(math.sqrt(sum(spread) / 3), rel=1e-3)
                assert float(found.disagreement[b, n, t]) == expected


def test_disagreement_of_the_mixture_is_that_of_the_means_from_each_state() -> None:
    model = dynamics(learn_reward=True)
    obs, actions = transitions(2).observation, torch.randn(2, 5, 6, 2)
    found = Propagation(model, "mixture", particles=3, disagreement=True).trajectories(
        obs, actions, torch.Generator().manual_seed(0)
    )
    states = found.observations[..., :-1, :].reshape(-1, 3)
    means = model.predict(states, actions.expand(3, -1, -1, -1, -1).reshape(-1, 2)).mean[..., :3]
    variance = (means / model.input_standardizer.std[:3]).var(0, correction=0)
    expected = variance.reshape(3, 2, 5, 6, 3).mean((0, -1)).sqrt()
    torch.testing.assert_close(found.disagreement, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["ts1", "ts_inf", "mean", "mixture"])
def test_imagined_states_stay_in_the_widened_range_of_the_data(kind: str) -> None:
    model, data = dynamics(), transitions()
    with torch.no_grad():
        model.target_standardizer.mean.fill_(100.0)
    imagined = Propagation(model, kind).trajectories(
        data.observation[:2], torch.zeros(2, 1, 5, 2), torch.Generator()
    )
    found = imagined.observations[..., 1:, :]
    torch.testing.assert_close(found, model.highest.expand_as(found))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "ts2"}, "propagation 'ts2'"),
        ({"particles": 0}, "particles 0"),
        ({"particles": 6}, "a multiple of 4"),
        ({"kind": "mean", "particles": 8}, "leave the number out"),
        ({"kind": "ts1", "particles": 1, "disagreement": True}, "at least 2"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Propagation(dynamics(), **arguments)


def test_a_single_member_cannot_disagree() -> None:
    one = dynamics()
    one.elites = torch.tensor([1])
    with pytest.raises(InputError, match="1 members"):
        Propagation(one, "mixture", particles=4, disagreement=True)


@pytest.mark.parametrize("kind", ["ts1", "ts_inf", "mean", "mixture"])
def test_around_a_policy_every_particle_acts_by_its_own_state(kind: str) -> None:
    """Linear feedback: the actions are those of the states, and lead on as actions given do."""
    model = linear()
    given = ACTIONS.reshape(1, 1, -1, 1).expand(1, 5, -1, -1)
    obs = torch.full((1, 1), OBS, dtype=torch.float64)

    def prior(states: Tensor, deviation: Tensor) -> Tensor:
        return 0.3 * states + deviation

    around = Propagation(model, kind, prior=prior)
    found = around.trajectories(obs, given, torch.Generator().manual_seed(0))
    assert found.actions is not None
    before = found.observations[..., :-1, :]
    torch.testing.assert_close(found.actions, 0.3 * before + given)
    if kind == "mean":  # the same linear world with feedback, without noise
        states = found.observations[:, 0, 0, :, 0]
        action = found.actions[:, 0, 0, :, 0]
        after = A[:, None] * states[:, :-1] + B[:, None] * action + C[:, None]
        torch.testing.assert_close(states[:, 1:], after)


def test_a_prior_of_one_action_is_that_action() -> None:
    """The same random numbers: bit for bit what the shifted actions give."""
    model, shift = linear(), 0.25
    around = Propagation(model, "ts_inf", prior=lambda states, deviation: deviation + shift)
    obs = torch.full((2, 1), OBS, dtype=torch.float64)
    given = torch.randn(2, 3, 4, 1, generator=torch.Generator().manual_seed(1)).double()
    one = around.trajectories(obs, given, torch.Generator().manual_seed(0))
    other = Propagation(model).trajectories(obs, given + shift, torch.Generator().manual_seed(0))
    assert torch.equal(one.observations, other.observations)
    assert other.actions is None


@pytest.mark.parametrize("kind", ["ts_inf", "mean"])
def test_futures_are_those_of_a_loop_over_members_and_rows(kind: str) -> None:
    """Plain passes, a row at a time, in own units; only the noise is drawn for all at once."""
    model = dynamics(learn_reward=True).double()
    model.elites = torch.tensor([2, 0, 3])
    obs = transitions(2).observation.double()
    actions = torch.randn(2, 5, 4, 2, generator=torch.Generator().manual_seed(1)).double()
    found = Propagation(model, kind).trajectories(obs, actions, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    low, high = model.reachable(obs, 4)
    state = obs[None, :, None].expand(3, 2, 5, 3).clone()
    assert found.rewards is not None
    for t in range(4):
        noise = torch.zeros(3, 10, 4).double()
        if kind == "ts_inf":
            noise = torch.randn(3, 10, 4, generator=generator, dtype=torch.float64)
        for p, b, n in itertools.product(range(3), range(2), range(5)):
            gaussian = model.predict(state[p, b, n][None], actions[b, n, t][None])
            member = int(model.elites[p])
            y = gaussian.mean[member, 0] + gaussian.std[member, 0] * noise[p, b * 5 + n]
            state[p, b, n] = (state[p, b, n] + y[:3]).clamp(low[b], high[b]).detach()
            assert float(found.rewards[p, b, n, t]) == pytest.approx(y[3].item(), rel=1e-10)
        torch.testing.assert_close(found.observations[..., t + 1, :], state, rtol=1e-10, atol=1e-10)
