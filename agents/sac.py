"""Soft actor-critic online, without a model (Haarnoja et al. 2018b, algorithm 1).

for each real step
    a ~ pi(. | s); in the first start_steps uniformly random
    add (s, a, r, s', d) to the replay
    for each of updates_per_step, after the random steps
        a batch of the replay: critics, actor, temperature, target critics (policy_updates.py)
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.learner_state import Part, load_agent, save_agent
from mbrl_bilevel.agents.policy_learner import PolicyLearner
from mbrl_bilevel.agents.real_env import RealEnv
from mbrl_bilevel.agents.settings import SACSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.replay import Replay


class SAC:
    """Soft actor-critic on real transitions.

    Args:
        generator: on the training device; decides everything random but the environment.
        metadata: stands in the policy's file; names env_id and algorithm.
    """

    can_save = True  # a checkpoint leads back to any step

    def __init__(
        self,
        settings: SACSettings,
        env: RealEnv,
        generator: torch.Generator,
        *,
        metadata: Mapping[str, str],
    ) -> None:
        self.settings, self.env, self.generator = settings, env, generator
        self.metadata = dict(metadata)
        spaces = Spaces.of(env.env)
        self.learner = PolicyLearner(settings.policy, spaces, generator)
        # As long as the run: no transition is ever dropped.
        self.replay = Replay(settings.steps, spaces.obs_dim, spaces.act_dim, generator.device)
        # Everything that changes; what the settings decide is built again.
        self.parts: dict[str, Part] = {
            "policy": self.learner,
            "env": env,
            "replay": self.replay,
        }
        self.step = 0

    def train_step(self) -> None:
        """One real step, and the updates that are due after it."""
        learning = self.step >= self.settings.start_steps
        observation = self.env.observation
        action = self.learner.act(observation) if learning else self.learner.random_action()
        self.replay.add(self.env.step(action).batch())
        if learning:
            for _ in range(self.settings.policy.updates_per_step):
                batch = self.replay.sample(self.settings.policy.policy_batch_size, self.generator)
                self.learner.update(self.learner.shaped(batch))
        self.step += 1

    def metrics(self) -> dict[str, float]:
        """Averages since the last call; waits for the device.

        Raises:
            TrainingDiverged: a critic beyond what rewards could add up to, or not finite.
        """
        return self.learner.metrics(self.step, self.replay) | self.env.metrics()

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
