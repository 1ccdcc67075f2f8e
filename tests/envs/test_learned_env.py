"""The single environment is the first of the vector; from a folder it is as the real one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common import env_checker

from mbrl_bilevel.data.env_spec import EnvSpec, WrapperSpec
from mbrl_bilevel.envs.learned_env import LearnedEnv, learned_env
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError
from tests.envs.imagined import pendulum, pendulum_model, pendulum_starts


def test_from_a_folder_with_the_real_environments_spaces_and_limit(tmp_path: Path) -> None:
    pendulum_model(env_id="Pendulum-v1").save(tmp_path)
    env, real = learned_env(tmp_path, pendulum_starts(), num_envs=3), make_env("Pendulum-v1")
    assert env.single_observation_space == real.observation_space
    assert env.single_action_space == real.action_space
    assert env.time_limit == 200
    assert env.reset(seed=0)[0] in env.observation_space
    lengths = [i for i in range(1, 401) if env.step(env.action_space.sample())[3].all()]
    assert lengths == [200, 400]
    real.close()


@pytest.mark.situation("right")
@pytest.mark.filterwarnings("error")
def test_the_single_environment_passes_the_checkers() -> None:
    # Boxes without a bound, or other than [-1, 1], are fine, but the checkers warn of them.
    spaces: dict[str, Any] = {
        "observation_space": Box(-8.0, 8.0, (3,)),
        "action_space": Box(-1.0, 1.0, (1,)),
    }
    env = LearnedEnv(pendulum(num_envs=1, uncertainty_penalty=0.1, **spaces))
    check_env(env, skip_render_check=True)
    env_checker.check_env(env)


def test_the_single_environment_is_the_first_of_the_vector() -> None:
    single, many = LearnedEnv(pendulum(num_envs=1, time_limit=3)), pendulum(num_envs=1)
    np.testing.assert_array_equal(single.reset(seed=2)[0], many.reset(seed=2)[0][0])
    act = np.ones(1, dtype=np.float32)
    for k in range(1, 3):
        after, reward, _, truncated, info = single.step(act)
        expected = many.step(act[None])
        np.testing.assert_array_equal(after, expected[0][0])
        assert (reward, truncated, info) == (float(expected[1][0]), False, {}), k
    last, _, _, truncated, _ = single.step(act)
    assert truncated
    np.testing.assert_array_equal(last, many.step(act[None])[0][0])


@pytest.mark.situation("right")
@pytest.mark.filterwarnings("ignore:.*precision lowered")
def test_it_is_of_the_environment_that_the_data_came_from(tmp_path: Path) -> None:
    rescaled = (WrapperSpec("RescaleAction", {"min_action": -1.0, "max_action": 1.0}),)
    spec = EnvSpec("Pendulum-v1", {"g": 2.0}, rescaled, 30)
    pendulum_model(env_spec=spec).save(tmp_path)
    env = learned_env(tmp_path, pendulum_starts(), num_envs=2)
    assert env.time_limit == 30
    assert env.single_action_space.high.tolist() == [1.0]
    assert env.task.reward is not None
    obs, act = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.5]])
    assert env.task.reward(obs, act, obs).item() == pytest.approx(-1e-3)  # a torque of 1


@pytest.mark.situation("refused")
def test_a_name_out_of_a_file_imports_no_code(tmp_path: Path) -> None:
    pendulum_model(env_id="os:Evil-v0").save(tmp_path)
    with pytest.raises(InputError, match="would import code"):
        learned_env(tmp_path, pendulum_starts(), num_envs=1)
