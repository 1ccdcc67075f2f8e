"""A system of two coupled dimensions, which no small network fits, and windows of its episodes."""

from dataclasses import replace

import torch

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.outer_data import OuterWindows


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def swirling(episodes=10, length=20, noise=0.1, seed=0):
    """Episodes side by side in float64; the reward is a function of the state, plus noise."""
    g = seeded(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    state = normal(episodes, 2)
    observation, action, after = [], [], []
    for _ in range(length):
        act = normal(episodes, 1)
        turn = torch.stack([(2 * state[:, 1]).sin(), -1.5 * state[:, 0].tanh()], -1)
        moved = 0.7 * state + 0.6 * turn + 0.3 * act + noise * normal(episodes, 2)
        observation.append(state)
        action.append(act)
        after.append(moved)
        state = moved
    obs, act, after = (torch.stack(p, 1).flatten(0, 1) for p in (observation, action, after))
    reward = obs[:, 0].cos() + noise * normal(len(obs))
    never = torch.zeros(len(obs), dtype=torch.bool)
    episode = torch.arange(len(obs)) // length
    return Transitions(obs, act, reward, after, never, never, episode)


def model_of(data, *, members=1, hidden=(3,), learn_reward=True, **options):
    """An untrained model in float64, its statistics those of the data."""
    settings = ModelSettings(members=members, hidden=hidden, **options)
    size = data.observation.shape[1]
    model = DynamicsModel(size, 1, settings, learn_reward=learn_reward, generator=seeded(3))
    model = model.double()
    model.fit_standardizers(data)
    return model


def all_windows(model, data, horizon):
    """Every window of the data, for every member."""
    rows = torch.arange(len(data)).expand(model.members, -1)
    return next(OuterWindows(model, data, rows, horizon, len(data), seeded()))


def samples_of(model, data):
    """All rows as the inner batch of every member."""
    return tuple(part.expand(model.members, -1, -1) for part in model.encode(data))


def with_constant(data):
    """The same data with a third dimension of the observation that stands still."""
    still = torch.full_like(data.observation[:, :1], 2.5)
    return replace(
        data,
        observation=torch.cat([data.observation, still], -1),
        next_observation=torch.cat([data.next_observation, still], -1),
    )
