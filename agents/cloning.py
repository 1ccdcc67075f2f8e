"""Behaviour cloning: the policy of a data set, and the values of that policy.

    for each step
        a batch (s, a, r, s', d) of the data
        actor:    minimise -mean log pi(a | s)
        critics:  Q(s, a) towards r + gamma (1 - d) min_i Q'_i(s', a'),  a' ~ pi(. | s')

The updates are those by which MOPO begins, without entropy in the values.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.learner_state import Part, load_agent, save_agent
from mbrl_bilevel.agents.policy_learner import PolicyLearner
from mbrl_bilevel.agents.settings import CloningSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.replay import Replay
from mbrl_bilevel.data.transitions import Transitions


class Cloning:
    """A policy that imitates a data set; a step is an update.

    Args:
        data: transitions on the generator's device.
        generator: decides everything random.
        metadata: stands in the policy's file; names env_id and algorithm.
    """

    can_save = True  # a checkpoint leads back to any step

    def __init__(
        self,
        settings: CloningSettings,
        data: Transitions,
        spaces: Spaces,
        generator: torch.Generator,
        *,
        metadata: Mapping[str, str],
    ) -> None:
        self.settings, self.generator, self.metadata = settings, generator, dict(metadata)
        self.learner = PolicyLearner(
            settings.policy, spaces, generator, soft_values=bool(settings.policy.entropy_in_values)
        )
        self.replay = Replay.of(data, generator.device)
        # The data are not in a checkpoint: they are read again.
        self.parts: dict[str, Part] = {"policy": self.learner}
        self.step = 0

    def train_step(self) -> None:
        """The updates of one step."""
        for _ in range(self.settings.policy.updates_per_step):
            batch = self.replay.sample(self.settings.policy.policy_batch_size, self.generator)
            self.learner.update(self.learner.shaped(batch), imitate=True)
        self.step += 1

    def metrics(self) -> dict[str, float]:
        """Averages since the last call; waits for the device.

        Raises:
            TrainingDiverged: a critic beyond what rewards could add up to, or not finite.
        """
        return self.learner.metrics(self.step, self.replay)

    @property
    def learning_rate_scaled(self) -> bool:
        return self.learner.learning_rate_scaled

    def scale_learning_rate(self, factor: float) -> None:
        """Of the policy's learning."""
        self.learner.scale_learning_rate(factor)

    def policy(self) -> BehaviourPolicy:
        """The policy that is evaluated: the averaged actor's mean."""
        return BehaviourPolicy(self.learner.weights(), self.metadata)

    def critics(self) -> PolicyLearner:
        """Whose values are held against the policy's returns."""
        return self.learner

    def save(self, folder: Path) -> None:
        """Writes checkpoint, policy and critics.

        Raises:
            TrainingDiverged: a number in them would not be finite; what stood there stays.
        """
        save_agent(self, folder)
        self.learner.save(folder, self.metadata)

    def load(self, folder: Path) -> None:
        """Goes on from the folder's newest checkpoint; from the start where there is none."""
        load_agent(self, folder)
