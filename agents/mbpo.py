"""MBPO: a policy learned on short rollouts in a learned model (Janner et al. 2019, algorithm 2).

    for each real step
        every refit_every steps                   the model is fitted to all real data
        every imagine_every steps                 rollouts of the policy branch from real states
        a ~ pi(. | s), add (s, a, r, s', d) to the real replay
        for each of updates_per_step
            a soft actor-critic update by a batch of rollouts, and a share real_ratio of real data

The first start_steps actions are uniformly random, and nothing is learned by then. Rollouts are
made more often than models: critics know what an action is worth only where one like it was taken,
and a policy that learned from older rollouts has moved on from theirs.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.learner_state import ModelState, Part, load_agent, save_agent
from mbrl_bilevel.agents.model_rollouts import ModelRollouts, concatenated
from mbrl_bilevel.agents.policy_learner import PolicyLearner
from mbrl_bilevel.agents.real_env import RealEnv
from mbrl_bilevel.agents.refit import ModelFits
from mbrl_bilevel.agents.setting_groups import soft_values
from mbrl_bilevel.agents.settings import MBPOSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.envs.simulated_transitions import SimulatedTransitions
from mbrl_bilevel.envs.tasks import Task, planned_task
from mbrl_bilevel.models.dynamics import DynamicsModel


class MBPO:
    """A policy that learns online from real and imagined transitions.

    Args:
        model: on the generator's device, untrained or to go on from.
        simulator: makes the rollouts in the model's place, which is then neither fitted nor saved.
        task: says when imagined episodes end, and pays for them unless the model does.
        generator: decides everything random but the environment.
        check_task: hold the task against the random steps before the first fit.
        metadata: stands in the policy's file; names env_id and algorithm.
    """

    can_save = True  # a checkpoint leads back to any step

    def __init__(
        self,
        settings: MBPOSettings,
        env: RealEnv,
        model: DynamicsModel,
        task: Task,
        generator: torch.Generator,
        *,
        simulator: SimulatedTransitions | None = None,
        check_task: bool = True,
        metadata: Mapping[str, str],
    ) -> None:
        self.settings, self.env, self.generator = settings, env, generator
        self.model, self.simulator, self.metadata = model, simulator, dict(metadata)
        spaces = Spaces.of(env.env)
        soft = soft_values(settings.policy, settings.rollout)
        self.learner = PolicyLearner(settings.policy, spaces, generator, soft_values=soft)
        self.replay = Replay(settings.steps, spaces.obs_dim, spaces.act_dim, generator.device)
        checked = task if check_task else None
        self.fits = ModelFits(
            settings.refits, settings.model, settings.objective, model, generator, task=checked
        )
        self.rollouts = ModelRollouts(
            settings.rollout,
            simulator or model,
            planned_task(task, simulator or model),
            self.learner,
            spaces,
            generator,
            starts=settings.starts,
        )
        # Everything that changes; what the settings decide is built again.
        self.parts: dict[str, Part] = {
            "policy": self.learner,
            "env": env,
            "replay": self.replay,
            "model": ModelState(model),
            "fits": self.fits,
            "rollouts": self.rollouts,
        }
        self.step = 0

    def train_step(self) -> None:
        """One real step, and what is due before and after it."""
        settings, since_start = self.settings, self.step - self.settings.start_steps
        if since_start < 0:
            self.replay.add(self.env.step(self.learner.random_action()).batch())
        else:
            # The model first: rollouts of this very step are then in the newest one.
            if self.simulator is None and since_start % settings.refits.refit_every == 0:
                self.fits.fit(self.replay)
            if since_start % settings.rollout.imagine_every == 0:
                self.rollouts.branch(self.replay, self.step)
            self.replay.add(self.env.step(self.learner.act(self.env.observation)).batch())
            for _ in range(settings.policy.updates_per_step):
                self.learner.update(self._batch())
        self.step += 1

    def _batch(self) -> Batch:
        """Shaped transitions, the real ones first."""
        size = self.settings.policy.policy_batch_size
        # Fixed counts, not draws per row: batches keep one shape, which CUDA graphs need.
        real, parts = round(self.settings.rollout.real_ratio * size), []
        if real:
            parts.append(self.learner.shaped(self.replay.sample(real, self.generator)))
        if size > real:
            parts.append(self.rollouts.sample(size - real))
        return concatenated(*parts)

    def metrics(self) -> dict[str, float]:
        """Averages since the last call, and the errors of the latest model; waits for the device.

        Raises:
            TrainingDiverged: a critic beyond what rewards could add up to, or not finite.
        """
        found = self.learner.metrics(self.step, self.replay, self.rollouts.largest_reward)
        return found | self.rollouts.sums.take() | self.fits.latest | self.env.metrics()

    @property
    def learning_rate_scaled(self) -> bool:
        return self.learner.learning_rate_scaled

    def scale_learning_rate(self, factor: float) -> None:
        """Of the policy's learning; fits of the model roll back by themselves."""
        self.learner.scale_learning_rate(factor)

    def policy(self) -> BehaviourPolicy:
        """The policy that is evaluated: the averaged actor's mean."""
        return BehaviourPolicy(self.learner.weights(), self.metadata)

    def critics(self) -> PolicyLearner:
        """Whose values are held against the policy's returns."""
        return self.learner

    def save(self, folder: Path) -> None:
        """Writes checkpoint, policy, critics and the model, unless the simulator is the model.

        Raises:
            TrainingDiverged: a number in them would not be finite; what stood there stays.
        """
        save_agent(self, folder)
        self.learner.save(folder, self.metadata)
        if self.simulator is None:
            self.model.save(folder)

    def load(self, folder: Path) -> None:
        """Goes on from the folder's newest checkpoint; from the start where there is none."""
        load_agent(self, folder)
