"""Pessimism takes deviations over particles off the mean, and leaves lost sequences lost."""

import pytest
import torch

from mbrl_bilevel.planning.score import Scoring
from mbrl_bilevel.protocols import Trajectories


class Disagreeing:
    """Two particles whose rewards are given, [p b n t]."""

    def __init__(self, rewards):
        self.rewards = torch.tensor(rewards)

    def trajectories(self, obs, actions, generator):
        shape = (*self.rewards.shape[:-1], self.rewards.shape[-1] + 1, 1)
        return Trajectories(torch.zeros(shape), self.rewards)


class NoTask:
    env_id, reward, observation_names = "None-v0", None, ("x",)

    def terminated(self, next_obs):
        return torch.zeros(next_obs.shape[:-1], dtype=torch.bool)


@pytest.mark.parametrize("pessimism", [0.0, 0.5, 2.0])
def test_the_return_is_the_mean_less_the_deviations(pessimism):
    model = Disagreeing([[[[1.0, 2.0], [3.0, 3.0]]], [[[2.0, 5.0], [3.0, 3.0]]]])
    found = Scoring(pessimism=pessimism)(
        model, NoTask(), torch.zeros(1, 1), torch.zeros(1, 2, 2, 1), torch.Generator()
    )
    assert found.returns.tolist() == [[5.0 - 2.0 * pessimism, 6.0]]


def test_a_sequence_that_is_not_finite_stays_the_worst():
    model = Disagreeing([[[[torch.nan, 2.0], [3.0, 3.0]]], [[[2.0, 5.0], [1.0, 1.0]]]])
    found = Scoring(pessimism=1.0)(
        model, NoTask(), torch.zeros(1, 1), torch.zeros(1, 2, 2, 1), torch.Generator()
    )
    assert found.returns.tolist() == [[-torch.inf, 2.0]]
    assert found.non_finite == 1
