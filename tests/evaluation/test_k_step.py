"""Open-loop error against dynamics whose error is known."""

import pytest
import torch

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.k_step import k_step, starts_of_windows
from mbrl_bilevel.models.dynamics import DynamicsModel


def drifting(episodes=4, steps=12, drift=0.5):
    """Every step adds `drift` to a random start, whatever the action."""
    g = torch.Generator().manual_seed(0)
    start = torch.randn(episodes, 1, 2, generator=g)
    path = start + drift * torch.arange(steps + 1).view(1, -1, 1)
    count = episodes * steps
    return Transitions(
        observation=path[:, :-1].reshape(count, 2),
        action=torch.zeros(count, 1),
        reward=torch.zeros(count),
        next_observation=path[:, 1:].reshape(count, 2),
        terminated=torch.zeros(count, dtype=torch.bool),
        truncated=(torch.arange(count) + 1) % steps == 0,
        episode=torch.arange(count) // steps,
    )


def model_that_adds(change, data):
    model = DynamicsModel(2, 1, members=2, hidden=(4,))
    with torch.no_grad():
        for p in model.network.parameters():
            p.zero_()
        model.target_standardizer.mean.fill_(change)
    model.input_standardizer.fit(torch.cat([data.observation, data.action], 1))
    return model


@pytest.mark.parametrize("change", [0.5, 0.4, 0.0])
def test_the_error_grows_with_the_steps_as_it_must(change):
    data = drifting()
    model = model_that_adds(change, data)
    found = k_step(model, data, 6, torch.Generator().manual_seed(0))
    scale = model.input_standardizer.std[:2]
    steps = torch.arange(1.0, 7.0)
    size = (1 / scale).square().mean().sqrt()
    torch.testing.assert_close(found.rmse, abs(0.5 - change) * steps * size, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.persistence, 0.5 * steps * size, rtol=1e-4, atol=1e-5)


def test_windows_stay_within_an_episode():
    data = drifting(episodes=3, steps=5)
    assert starts_of_windows(data, 4).tolist() == [0, 1, 5, 6, 10, 11]
    assert starts_of_windows(data, 1).tolist() == list(range(15))
    assert starts_of_windows(data, 6).tolist() == []


def test_a_horizon_longer_than_every_episode_is_refused():
    data = drifting(steps=5)
    with pytest.raises(InputError, match="no held-out episode has 6 steps"):
        k_step(model_that_adds(0.0, data), data, 6, torch.Generator())
