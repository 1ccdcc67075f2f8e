"""The physics as a transition model: what it says follows is what the environment does."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RescaleAction, TransformReward

from mbrl_bilevel.envs.learned_vector_env import LearnedVectorEnv
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.simulated_transitions import SimulatedTransitions
from mbrl_bilevel.envs.tasks import get_task, planned_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.protocols import TransitionModel

KNOWN = (
    *("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Swimmer-v5", "InvertedPendulum-v5"),
    "Pendulum-v1",
)
GENERATOR = torch.Generator()


def real_transitions(env: gymnasium.Env, steps: int = 40) -> list[torch.Tensor]:
    """Observations, actions, rewards and next observations of random actions, float32."""
    env.action_space.seed(1)
    rows, (obs, _) = [], env.reset(seed=0)
    for _ in range(steps):
        action = env.action_space.sample()
        after, reward, terminated, *_ = env.step(action)
        rows.append((obs, action, reward, after))
        obs = env.reset()[0] if terminated else after
    return [torch.as_tensor(np.stack(column), dtype=torch.float32) for column in
            zip(*rows, strict=True)]  # fmt: skip


@pytest.mark.parametrize("env_id", KNOWN)
def test_every_row_moves_as_the_environment_does_from_there(env_id: str) -> None:
    """In another order, from rows that are rounded to float32, which contacts magnify.

    Rows whose velocities the observation clips show another state.
    """
    env = make_env(env_id)
    obs, act, reward, after = real_transitions(env)
    whole = torch.nonzero(obs.abs().amax(-1) < 10).squeeze(-1)
    order = whole[torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))]
    assert len(order) > 10
    found = SimulatedTransitions(make_env(env_id)).sample(obs[order], act[order], GENERATOR)
    assert found.reward is not None
    torch.testing.assert_close(found.observation, after[order], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.reward, reward[order], rtol=1e-3, atol=1e-3)


def test_wrappers_of_actions_count_and_others_are_refused() -> None:
    env = RescaleAction(make_env("InvertedPendulum-v5"), -0.5, 0.5)
    obs, act, _, after = real_transitions(env)
    found = SimulatedTransitions(env).sample(obs, act, GENERATOR)
    torch.testing.assert_close(found.observation, after, rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="wrapper TransformReward"):
        SimulatedTransitions(TransformReward(env, lambda r: 2 * r))


@pytest.mark.situation("refused")
@pytest.mark.parametrize("env_id", ["Reacher-v5", "Ant-v5", "InvertedDoublePendulum-v5"])
def test_tasks_whose_observations_do_not_tell_the_state_are_refused(env_id: str) -> None:
    with pytest.raises(InputError, match=r"do not tell its whole state: .* Hopper-v5, Walker2d-v5"):
        SimulatedTransitions(make_env(env_id))


def test_a_vector_of_environments_takes_it_in_a_models_place() -> None:
    """A step beyond the physics ends the episode; a penalty has nothing to go by."""
    env = make_env("InvertedPendulum-v5")
    model = SimulatedTransitions(env)
    assert isinstance(model, TransitionModel)
    starts = torch.tensor([[0.0, 0.01, 0.0, 0.0]])
    task = planned_task(get_task("InvertedPendulum-v5"), model)
    assert task.reward is None
    settings = {"num_envs": 3, "time_limit": 5, "action_space": env.action_space}
    vector = LearnedVectorEnv(model, task, starts, **settings)
    vector.reset_tensors()
    push = torch.tensor([[0.0], [0.3], [torch.nan]])
    step = vector.step_tensors(push)
    assert step.reward.tolist() == [1.0, 1.0, 0.0]
    assert step.terminated.tolist() == [False, False, True]
    expected = model.sample(starts.expand(2, -1), push[:2], GENERATOR).observation
    torch.testing.assert_close(step.next_observation[:2], expected)
    with pytest.raises(InputError, match=r"uncertainty_penalty 1\.0 in SimulatedTransitions"):
        LearnedVectorEnv(model, task, starts, uncertainty_penalty=1.0, **settings)
