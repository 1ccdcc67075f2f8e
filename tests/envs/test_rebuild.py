"""Environments made again from their specs: the same steps, or a refusal."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import ClipAction, NormalizeObservation, RescaleAction, TimeLimit

from mbrl_bilevel.data.env_spec import NO_LIMIT, EnvSpec, WrapperSpec
from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.rebuild import same_environment
from mbrl_bilevel.errors import InputError
from tests.data.minari_files import episode, write


def spec_of(env: gymnasium.Env) -> EnvSpec:
    assert env.spec is not None
    return EnvSpec.from_gymnasium(env.spec.to_json())


@pytest.mark.situation("right")
@pytest.mark.filterwarnings("ignore:.*precision lowered")
def test_arguments_wrappers_and_time_limit_come_back() -> None:
    bare = gymnasium.make("HalfCheetah-v5", forward_reward_weight=-1.0, max_episode_steps=50)
    env = RescaleAction(TimeLimit(bare, 7), -0.5, 0.25)
    again = make_env(spec_of(env))
    assert again.spec is not None
    assert again.spec.max_episode_steps == 7
    assert again.action_space == env.action_space
    env.action_space.seed(0)
    np.testing.assert_array_equal(env.reset(seed=3)[0], again.reset(seed=3)[0])
    for _ in range(7):
        action = env.action_space.sample()
        ours, theirs = again.step(action), env.step(action)
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:4] == theirs[1:4]
    assert ours[3]  # truncated
    unlimited = make_env(EnvSpec("Pendulum-v1", max_episode_steps=NO_LIMIT))
    assert unlimited.spec is not None
    assert unlimited.spec.max_episode_steps is None


@pytest.mark.situation("right")
@pytest.mark.parametrize("clips", [1, 2, 3])
def test_actions_clipped_more_than_once_are_those_of_the_box(clips: int) -> None:
    """Agents act in a bounded box, however often what lies outside was clipped."""
    env = gymnasium.make("Pendulum-v1")
    for _ in range(clips):
        env = ClipAction(gymnasium.wrappers.ClipReward(env, -9.0, 0.0))
    again = make_env(spec_of(env))
    assert again.action_space == gymnasium.make("Pendulum-v1").action_space
    env.reset(seed=0), again.reset(seed=0)
    for _ in range(10):
        action = again.action_space.sample()
        ours, theirs = again.step(action), env.step(action)
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1] == theirs[1]


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wrappers": (WrapperSpec("NormalizeObservation", {"epsilon": 1e-8}),)}, "Normalize"),
        ({"wrappers": (WrapperSpec("ClipAction", None),)}, "ClipAction.*cannot be made again"),
        ({"wrappers": (WrapperSpec("my_module:ClipAction"),)}, "my_module:ClipAction"),
        ({"wrappers": (WrapperSpec("RescaleAction", {"min_action": "a"}),)}, "cannot be wrapped"),
        ({"wrappers": (WrapperSpec("ClipAction", {"surprise": 1}),)}, "cannot be wrapped"),
        (
            {"kwargs": {"xml_file": "../other.xml"}},
            "xml_file='../other.xml', which may name a file",
        ),
        ({"kwargs": {"backend": ["os:abort"]}}, "backend=.*may name a file or a module"),
        ({"kwargs": {"surprise": 1}}, "does not take .*surprise"),
    ],
)
def test_what_cannot_be_made_again_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        make_env(EnvSpec("HalfCheetah-v5", **change))
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:.*precision lowered")
def test_which_environments_are_the_same() -> None:
    plain = EnvSpec("Pendulum-v1")
    assert same_environment(plain, spec_of(gymnasium.make("Pendulum-v1")))
    assert same_environment(plain, spec_of(gymnasium.make("Pendulum-v1", g=10.0)))
    assert same_environment(plain, spec_of(TimeLimit(gymnasium.make("Pendulum-v1"), 20)))
    watched = (WrapperSpec("RecordEpisodeStatistics", {"buffer_length": 100}),)
    assert same_environment(plain, EnvSpec("my_module:Pendulum-v1", {}, watched))
    for env in (
        gymnasium.make("Pendulum-v1", g=2.0),
        ClipAction(gymnasium.make("Pendulum-v1")),
        RescaleAction(gymnasium.make("Pendulum-v1"), -1.0, 1.0),
        NormalizeObservation(gymnasium.make("Pendulum-v1")),
        gymnasium.make("MountainCarContinuous-v0"),
    ):
        assert not same_environment(plain, spec_of(env))


def test_text_that_is_not_taken_from_a_file_can_still_be_compared() -> None:
    here, there = (EnvSpec("Own-v0", {"track": name}) for name in ("maps/a.xml", "maps/b.xml"))
    assert same_environment(here, EnvSpec("Own-v0", {"track": "maps/a.xml"}))
    assert not same_environment(here, there)


class Goal(gymnasium.Env):
    """Observations in a Dict, as goal environments have them."""

    def __init__(self) -> None:
        def box(n: int) -> spaces.Box:
            return spaces.Box(-np.inf, np.inf, (n,), np.float64)

        inner = spaces.Dict({"z": box(1), "b": box(2)})
        self.observation_space = spaces.Dict(
            {"observation": inner, "achieved_goal": box(2), "desired_goal": box(1)}
        )
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**kwargs)
        return self.observation_space.sample(), {}


@pytest.mark.situation("right")
def test_dict_observations_are_flattened_in_the_order_of_a_data_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gymnasium.registry", dict(gymnasium.registry))
    monkeypatch.setattr("gymnasium.envs.registration.registry", gymnasium.registry)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    gymnasium.register("Goal-v0", entry_point=lambda: Goal())
    env = make_env("Goal-v0")
    space = Goal().observation_space
    rows = episode(3, np.random.default_rng(0), observation_space=space)
    write("my/goal-v0", [rows], observation_space=space)
    dataset = load_dataset("my/goal-v0")
    assert env.observation_space.shape == (6,)
    first = {
        "observation": {key: value[0] for key, value in rows.observations["observation"].items()},
        "achieved_goal": rows.observations["achieved_goal"][0],
        "desired_goal": rows.observations["desired_goal"][0],
    }
    assert isinstance(env, gymnasium.ObservationWrapper)
    np.testing.assert_allclose(env.observation(first), dataset.transitions.observation[0])
    assert dataset.observation_names is not None
    assert dataset.observation_names[:3] == (
        "achieved_goal[0]", "achieved_goal[1]", "desired_goal[0]",
    )  # fmt: skip
