"""Simulated futures that follow a policy are what stepping by that policy gives."""

import numpy as np
import pytest
import torch
from gymnasium.wrappers import RescaleAction
from torch import Tensor

from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.simulator import Simulator
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.protocols import Trajectories


def prior(obs: Tensor, deviation: Tensor) -> Tensor:
    """Feedback of the first observations, within the box."""
    return (0.2 * obs[..., : deviation.shape[-1]].sin() + deviation).clamp(-1, 1)


def deviations(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.6 * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5", "InvertedPendulum-v5"])
@pytest.mark.parametrize("rescaled", [False, True])
def test_every_step_acts_by_the_state_that_the_step_before_led_to(
    env_id: str, rescaled: bool
) -> None:
    def fresh() -> tuple:
        env = make_env(env_id)
        env = RescaleAction(env, -1.0, 1.0) if rescaled else env
        return env, env.reset(seed=3)[0]

    env, obs = fresh()
    given = deviations((1, 2, 6, env.action_space.shape[0]))
    start = torch.from_numpy(obs)[None]
    found: Trajectories = Simulator(env, prior=prior).trajectories(start, given, torch.Generator())
    assert found.actions is not None
    assert found.rewards is not None
    for i in range(2):
        twin, now = fresh()
        for t in range(6):
            action = prior(torch.from_numpy(now), given[0, i, t]).numpy()
            np.testing.assert_allclose(found.actions[0, 0, i, t], action, atol=1e-6)
            now, reward, *_ = twin.step(action)
            # Contacts are solved from another start than the twin's, to the solver's tolerance.
            np.testing.assert_allclose(found.observations[0, 0, i, t + 1], now, atol=1e-5)
            np.testing.assert_allclose(found.rewards[0, 0, i, t], reward, atol=1e-5)


@pytest.mark.parametrize("env_id", ["Ant-v5", "Pendulum-v1"])
def test_where_it_cannot_follow_a_policy_it_says_so(env_id: str) -> None:
    with pytest.raises(InputError, match="cannot follow a policy: plan there without a prior"):
        Simulator(make_env(env_id), prior=prior)
