"""The learned environment against its model, gymnasium's SyncVectorEnv and the real one."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3 import PPO, SAC
from stable_baselines3.common import env_checker
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.envs.learned_env import LearnedEnv, learned_env
from mbrl_bilevel.envs.learned_vector_env import LearnedVectorEnv, Penalty, uncertainty
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.tasks import Task, get_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel, NextStep
from mbrl_bilevel.models.gaussian import Covariance, DiagonalGaussian
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.training.fit import fit
from mbrl_bilevel.training.trainer import Samples

PENDULUM = get_task("Pendulum-v1")
TORQUE = Box(-2.0, 2.0, (1,))
UNIT = Box(-1.0, 1.0, (2,))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pendulum_model(**kwargs: Any) -> DynamicsModel:
    """Untrained, of Pendulum-v1's sizes."""
    return DynamicsModel(3, 1, members=3, hidden=(8,), generator=seeded(), **kwargs)


def pendulum_starts(count: int = 50) -> Tensor:
    angle = 2 * math.pi * torch.rand(count, generator=seeded(1))
    return torch.stack([angle.cos(), angle.sin(), torch.zeros(count)], -1)


def pendulum(model: DynamicsModel | None = None, **kwargs: Any) -> LearnedVectorEnv:
    settings: dict[str, Any] = {"num_envs": 4, "time_limit": 200, "action_space": TORQUE}
    settings |= {"task": PENDULUM, "starts": pendulum_starts()}
    return LearnedVectorEnv(model or pendulum_model(), **(settings | kwargs))


class Walk(DynamicsModel):
    """next = obs + act exactly, in the plane; member e deviates by (e + 1) (1 + |obs|) / 10."""

    def __init__(self) -> None:
        super().__init__(2, 2, members=2, hidden=(2,), generator=seeded())

    def sample(
        self, obs: Tensor, act: Tensor, generator: torch.Generator, member: Tensor | None = None
    ) -> NextStep:
        return NextStep(obs + act, None)

    def predict(self, obs: Tensor, act: Tensor) -> DiagonalGaussian:
        std = torch.stack([1 + obs.abs(), 2 + 2 * obs.abs()]) / 10
        return DiagonalGaussian(torch.stack([act, -act]), std.log())


def walk_reward(obs: Tensor, act: Tensor, next_obs: Tensor) -> Tensor:
    return obs[..., 0] + 2 * act[..., 1] + 3 * next_obs[..., 0]


def walked_out(next_obs: Tensor) -> Tensor:
    return next_obs[..., 0].abs() > 2


WALK = Task("Walk-v0", walk_reward, walked_out, ("x", "y"))


def walk(model: DynamicsModel | None = None, **kwargs: Any) -> LearnedVectorEnv:
    settings: dict[str, Any] = {"num_envs": 5, "time_limit": 7, "action_space": UNIT}
    settings |= {"task": WALK, "starts": torch.tensor([[0.5, -0.25]])}
    return LearnedVectorEnv(model or Walk(), **(settings | kwargs))


class RealWalk(gymnasium.Env[np.ndarray, np.ndarray]):
    """The same walk, written as anybody would write an environment."""

    observation_space, action_space = Box(-np.inf, np.inf, (2,)), UNIT

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place, self.steps = np.array([0.5, -0.25], dtype=np.float32), 0
        return self.place, {}

    def step(self, action: np.ndarray) -> Any:
        before, self.place = self.place, self.place + action
        self.steps += 1
        reward = before[0] + 2 * action[1] + 3 * self.place[0]
        penalty = self.weight * math.hypot(*(min(0.2 * (1 + abs(x)), 1.0) for x in before))
        info = {"penalty": penalty} if self.weight else {}
        out = bool(abs(self.place[0]) > 2)
        return self.place, reward - penalty, out, self.steps >= 7, info


def assert_same_infos(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_same_infos(found[key], value)
        elif value.dtype == object:
            for ours, theirs in zip(found[key], value, strict=True):
                assert (ours is None) == (theirs is None)
                if theirs is not None:
                    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        else:
            np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_it_behaves_as_gymnasiums_vector_of_the_same_environment(weight: float) -> None:
    ours: Any = walk(uncertainty_penalty=weight)
    mode = AutoresetMode.SAME_STEP
    theirs: Any = SyncVectorEnv([lambda: RealWalk(weight)] * 5, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"]
    for name in ("single_observation_space", "single_action_space"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert (ours.observation_space, ours.action_space) == (
        theirs.observation_space,
        theirs.action_space,
    )
    ours, theirs = RecordEpisodeStatistics(ours), RecordEpisodeStatistics(theirs)
    generator, ends = np.random.default_rng(0), np.zeros(2)
    for step in range(40):
        if step in (0, 17, 25):
            mask = np.array([True, False, False, True, False])
            options = {} if step == 0 else {"options": {"reset_mask": mask}}
            (found, ours_info), (expected, info) = (
                env.reset(seed=3, **{k: dict(v) for k, v in options.items()})
                for env in (ours, theirs)
            )
            np.testing.assert_array_equal(found, expected)
            assert_same_infos(ours_info, info)
            if step:  # gymnasium's own vector takes the mask away from the wrapper
                theirs.episode_returns[~mask] = ours.episode_returns[~mask]
                theirs.episode_lengths[~mask] = ours.episode_lengths[~mask]
        action = generator.uniform(-1, 1, (5, 2)).astype(np.float32)
        found, expected = ours.step(action), theirs.step(action)
        for part, same in zip(found[:4], expected[:4], strict=True):
            assert part.dtype == (np.float32 if same.dtype == float else same.dtype)
            np.testing.assert_allclose(part, same, rtol=1e-5, atol=1e-6)
        for infos in (found[4], expected[4]):
            infos.get("episode", {}).pop("t", None)
        assert_same_infos(found[4], expected[4])
        ends += found[2].sum(), found[3].sum()
    assert (ends > 2).all(), "the walks must end in both ways for this to say anything"


def test_a_step_is_a_sample_of_the_model() -> None:
    model, twin = pendulum_model(), seeded()
    env = pendulum(model)
    obs = env.reset_tensors()
    twin.set_state(env.generator.get_state())
    act = torch.tensor([[-3.0], [-1.0], [0.5], [2.0]])
    step = env.step_tensors(act)
    expected = model.sample(obs, act.clamp(-2, 2), twin).observation
    assert torch.equal(step.next_observation, expected)
    assert torch.equal(step.observation, expected)
    assert PENDULUM.reward is not None
    assert torch.equal(step.reward, PENDULUM.reward(obs, act, expected))
    assert not step.penalty.any()


def test_the_reward_function_sees_actions_as_they_are() -> None:
    env, act = walk(), torch.full((5, 2), 5.0)
    obs = env.reset_tensors()
    step = env.step_tensors(act)
    assert torch.equal(step.next_observation, obs + 1)
    assert torch.equal(step.reward, walk_reward(obs, act, obs + 1))


def test_a_learned_reward_comes_from_the_models_head() -> None:
    model, twin = pendulum_model(learn_reward=True), seeded()
    env = pendulum(model, task=replace(PENDULUM, reward=None))
    obs, act = env.reset_tensors(), torch.zeros(4, 1)
    twin.set_state(env.generator.get_state())
    expected = model.sample(obs, act, twin).reward
    assert expected is not None
    assert torch.equal(env.step_tensors(act).reward, expected)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("kind", ["aleatoric", "disagreement"])
def test_uncertainty_is_that_of_a_slow_loop(covariance: Covariance, kind: Penalty) -> None:
    model = pendulum_model(covariance=covariance, learn_reward=True).double()
    model.target_standardizer.std.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    model.elites = torch.tensor([2, 0])
    obs, act = pendulum_starts(6).double(), torch.ones(6, 1).double()
    found = uncertainty(model, obs, act, kind).detach()
    scale = model.target_standardizer.std.tolist()
    with torch.no_grad():
        gaussian = model.predict(obs, act)  # in the target's units
    capped = 0
    for b in range(6):
        spreads = [[float(row.norm()) for row in gaussian.scale_tril[e, b]] for e in (2, 0)]
        if (
            kind == "disagreement"
        ):  # of two numbers, the population deviation is half their distance
            spreads = [((gaussian.mean[2, b] - gaussian.mean[0, b]).abs() / 2).tolist()]
        units = [[s / t for s, t in zip(row, scale, strict=True)] for row in spreads]
        capped += sum(u > 1 for row in units for u in row)
        expected = max(math.hypot(*(min(u, 1.0) for u in row)) for row in units)
        assert float(found[b]) == pytest.approx(expected, rel=1e-12)
    assert capped or kind == "disagreement"


@pytest.mark.parametrize("kind", ["aleatoric", "disagreement"])
def test_the_penalty_is_taken_from_the_reward_and_reported(kind: Penalty) -> None:
    plain, cautious = pendulum(), pendulum(uncertainty_penalty=0.7, penalty=kind)
    obs, _ = plain.reset(seed=5)
    cautious.reset(seed=5)
    act = np.full((4, 1), 0.5, dtype=np.float32)
    (after, reward, *_, none), (same, less, *_, infos) = plain.step(act), cautious.step(act)
    np.testing.assert_array_equal(after, same)
    with torch.no_grad():
        unsure = uncertainty(plain.model, torch.tensor(obs), torch.tensor(act), kind).numpy()
    np.testing.assert_allclose(infos["penalty"], 0.7 * unsure, rtol=1e-5)
    np.testing.assert_allclose(reward - less, 0.7 * unsure, rtol=1e-3)  # rewards of some -10
    assert (unsure > 0.01).all()
    assert none == {}


class Broken(Walk):
    """Predicts NaN wherever the first coordinate of the action is above a half."""

    def sample(self, obs: Tensor, act: Tensor, *args: Any) -> NextStep:
        return NextStep(torch.where(act[:, :1] > 0.5, torch.nan, obs + act), None)


def test_predictions_that_are_not_finite_end_the_episode() -> None:
    env = walk(Broken(), uncertainty_penalty=1.0)
    start, _ = env.reset()
    act = np.zeros((5, 2), dtype=np.float32)
    act[[1, 3], 0] = 1.0
    obs, reward, terminated, truncated, infos = env.step(act)
    np.testing.assert_array_equal(terminated, [False, True, False, True, False])
    assert not truncated.any()
    assert np.isfinite(obs).all()
    assert (reward[[1, 3]] == 0).all()
    assert (reward[[0, 2, 4]] != 0).all()
    np.testing.assert_array_equal(infos["final_obs"][1], start[1])
    np.testing.assert_array_equal(infos["final_info"]["penalty"], np.zeros(5))
    assert env.non_finite_steps == 2
    env.step(np.zeros((5, 2), dtype=np.float32))
    assert env.non_finite_steps == 2


def test_a_reward_that_is_not_finite_is_never_returned() -> None:
    def infinite(obs: Tensor, act: Tensor, next_obs: Tensor) -> Tensor:
        return torch.where(act[..., 0] > 0, torch.inf, 1.0)

    env = walk(task=replace(WALK, reward=infinite))
    env.reset()
    act = np.array([[1, 0], [0, 0], [0, 0], [1, 0], [0, 0]], dtype=np.float32)
    _, reward, terminated, _, _ = env.step(act)
    np.testing.assert_array_equal(reward, [0, 1, 1, 0, 1])
    np.testing.assert_array_equal(terminated, [True, False, False, True, False])
    assert env.non_finite_steps == 2


def test_predictions_are_clipped_to_the_real_bounds() -> None:
    model = pendulum_model()
    model.target_standardizer.mean.copy_(torch.tensor([5.0, -5.0, 50.0]))
    real = make_env("Pendulum-v1")
    env = pendulum(model, observation_space=real.observation_space)
    env.reset()
    obs, *_ = env.step(np.zeros((4, 1), dtype=np.float32))
    np.testing.assert_array_equal(obs, [[1.0, -1.0, 8.0]] * 4)
    assert obs in env.observation_space
    assert env.single_observation_space == real.observation_space
    real.close()


def test_starts_are_drawn_uniformly() -> None:
    starts = torch.arange(8.0).reshape(4, 2)
    env = walk(starts=starts, num_envs=4000)
    first, _ = env.reset(seed=1)
    act = np.zeros((4000, 2), dtype=np.float32)
    act[:, 0] = 1.0
    after, _, terminated, _, _ = env.step(act)  # all but those from [0, 1] leave
    for rows in (first, after[terminated]):
        counts = (rows[:, None] == starts.numpy()).all(-1).sum(0)
        assert counts.sum() == len(rows)
        # five standard deviations of a binomial count: one false alarm in 10^5
        assert np.abs(counts - len(rows) / 4).max() < 5 * math.sqrt(len(rows) * 3 / 16)
    assert terminated.sum() > 2500


def test_the_seed_decides_everything() -> None:
    def rollout(env: LearnedVectorEnv, seed: int | None) -> np.ndarray:
        rows = [env.reset(seed=seed)[0]]
        rows += [env.step(np.ones((4, 1), dtype=np.float32))[0] for _ in range(10)]
        return np.stack(rows)

    env = pendulum(time_limit=3, seed=4)
    first, second = rollout(env, None), rollout(env, None)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(rollout(env, 4), first)
    np.testing.assert_array_equal(rollout(pendulum(time_limit=3, seed=4), None), first)
    assert not np.array_equal(rollout(env, 5), first)


def test_what_is_returned_belongs_to_the_caller() -> None:
    env, twin = walk(), walk()
    act = np.full((5, 2), 0.1, dtype=np.float32)
    for one in (env, twin):
        returned, _ = one.reset()
        if one is env:
            returned[:] = 100.0
        returned, *_ = one.step(act)
        if one is env:
            returned[:] = 100.0
    np.testing.assert_array_equal(env.step(act)[0], twin.step(act)[0])


def test_a_step_before_the_first_reset() -> None:
    with pytest.raises(ResetNeeded):
        walk().step(np.zeros((5, 2), dtype=np.float32))


BAD: dict[str, Callable[[], Any]] = {
    "trained for Hopper-v5": lambda: pendulum(pendulum_model(env_id="Hopper-v5")),
    "1 action dimensions": lambda: pendulum(action_space=UNIT),
    "Walk-v0 has 2": lambda: pendulum(task=WALK),
    "did not learn one": lambda: pendulum(task=replace(PENDULUM, reward=None)),
    "starts of shape": lambda: pendulum(starts=torch.zeros(5, 4)),
    "at least one observation": lambda: pendulum(starts=torch.zeros(0, 3)),
    "start 1, .*finite": lambda: pendulum(starts=torch.tensor([[1.0, 0, 0], [torch.nan, 0, 0]])),
    "start 0, .*outside": lambda: pendulum(
        starts=torch.full((1, 3), 3.0), observation_space=Box(-2, 2, (3,))
    ),
    "num_envs 0": lambda: pendulum(num_envs=0),
    "time_limit 0": lambda: pendulum(time_limit=0),
    "uncertainty_penalty -1": lambda: pendulum(uncertainty_penalty=-1.0),
    "uncertainty_penalty nan": lambda: pendulum(uncertainty_penalty=math.nan),
    "actions of shape": lambda: pendulum().step(np.zeros((3, 1))),
    "num_envs=1": lambda: LearnedEnv(pendulum()),
    "names? .*environment|name its environment": lambda: learned_env(
        "saved", pendulum_starts(), num_envs=1
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pendulum_model().save("saved")
    with pytest.raises(InputError, match=message):
        BAD[message]()


def test_disagreement_needs_two_elites() -> None:
    model = pendulum_model()
    model.elites = torch.tensor([1])
    with pytest.raises(InputError, match="1 elite"):
        pendulum(model, uncertainty_penalty=1.0, penalty="disagreement")
    pendulum(model, uncertainty_penalty=1.0, penalty="aleatoric")


@pytest.mark.parametrize(
    "mask", [[True] * 4, np.ones(3, dtype=bool), np.ones(4, dtype=int), np.zeros(4, dtype=bool)]
)
def test_a_bad_reset_mask(mask: Any) -> None:
    env = pendulum()
    env.reset()
    with pytest.raises(InputError, match="reset_mask"):
        env.reset(options={"reset_mask": mask})


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
    model = DynamicsModel(3, 1, members=3, hidden=(64, 64), generator=seeded())
    train, held_out = data[data.episode > 1], data[data.episode <= 1]
    model.fit_standardizers(train)
    parts = [Samples(*model.encode(part)) for part in (train, held_out)]
    fit(model.network, NLL(), *parts, generator=seeded(), steps=1500)
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
