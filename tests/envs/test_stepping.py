"""What an environment returns is copied, and checked before anybody uses it."""

from fractions import Fraction
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.envs.stepping import CheckedSteps, reward_parts
from mbrl_bilevel.errors import InputError

NAN = float("nan")
ZERO = np.zeros(1, np.float32)


class Told(gymnasium.Env):
    """Returns what it was made with, at its reset and at every step."""

    observation_space = Box(-np.inf, np.inf, (2,))
    action_space = Box(-1.0, 1.0, (1,))

    def __init__(self, observation=(0.0, 0.0), reward=0.0, terminated=False, truncated=False):
        self.first, self.rest = np.zeros(2), (observation, reward, terminated, truncated)
        self.seen: list[np.ndarray] = []

    def reset(self, *, seed=None, options=None):
        return self.first, {}

    def step(self, action):
        self.seen.append(action)
        return *self.rest, {}


def steps(**answer: Any) -> CheckedSteps:
    checked = CheckedSteps(Told(**answer))
    checked.reset(7, "episode 3")
    return checked


@pytest.mark.situation("right")
@pytest.mark.parametrize(
    "reward",
    [
        *(0.5, np.float32(0.5), np.float64(0.5), np.array(0.5), np.array([0.5])),
        *(np.array([0.5], np.float16), torch.tensor(0.5), torch.tensor([0.5]), [0.5]),
    ],
)
def test_a_reward_may_be_any_single_number(reward: Any) -> None:
    found = steps(reward=reward).step(ZERO).reward
    assert (found, type(found)) == (0.5, float)


@pytest.mark.situation("right")
@pytest.mark.parametrize("one", [1, True, np.int64(1), np.bool_(True), np.array([1]), 1.0])
def test_whole_numbers_and_booleans_are_numbers_and_flags(one: Any) -> None:
    step = steps(reward=one, terminated=one, truncated=one).step(ZERO)
    assert (step.reward, type(step.reward)) == (1.0, float)
    assert (step.terminated, step.truncated) == (True, True)


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"reward": NAN}, "nan as reward"),
        ({"reward": np.array([np.inf])}, "inf as reward"),
        ({"reward": None}, "None as reward, where one number is needed"),
        ({"reward": "1"}, "'1' as reward"),
        ({"reward": 1j}, "1j as reward"),
        ({"reward": Fraction(1, 2)}, "as reward"),
        ({"reward": np.zeros((1, 1))}, "array([[0.]]) as reward"),
        ({"reward": np.zeros(2)}, "array([0., 0.]) as reward"),
        ({"reward": np.zeros(0)}, "as reward"),
        ({"reward": {"a": 1}}, "as reward"),
        ({"terminated": 2}, "2 as terminated, where True or False is needed"),
        ({"terminated": None}, "None as terminated"),
        ({"truncated": [False, True]}, "[False, True] as truncated"),
        ({"observation": np.array([0.0, NAN])}, "not finite (nan in dimension 1)"),
        ({"observation": np.array([-np.inf, 0.0])}, "not finite (-inf in dimension 0)"),
        ({"observation": np.zeros(3)}, "declares as numbers of shape [2]"),
        ({"observation": None}, "None as an observation"),
        ({"observation": [[0.0], [1.0, 2.0]]}, "as an observation"),
    ],
)
def test_anything_else_is_one_sentence_with_episode_and_step(
    answer: dict[str, Any], words: str
) -> None:
    checked = steps(**answer)
    with pytest.raises(InputError) as error:
        checked.step(ZERO)
    sentence = str(error.value)
    assert sentence.startswith("the environment Told returned ")
    assert words in sentence
    assert "at step 1 of episode 3 (reset with seed 7)" in sentence
    assert len(sentence.splitlines()) == 1


@pytest.mark.situation("refused")
def test_a_reset_that_is_not_finite() -> None:
    env = Told()
    env.first[0] = NAN
    with pytest.raises(InputError, match="at the reset of episode 5"):
        CheckedSteps(env).reset(0, "episode 5")


@pytest.mark.situation("refused")
@pytest.mark.parametrize("action", [[NAN], [np.inf], [0.0, 0.0]])
def test_an_action_that_is_none_is_the_agents(action: list[float]) -> None:
    checked = steps()
    checked.step(ZERO)
    with pytest.raises(InputError, match=r"at step 2 of episode 3 .* the agent returned it"):
        checked.step(np.array(action))


@pytest.mark.situation("right")
def test_nothing_is_shared_with_the_environment() -> None:
    env = Told(observation=np.array([1.0, 2.0]))
    checked = CheckedSteps(env)
    first = checked.reset(0, "episode 0")
    action = np.array([0.5], np.float32)
    step = checked.step(action)
    env.first[:], env.rest[0][:], env.seen[0][:] = 9, 9, 9
    assert first.tolist() == [0, 0]
    assert step.observation.tolist() == [1, 2]
    assert step.action.tolist() == action.tolist() == [0.5]
    assert step.action.dtype == np.float32


@pytest.mark.situation("right")
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64, bool])
def test_observations_keep_their_type(dtype: type) -> None:
    step = steps(observation=np.array([1, 0], dtype)).step(ZERO)
    assert step.observation.dtype == dtype
    assert step.observation.tolist() == [1, 0]


def test_parts_of_a_reward_are_the_numbers_that_the_info_names_so():
    info = {
        "reward_forward": np.float64(1.5),
        "reward_ctrl": np.array([-0.5]),
        "reward_lost": NAN,
        "reward_kind": "none",
        "reward_many": np.zeros(2),
        "x_position": 3.0,
        3: 4.0,
    }
    assert reward_parts(info) == {"reward_forward": 1.5, "reward_ctrl": -0.5}
    assert reward_parts(None) == {}
