"""A system in which every step adds the same drift, and models of it."""

import torch

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings


def drifting(lengths=(12, 12, 12, 12), drift=0.5, noise=0.0, seed=0):
    """Every step adds `drift` (and noise of that deviation), whatever the action."""
    g = torch.Generator().manual_seed(seed)
    parts = []
    for steps in lengths:
        moves = drift + noise * torch.randn(steps, 2, generator=g)
        parts.append(
            torch.randn(1, 2, generator=g) + torch.cat([torch.zeros(1, 2), moves]).cumsum(0)
        )
    lengths = torch.tensor(lengths)
    count = int(lengths.sum())
    return Transitions(
        observation=torch.cat([path[:-1] for path in parts]),
        action=torch.rand(count, 1, generator=g),
        reward=torch.zeros(count),
        next_observation=torch.cat([path[1:] for path in parts]),
        terminated=torch.zeros(count, dtype=torch.bool),
        truncated=torch.zeros(count, dtype=torch.bool),
        episode=torch.arange(len(lengths)).repeat_interleave(lengths),
    )


def model_that_adds(change, data, std=1e-4, members=2):
    """Members that all predict the same change with the same deviation, in the units of `data`."""
    model = DynamicsModel(2, 1, ModelSettings(members=members, hidden=(4,)))
    with torch.no_grad():
        for p in model.network.parameters():
            p.zero_()
        model.target_standardizer.mean.fill_(change)
    model.network.set_std(torch.full((members, 2), std))
    model.input_standardizer.fit(torch.cat([data.observation, data.action], 1))
    return model
