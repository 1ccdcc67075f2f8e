"""MOPO: a policy learned offline, in a model of a data set (Yu et al. 2020, algorithm 1).

    the model is fitted to the data set (by `train-model`, before)
    for each step
        every imagine_every steps                 rollouts of the policy branch from the data's
                                                  states, reward less penalty_weight uncertainty
        a soft actor-critic update by a batch of rollouts, and a share real_ratio of the data

Here the policy also begins as, and stays near, the data's behaviour: its first imitate_steps clone
it, and later updates weigh cloning the batch's real rows against values (Fujimoto and Gu 2021).
Within the updates of an afternoon the penalty alone let it forget them; `real_ratio=0` leaves the
second out.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.learner_state import ModelState, Part, load_agent, save_agent
from mbrl_bilevel.agents.model_rollouts import ModelRollouts, concatenated
from mbrl_bilevel.agents.policy_learner import PolicyLearner
from mbrl_bilevel.agents.setting_groups import soft_values
from mbrl_bilevel.agents.settings import MOPOSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.envs.tasks import Task, planned_task
from mbrl_bilevel.models.dynamics import DynamicsModel


class MOPO:
    """A policy that learns from a data set and imagined transitions; a step is one of them.

    Args:
        data: transitions on the generator's device.
        model: of the same environment, trained.
        task: says when imagined episodes end, and pays for them unless the model does.
        generator: decides everything random.
        metadata: stands in the policy's file; names env_id and algorithm.
    """

    can_save = True  # a checkpoint leads back to any step

    def __init__(
        self,
        settings: MOPOSettings,
        data: Transitions,
        model: DynamicsModel,
        task: Task,
        spaces: Spaces,
        generator: torch.Generator,
        *,
        metadata: Mapping[str, str],
    ) -> None:
        self.settings, self.generator = settings, generator
        self.model, self.metadata = model, dict(metadata)
        self.learner = PolicyLearner(
            settings.policy,
            spaces,
            generator,
            soft_values=soft_values(settings.policy, settings.rollout),
            value_weight=settings.imitation.value_weight,
        )
        self.replay = Replay.of(data, generator.device)
        imagined = planned_task(task, model)
        self.rollouts = ModelRollouts(
            settings.rollout, model, imagined, self.learner, spaces, generator
        )
        # The data are not in a checkpoint: they are read again.
        self.parts: dict[str, Part] = {
            "policy": self.learner,
            "model": ModelState(model),
            "rollouts": self.rollouts,
        }
        self.step = 0

    def train_step(self) -> None:
        """One step: the updates, and the rollouts that are due before them."""
        since_imitation = self.step - self.settings.imitation.imitate_steps
        if since_imitation < 0:
            size = self.settings.policy.policy_batch_size
            batch = self.learner.shaped(self.replay.sample(size, self.generator))
            # Before rollouts: critics must know the data's policy before they judge another.
            self.learner.update(batch, imitate=True)
        else:
            if since_imitation % self.settings.rollout.imagine_every == 0:
                self.rollouts.branch(self.replay, self.step)
            for _ in range(self.settings.policy.updates_per_step):
                self._update()
        self.step += 1

    def _update(self) -> None:
        """By rows of the data, which the policy is to stay near, and by imagined ones."""
        size = self.settings.policy.policy_batch_size
        count = round(self.settings.rollout.real_ratio * size)
        real: Batch | None = None
        parts = []
        if count:
            real = self.learner.shaped(self.replay.sample(count, self.generator))
            parts.append(real)
        if size > count:
            parts.append(self.rollouts.sample(size - count))
        # Imagined actions are the policy's own: cloning them would hold it where it is.
        self.learner.update(concatenated(*parts), behaviour=real)

    def metrics(self) -> dict[str, float]:
        """Averages since the last call; waits for the device.

        Raises:
            TrainingDiverged: a critic beyond what rewards could add up to, or not finite.
        """
        found = self.learner.metrics(self.step, self.replay, self.rollouts.largest_reward)
        return found | self.rollouts.sums.take()

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
        """Writes checkpoint, policy, critics and model.

        Raises:
            TrainingDiverged: a number in them would not be finite; what stood there stays.
        """
        save_agent(self, folder)
        self.learner.save(folder, self.metadata)
        self.model.save(folder)

    def load(self, folder: Path) -> None:
        """Goes on from the folder's newest checkpoint; from the start where there is none."""
        load_agent(self, folder)
