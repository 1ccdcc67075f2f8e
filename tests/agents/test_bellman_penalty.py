"""The deviation of the members' Bellman targets is that of a known model under known critics."""

import math

import pytest
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.agents.bellman_penalty import BellmanPenalty
from mbrl_bilevel.agents.policy_learner import PolicyLearner
from mbrl_bilevel.agents.setting_groups import PolicySettings, RolloutSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings

SHIFTS = (0.5, 1.0, 3.0)  # of the observation, by each member
GAMMA, VALUE = 0.9, 7.0
SPACES = Spaces(Box(-50.0, 50.0, (1,)), Box(-1.0, 1.0, (1,)))
OBS, ACT = torch.tensor([[0.0], [1.5], [4.0]]), torch.tensor([[0.2], [-0.4], [0.0]])


def model(std):
    found = DynamicsModel(
        1, 1, ModelSettings(members=3, hidden=()), env_id="Line-v0", log_std_bounds=(-30.0, 20.0)
    )
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.zero_()
        layer = found.network.network.linear_layers()[-1]
        layer.bias[:, 0, 0] = torch.tensor(SHIFTS)
        layer.bias[:, :, 1] = math.log(std) if std else -100.0
    return found


def penalty(std=0.0, samples=1, weight=1.0, ends_above=2.0, **policy):
    task = Task(
        "Line-v0", lambda s, a, after: 2 * after[..., 0] + a[..., 0],
        lambda after: after[..., 0] > ends_above, ("x",),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    settings = PolicySettings(policy_hidden=4, discount=GAMMA, **policy)
    learner = PolicyLearner(settings, SPACES, generator)
    networks = learner.networks
    with torch.no_grad():  # every value is VALUE, and entropy is worth nothing
        networks.log_temperature.fill_(-60.0)
        for parameter in networks.target.parameters():
            parameter.zero_()
        networks.target.linear_layers()[-1].bias.fill_(VALUE)
    return BellmanPenalty(model(std), task, learner, generator, samples=samples, weight=weight)


def targets(ends_above=2.0, cost=0.0, scale=1.0):
    """Of each member [e, b], by hand."""
    rows = []
    for shift in SHIFTS:
        after = OBS[:, 0] + shift
        ends = (after > ends_above).float()
        reward = scale * (2 * after + ACT[:, 0] - cost * ends)
        rows.append(reward + GAMMA * (1 - ends) * VALUE)
    return torch.stack(rows)


def test_deviation_of_members_targets_by_hand():
    expected = targets().std(0, correction=0)
    torch.testing.assert_close(penalty().deviation(OBS, ACT), expected)
    # Where no state terminates, values are alike and rewards alone differ: 2 std(SHIFTS).
    apart = 2 * torch.tensor(SHIFTS).std(correction=0)
    torch.testing.assert_close(
        penalty(ends_above=100.0).deviation(OBS, ACT), apart.expand(3), rtol=1e-5, atol=1e-5
    )


def test_rewards_are_shaped_as_critics_learn_them():
    expected = targets(cost=5.0, scale=0.1).std(0, correction=0)
    found = penalty(termination_cost=5.0, reward_scale=0.1).deviation(OBS, ACT)
    torch.testing.assert_close(found, expected)


def test_noise_averages_out_over_samples():
    """Of 400 samples of deviation 2 x 1 the mean has a standard error of .1; of one 2."""
    apart = 2 * torch.tensor(SHIFTS).std(correction=0)
    rows, acts = OBS.repeat(50, 1), ACT.repeat(50, 1)
    few, many = (
        penalty(std=1.0, samples=k, ends_above=100.0).deviation(rows, acts) - apart
        for k in (1, 400)
    )
    assert many.abs().max() < 0.4  # 4 standard errors of a deviation of three
    assert few.square().mean().sqrt() > 0.5


def test_the_penalty_is_subtracted_from_rewards_and_from_nothing_else():
    batch = Batch(OBS, ACT, torch.tensor([1.0, 2.0, 3.0]), OBS + 1, torch.zeros(3))
    found = penalty(weight=0.5).penalised(batch)
    expected = batch.reward - 0.5 * targets().std(0, correction=0)
    torch.testing.assert_close(found.reward, expected)
    assert all(found[i] is batch[i] for i in (0, 1, 3, 4))
    far = batch._replace(observation=torch.full_like(OBS, math.nan))
    torch.testing.assert_close(penalty().penalised(far).reward, batch.reward)


def test_one_step_targets_are_not_those_of_multi_step():
    with pytest.raises(InputError, match=r"--penalty bellman of --multi-step.*--multi-step False"):
        RolloutSettings(penalty="bellman", multi_step=True)
