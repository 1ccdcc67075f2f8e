"""The real environment as a learner steps it: one transition at a time, in a state that can be
reached again."""

from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from mbrl_bilevel.agents.parallel import episode_seeds
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.data.rounding import FirstRows
from mbrl_bilevel.envs.stepping import CheckedSteps


class RealStep(NamedTuple):
    """One transition [o], [a]; `terminated` says that the next state has no future."""

    observation: ndarray
    action: ndarray
    reward: float
    next_observation: ndarray
    terminated: bool

    def batch(self) -> Batch:
        """The same as a batch of one."""
        columns = (torch.as_tensor(np.asarray(part), dtype=torch.float32) for part in self)
        return Batch(*(column.unsqueeze(0) for column in columns))


class RealEnv:
    """Episodes one after another, each from a reset by a seed of its own.

    A checkpoint holds number and actions of the current episode, which lead back to its state
    exactly: gymnasium has no way to save a simulator's own. Episodes are truncated after
    `max_steps` steps, where the environment does not end them before.
    """

    def __init__(self, env: gymnasium.Env, seed: int, max_steps: int | None = None) -> None:
        self.env, self.seed, self.max_steps = env, seed, max_steps
        self._steps = CheckedSteps(env)
        self._first = FirstRows(f"environment {self._steps.env_id}")
        self.finished: list[tuple[float, int]] = []
        """Returns and lengths of the episodes that ended since this was last emptied."""
        self._begin(0)

    def _begin(self, episode: int) -> None:
        self.episode = episode
        self.actions: list[ndarray] = []
        self.total_reward = 0.0
        # A seed per episode: an episode can be played again without those before it.
        seed = episode_seeds(self.seed, episode)[0]
        self.observation = self._steps.reset(seed, f"episode {episode}")
        self._first.add(self.observation, start=True)

    @property
    def begins(self) -> bool:
        """Whether the next step is an episode's first."""
        return not self.actions

    def step(self, action: ndarray) -> RealStep:
        """Acts; where the episode ends, the next one begins.

        Raises:
            InputError: what `CheckedSteps` refuses, or observations that float32 cannot hold.
        """
        # float32 as it is stored: an episode is played again from stored actions.
        observation, step = self.observation, self._steps.step(action.astype(np.float32))
        self.observation = step.observation
        self._first.add(step.observation, start=False)
        self.actions.append(step.action)
        self.total_reward += step.reward
        if step.terminated or step.truncated or len(self.actions) == self.max_steps:
            self.finished.append((self.total_reward, len(self.actions)))
            self._begin(self.episode + 1)
        return RealStep(observation, step.action, step.reward, step.observation, step.terminated)

    def metrics(self) -> dict[str, float]:
        """Mean return and length of the episodes that ended since the last call; empty of none."""
        if not self.finished:
            return {}
        totals, lengths = np.array(self.finished).T
        self.finished = []
        return {"real/return": float(totals.mean()), "real/length": float(lengths.mean())}

    def state(self) -> dict[str, Tensor]:
        """Number and actions of the present episode, and the episodes not yet reported."""
        size = (0, *(self.env.action_space.shape or ()))
        actions = np.stack(self.actions) if self.actions else np.zeros(size, np.float32)
        finished = torch.tensor(self.finished, dtype=torch.float64).reshape(-1, 2)
        return {
            "episode": torch.tensor(self.episode),
            "actions": torch.from_numpy(actions),
            "finished": finished,
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Plays the episode up to where it was."""
        self._begin(int(state["episode"]))
        for action in state["actions"].cpu().numpy():
            self.step(action)
        self.finished = [(total, int(length)) for total, length in state["finished"].tolist()]
