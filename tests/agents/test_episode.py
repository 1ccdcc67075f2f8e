import time
from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from mbrl_bilevel.agents.episode import Episode, run_episode


class Slow:
    """Always the same action, after 2 ms of thought."""

    def __init__(self, action: float, size: int = 1) -> None:
        self.action, self.size, self.resets = action, size, 0

    def act(self, obs: np.ndarray) -> np.ndarray:
        time.sleep(0.002)
        return np.full(self.size, self.action, np.float32)

    def reset(self) -> None:
        self.resets += 1


def test_an_episode_keeps_the_reward_of_every_step() -> None:
    """Pendulum-v1 against a plain loop; what is told after each step are the sums so far."""
    env, agent, told = gymnasium.make("Pendulum-v1"), Slow(0.7), []
    found = run_episode(agent, env, 3, max_steps=30, on_step=lambda *now: told.append(now))
    env.reset(seed=3)
    rewards = [float(env.step(np.array([0.7], np.float32))[1]) for _ in range(30)]
    assert found.rewards == pytest.approx(rewards)
    assert found.total_reward == pytest.approx(sum(rewards))
    assert (found.length, found.terminated, agent.resets) == (30, False, 1)
    assert [length for length, _ in told] == list(range(1, 31))
    assert [total for _, total in told] == pytest.approx(np.cumsum(rewards))


def test_time_of_acting_and_of_simulating_are_apart() -> None:
    """30 pauses of 2 ms are acting; what is left for steps of a few microseconds is far less."""
    found = run_episode(Slow(0.0), gymnasium.make("Pendulum-v1"), 0, max_steps=30)
    assert found.acting_seconds >= 30 * 0.002
    assert 0 < found.simulator_seconds < found.acting_seconds


def test_an_episode_ends_with_the_environment_or_its_limit() -> None:
    fallen = run_episode(Slow(3.0), gymnasium.make("InvertedPendulum-v5"), 0)
    assert fallen.terminated
    assert fallen.length < 100
    whole = run_episode(Slow(0.0), gymnasium.make("Pendulum-v1"), 0)
    assert (whole.length, whole.terminated) == (200, False)


def test_parts_of_rewards_add_up_to_the_return_where_the_environment_tells_them() -> None:
    found = run_episode(
        Slow(0.3, 6), gymnasium.make("HalfCheetah-v5", frame_skip=1), 0, max_steps=20
    )
    assert set(found.reward_parts) == {"reward_forward", "reward_ctrl"}
    assert sum(found.reward_parts.values()) == pytest.approx(found.total_reward)
    assert found.reward_parts["reward_ctrl"] == pytest.approx(-20 * 0.1 * 6 * 0.3**2)
    assert run_episode(Slow(0.0), gymnasium.make("Pendulum-v1"), 0).reward_parts == {}


def test_a_discounted_return_pays_for_a_termination_in_the_step_that_ends() -> None:
    ended = Episode(np.array([1.0, 2.0, 4.0]), True, 0.0, 0.0)
    assert ended.discounted_return(0.5) == 1 + 1 + 1
    assert ended.discounted_return(0.5, 8.0) == 1 + 1 + 0.25 * (4 - 8)
    assert replace(ended, terminated=False).discounted_return(0.5, 8.0) == 3
