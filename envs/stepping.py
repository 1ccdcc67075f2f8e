"""Steps in a real environment: what it returns is checked and copied before anybody uses it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import gymnasium
import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from mbrl_bilevel.errors import InputError

PART = "reward_"  # how gymnasium's tasks name parts of a reward


class Step(NamedTuple):
    """What followed from `action`; `observation` is the next one, `reward` a plain number.

    `reward_parts` are the numbers that the environment's info holds under names such as
    reward_forward and reward_ctrl, as gymnasium's MuJoCo tasks do; nothing checks that they add up.
    """

    action: Shaped[ndarray, "a"]
    observation: Shaped[ndarray, "o"]
    reward: float
    terminated: bool
    truncated: bool
    reward_parts: Mapping[str, float] = MappingProxyType({})


def step_limit(env: gymnasium.Env, max_steps: int | None = None) -> int:
    """After how many steps an episode ends at the latest: by its own limit, or by `max_steps`.

    Raises:
        InputError: there is neither, so that an episode may never end.
    """
    own = env.spec.max_episode_steps if env.spec is not None else None
    limits = [limit for limit in (own, max_steps) if limit is not None]
    if not limits:
        name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        raise InputError(f"episodes of {name} have no time limit: give one by --max-steps")
    return min(limits)


class CheckedSteps:
    """Resets and steps of an environment whose every answer is sound.

    Arrays are copies: an environment may write into those that it returned, or was given, again. A
    reward may come as a number, a bool, or an array of shape [] or [1].

    Raises:
        InputError: by `reset` and `step`, for an answer that is no such thing or not finite, or an
            action that is not finite, with episode and step.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        self.env = env
        self.env_id = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        self._episode, self._step = "no episode", 0

    def reset(self, seed: int, episode: str) -> Shaped[ndarray, "o"]:
        """The first observation; `episode`, such as "episode 3", names it in errors.

        Raises:
            InputError: an observation that is not one of the space, or not finite.
        """
        self._episode, self._step = f"{episode} (reset with seed {seed})", 0
        observation, _ = self.env.reset(seed=seed)
        return self._observation(observation)

    def step(self, action: Shaped[ndarray, "a"]) -> Step:
        """One step of the current episode.

        Raises:
            InputError: an action or an answer that is not of the right shape or not finite.
        """
        self._step += 1
        action = np.array(action)
        if action.shape != self.env.action_space.shape or not np.isfinite(action).all():
            raise InputError(
                f"the action {action.tolist()} at step {self._step} of {self._episode} is not "
                f"{self.env.action_space.shape} finite numbers: the agent returned it, not "
                f"{self.env_id}; train it again"
            )
        observation, reward, terminated, truncated, info = self.env.step(action.copy())
        return Step(
            action,
            self._observation(observation),
            self._number("reward", reward),
            self._flag("terminated", terminated),
            self._flag("truncated", truncated),
            reward_parts(info),
        )

    def _observation(self, given: Any) -> Shaped[ndarray, "o"]:
        array = _numbers(given)
        if array is None or array.shape != self.env.observation_space.shape:
            self._refuse(
                f"{_shown(given)} as an observation, which its space declares as numbers of shape "
                f"{list(self.env.observation_space.shape or ())}"
            )
        if not np.isfinite(array).all():
            first = int(np.flatnonzero(~np.isfinite(array))[0])
            self._refuse(f"an observation that is not finite ({array[first]} in dimension {first})")
        return array

    def _number(self, what: str, given: Any) -> float:
        array = _numbers(given)
        if array is None or array.shape not in ((), (1,)):
            self._refuse(f"{_shown(given)} as {what}, where one number is needed")
        number = float(array.item())
        if not np.isfinite(number):
            self._refuse(f"{number} as {what}")
        return number

    def _flag(self, what: str, given: Any) -> bool:
        number = self._number(what, given)
        if number not in (0.0, 1.0):
            self._refuse(f"{_shown(given)} as {what}, where True or False is needed")
        return bool(number)

    def _refuse(self, what: str) -> NoReturn:
        when = f"at step {self._step} of" if self._step else "at the reset of"
        raise InputError(
            f"the environment {self.env_id} returned {what}, {when} {self._episode}: "
            "correct the environment"
        )


def reward_parts(info: Any) -> dict[str, float]:
    """The parts of a reward by their names in a step's info; without what is not one number."""
    if not isinstance(info, Mapping):
        return {}
    named = {k: v for k, v in info.items() if isinstance(k, str) and k.startswith(PART)}
    arrays = {name: _numbers(value) for name, value in named.items()}
    return {
        name: float(array.item())
        for name, array in arrays.items()
        if array is not None and array.size == 1 and np.isfinite(array).all()
    }


def _numbers(given: Any) -> ndarray | None:
    """A copy as an array of real numbers; None of anything else."""
    try:
        array = np.asarray(given).copy()
    except (TypeError, ValueError, RuntimeError):
        return None
    return array if array.dtype.kind in "biuf" else None


def _shown(given: Any) -> str:
    """A value in an error sentence: short, on one line."""
    text = " ".join(repr(given).split())
    return text if len(text) <= 80 else f"{text[:80]}..."
