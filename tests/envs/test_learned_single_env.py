"""A learned model as one environment or many; agents of another library train in it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO, SAC
from stable_baselines3.common import env_checker
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from mbrl_bilevel.data.env_spec import EnvSpec, WrapperSpec
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.envs.learned_single_env import LearnedEnv, learned_env
from mbrl_bilevel.envs.learned_vector_env import LearnedVectorEnv
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from tests.envs.learned_environments import (
    PENDULUM,
    pendulum,
    pendulum_model,
    pendulum_starts,
    seeded,
    walk,
)


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


class ForStableBaselines(VecEnv):
    """A LearnedVectorEnv as Stable-Baselines3's kind of vector."""

    def __init__(self, env: LearnedVectorEnv) -> None:
        self.env, self.render_mode = env, None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> np.ndarray:
        return self.env.reset(seed=self._seeds[0])[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        obs, reward, terminated, truncated, infos = self.env.step(self.actions)
        done = terminated | truncated
        each: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            each[i]["terminal_observation"] = infos["final_obs"][i]
            each[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return obs, reward, done, each

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


@pytest.mark.situation("right")
def test_stable_baselines_stores_the_transitions_of_the_model() -> None:
    agent = SAC(
        "MlpPolicy", ForStableBaselines(walk()), buffer_size=500, learning_starts=90, seed=0
    )
    agent.learn(100)
    buffer = agent.replay_buffer
    assert buffer is not None
    stored = buffer.size()
    assert stored == 20
    obs, act, after = (
        getattr(buffer, name)[:stored] for name in ("observations", "actions", "next_observations")
    )
    done, cut = buffer.dones[:stored].astype(bool), buffer.timeouts[:stored].astype(bool)
    np.testing.assert_allclose(after, obs + act, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(done & ~cut, np.abs(after[..., 0]) > 2)
    assert cut.sum() > 2
    assert (done & ~cut).sum() > 2


def test_ppo_of_stable_baselines_gets_the_rewards_of_the_task() -> None:
    agent = PPO("MlpPolicy", ForStableBaselines(pendulum()), n_steps=8, batch_size=16, seed=0)
    agent.learn(64)
    buffer = agent.rollout_buffer
    obs, act = torch.tensor(buffer.observations), torch.tensor(buffer.actions)
    assert obs.shape == (32, 3)
    assert PENDULUM.reward is not None
    expected = PENDULUM.reward(obs, act, obs)  # it does not look at the successor
    # training has flattened all but the rewards, environment by environment
    np.testing.assert_allclose(buffer.rewards.T.flatten(), expected.numpy(), rtol=1e-5)


def random_pendulum(episodes: int) -> Transitions:
    """Random actions in the real pendulum."""
    env, rows = make_env("Pendulum-v1"), []
    env.action_space.seed(0)
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        truncated = False
        while not truncated:
            act = env.action_space.sample()
            after, reward, _, truncated, _ = env.step(act)
            rows.append((obs, act, np.float32(reward), after, False, truncated, episode))
            obs = after
    env.close()
    return Transitions(*(torch.tensor(np.array(column)) for column in zip(*rows, strict=True)))


def trained_pendulum(data: Transitions) -> DynamicsModel:
    model = DynamicsModel(3, 1, ModelSettings(members=3, hidden=(64, 64)), generator=seeded())
    train, held_out = data[data.episode > 1], data[data.episode <= 1]
    model.fit_standardizers(train)
    parts = [Samples(*model.encode(part)) for part in (train, held_out)]
    settings = FitSettings(steps=1500)
    fit_network(model.network, NLL(), *parts, generator=seeded(), settings=settings)
    return model


@pytest.mark.slow
def test_a_policy_trained_in_the_model_swings_up_the_real_pendulum() -> None:
    data, real = random_pendulum(20), make_env("Pendulum-v1")
    assert isinstance(real.observation_space, Box)
    env = pendulum(
        trained_pendulum(data),
        starts=data.observation,
        num_envs=8,
        observation_space=real.observation_space,
    )
    agent = SAC(
        "MlpPolicy",
        ForStableBaselines(env),
        learning_rate=1e-3,
        gamma=0.95,
        gradient_steps=2,
        learning_starts=800,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
    )
    random_return = float(data.reward.sum()) / data.episodes
    agent.learn(14_000)
    real.reset(seed=100)
    mean, _ = evaluate_policy(agent, real, n_eval_episodes=10, warn=False)
    # A random policy falls for about -1200; one that always swings up reaches -150 on average.
    assert random_return < -900
    assert float(np.mean(mean)) > -500
