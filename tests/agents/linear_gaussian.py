"""A model of two observations and one action, linear and Gaussian, whose numbers are known."""

import torch

from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings

# Change of the observation, by (observation, action), of each member.
CHANGES = torch.tensor(
    [
        [[-0.2, 0.1], [0.3, -0.1], [0.4, 0.2]],
        [[-0.1, 0.0], [0.2, -0.3], [0.1, 0.5]],
        [[-0.3, 0.2], [0.1, -0.2], [0.3, 0.3]],
    ]
)
SHIFTS = torch.tensor([[0.05, 0.0], [0.0, -0.1], [0.1, 0.1]])


def quadratic(obs, act, next_obs):
    return -next_obs.square().sum(-1) - 0.1 * act.square().sum(-1) + 0.2 * obs[..., 0]


def never(next_obs):
    return torch.zeros_like(next_obs[..., 0], dtype=torch.bool)


def task(reward=quadratic, terminated=never):
    return Task("Line-v0", reward, terminated, ("x", "y"))


def linear_model(std=0.0, *, members=3, learn_reward=False):
    """In float64. A learned reward is that of `CHANGES`, the first two dimensions' sum."""
    bounds = (-30.0, 20.0)  # far off: they are soft
    model = DynamicsModel(
        2,
        1,
        ModelSettings(members=members, hidden=()),
        env_id="Line-v0",
        log_std_bounds=bounds,
        learn_reward=learn_reward,
    ).double()
    n = 2 + learn_reward
    with torch.no_grad():
        layer = model.network.network.linear_layers()[-1]
        layer.weight.zero_()
        layer.weight[:, :, :2] = CHANGES[:members]
        layer.bias[:, 0, :2] = SHIFTS[:members]
        if learn_reward:
            layer.weight[:, :, 2] = CHANGES[:members].sum(-1)
        layer.bias[:, 0, n:] = torch.log(torch.tensor(std)) if std else -100.0
    return model


def expected_step(model, member, obs, act):
    """Where the mean of one member leads, written out."""
    x = torch.cat([obs, act], -1)
    return obs + x @ CHANGES[member].to(x) + SHIFTS[member].to(x)
