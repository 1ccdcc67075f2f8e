"""One episode of an agent in a real environment."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import gymnasium
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mbrl_bilevel.envs.stepping import CheckedSteps
from mbrl_bilevel.protocols import Agent


@dataclass(frozen=True)
class Episode:
    """How an episode went; `rewards` are those of its steps, in the environment's own units."""

    rewards: Float[ndarray, "t"]
    terminated: bool
    acting_seconds: float
    simulator_seconds: float
    """Of the environment's steps, which `acting_seconds` do not contain."""
    non_finite_sequences: int = 0
    """Imagined futures that the agent's planner threw away because they were not finite."""
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    """Sums over the steps of what the environment says that rewards are made of."""

    @property
    def length(self) -> int:
        return len(self.rewards)

    @property
    def total_reward(self) -> float:
        """The undiscounted return."""
        return float(self.rewards.sum())

    def discounted_return(self, discount: float, termination_cost: float = 0.0) -> float:
        """sum_t gamma^t r_t, the cost taken off the reward of a step that terminates."""
        weights = discount ** np.arange(self.length)
        cost = termination_cost * weights[-1] if self.terminated else 0.0
        return float(weights @ self.rewards - cost)


def run_episode(
    agent: Agent,
    env: gymnasium.Env,
    seed: int,
    *,
    name: str = "the episode",
    max_steps: int | None = None,
    on_step: Callable[[int, float], None] | None = None,
    on_frame: Callable[[ndarray], None] | None = None,
) -> Episode:
    """Runs `agent` from a reset by `seed` until the episode ends, or for `max_steps` steps.

    `on_step(length, total_reward)` is called after every step, `on_frame` with the rendered image
    [height width 3] of every state, if `env` was made with render_mode="rgb_array". `name` is what
    errors call the episode.

    Raises:
        InputError: what `CheckedSteps` refuses.
    """
    # Plans of an earlier episode say nothing about this one.
    agent.reset()
    steps = CheckedSteps(env)
    obs = steps.reset(seed, name)
    rewards: list[float] = []
    parts: dict[str, float] = {}
    total, acting, simulating = 0.0, 0.0, 0.0
    terminated = ended = False
    while not ended and len(rewards) != max_steps:
        _show(env, on_frame)
        start = time.perf_counter()
        action = agent.act(obs)
        between = time.perf_counter()  # acting and simulation are timed apart
        step = steps.step(action)
        simulating += time.perf_counter() - between
        acting += between - start
        obs, terminated = step.observation, step.terminated
        ended = terminated or step.truncated
        rewards.append(step.reward)
        total += step.reward
        for part, value in step.reward_parts.items():
            parts[part] = parts.get(part, 0.0) + value
        if on_step is not None:
            on_step(len(rewards), total)
    _show(env, on_frame)
    return Episode(np.array(rewards), terminated, acting, simulating, reward_parts=parts)


def _show(env: gymnasium.Env, on_frame: Callable[[ndarray], None] | None) -> None:
    if on_frame is not None:
        on_frame(np.array(env.render()))  # which the environment may draw into again
