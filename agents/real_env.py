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

    A simulator's state is not ours to save. But number, seed and actions of the episode at hand
    lead back to it exactly, and that is what a checkpoint holds.
    """

    def __init__(self, env: gymnasium.Env, seed: int) -> None:
        self.env, self.seed = env, seed
        self.finished: list[tuple[float, int]] = []
        """Returns and lengths of the episodes that ended since this was last emptied."""
        self._begin(0)

    def _begin(self, episode: int) -> None:
        self.episode = episode
        self.actions: list[ndarray] = []
        self.total_reward = 0.0
        observation, _ = self.env.reset(seed=episode_seeds(self.seed, episode)[0])
        self.observation = np.array(observation)  # an environment may write into its own again

    @property
    def begins(self) -> bool:
        """Whether the next step is an episode's first."""
        return not self.actions

    def step(self, action: ndarray) -> RealStep:
        """Acts; where the episode ends, the next one begins."""
        action = action.astype(np.float32)
        observation = self.observation
        following, reward, terminated, truncated, _ = self.env.step(action)
        self.observation = after = np.array(following)
        self.actions.append(action)
        self.total_reward += float(reward)
        if terminated or truncated:
            self.finished.append((self.total_reward, len(self.actions)))
            self._begin(self.episode + 1)
        return RealStep(observation, action, float(reward), after, bool(terminated))

    def state(self) -> dict[str, Tensor]:
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
