import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.data_support_penalty import with_data_support_penalty
from mbrl_bilevel.envs.tasks import get_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.protocols import Task

HOPPER = get_task("Hopper-v5")


def model() -> DynamicsModel:
    """A Hopper model whose inputs have the means 0, 1, ... and the deviations 1, 2, ..."""
    made = DynamicsModel(
        11, 3, ModelSettings(members=1, hidden=(4,)), generator=torch.Generator().manual_seed(0)
    )
    made.input_standardizer.mean.copy_(torch.arange(14.0))
    made.input_standardizer.std.copy_(torch.arange(14.0) + 1)
    return made


def test_the_penalty_is_that_of_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    obs, after = (5 * torch.randn(2, 6, 11, generator=generator) for _ in range(2))
    act = torch.randn(2, 6, 3, generator=generator)
    task = with_data_support_penalty(HOPPER, model(), 0.7)
    assert HOPPER.reward is not None
    plain, found = HOPPER.reward(obs, act, after), task.reward(obs, act, after)
    for index in np.ndindex(2, 6):
        deviations = [(float(after[index][i]) - i) / (i + 1) for i in range(11)]
        squared = sum(deviation**2 for deviation in deviations) / 11
        expected = float(plain[index]) - 0.7 * (1 - math.exp(-squared / 10))
        assert float(found[index]) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_is_0_at_the_centre_and_largest_far_away() -> None:
    task = with_data_support_penalty(HOPPER, model(), 0.7)
    act, centre = torch.zeros(1, 3), torch.arange(11.0)[None]
    far = centre + 1e3
    assert HOPPER.reward is not None
    for after, penalty in ((centre, 0.0), (far, 0.7)):
        torch.testing.assert_close(
            HOPPER.reward(after, act, after) - task.reward(after, act, after),
            torch.tensor([penalty]),
            atol=2e-4,  # float32 rewards of 1e3
            rtol=0,
        )
    assert torch.equal(task.terminated(far), HOPPER.terminated(far))
    assert isinstance(task, Task)
    assert (task.env_id, task.observation_names) == (HOPPER.env_id, HOPPER.observation_names)


@pytest.mark.parametrize("penalty", [-1.0, math.nan, math.inf])
def test_bad_penalties(penalty: float) -> None:
    with pytest.raises(InputError, match="--data-support-penalty"):
        with_data_support_penalty(HOPPER, model(), penalty)


def test_a_penalty_needs_a_known_reward() -> None:
    with pytest.raises(InputError, match="Hopper-v5, whose reward function is not known"):
        with_data_support_penalty(replace(HOPPER, reward=None), model(), 1.0)
