"""DHMBPO: policy gradients through a learned model, over two horizons (Kubo, Parmas, Ishii 2025).

for each real step
    every refit_every steps, after start_steps of uniformly random actions
        the model is fitted to all real data; the buffer of imagined states is emptied, and
        Adam of actor and critics restarted
        for each of critic_updates: critics alone
    a ~ pi(. | s), add (s, a, r, s', d) to the replay
    for each of updates_per_step (until the second fit: first_updates_per_step)
        critics, actor and temperature by a short differentiated rollout from a state of a long
        detached one (two_horizon_updates.py)
        the average of the actor, which is evaluated, follows the actor
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from mbrl_bilevel.agents.actor_average import ActorAverage
from mbrl_bilevel.agents.behaviour import BehaviourPolicy
from mbrl_bilevel.agents.learner_state import REMEDY, ModelState, Part, load_agent, save_agent
from mbrl_bilevel.agents.policy_file import save_policy
from mbrl_bilevel.agents.real_env import RealEnv
from mbrl_bilevel.agents.refit import ModelFits
from mbrl_bilevel.agents.settings import DHMBPOSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.agents.two_horizon_updates import TwoHorizonUpdates
from mbrl_bilevel.data.replay import Replay
from mbrl_bilevel.envs.tasks import Task, planned_task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.training.divergence import TrainingDiverged

MANY = 0.1  # of the updates since metrics were last read: skipped because they were not finite


class DHMBPO:
    """A policy that learns online, by gradients through a model of the real transitions.

    Args:
        model: on the generator's device, untrained or to go on from.
        task: says when imagined episodes end, and pays for them unless the model does.
        generator: decides everything random but the environment.
        check_task: hold the task against the random steps before the first fit.
        metadata: stands in the policy's file; names env_id and algorithm.
    """

    can_save = True  # a checkpoint leads back to any step

    def __init__(
        self,
        settings: DHMBPOSettings,
        env: RealEnv,
        model: DynamicsModel,
        task: Task,
        generator: torch.Generator,
        *,
        check_task: bool = True,
        metadata: Mapping[str, str],
    ) -> None:
        self.settings, self.env, self.generator = settings, env, generator
        self.model, self.metadata = model, dict(metadata)
        spaces = Spaces.of(env.env)
        self.replay = Replay(settings.steps, spaces.obs_dim, spaces.act_dim, generator.device)
        checked = task if check_task else None
        self.fits = ModelFits(
            settings.refits, settings.model, settings.objective, model, generator, task=checked
        )
        self.updates = TwoHorizonUpdates(
            settings.policy, model, planned_task(task, model), spaces, generator
        )
        self.average = ActorAverage(self.updates.actor, settings.policy.averaging_rate)
        self.parts: dict[str, Part] = {
            "env": env,
            "replay": self.replay,
            "model": ModelState(model),  # before the updates, which copy it
            "fits": self.fits,
            "updates": self.updates,
            "average": self.average,
        }
        self.step = 0

    def train_step(self) -> None:
        """One real step, and what is due before and after it."""
        settings, since_start = self.settings, self.step - self.settings.start_steps
        if since_start >= 0 and since_start % settings.refits.refit_every == 0:
            self._fit()
        observation = self.env.observation
        action = self._act(observation) if since_start >= 0 else self._random_action()
        self.replay.add(self.env.step(action.cpu().numpy()).batch())
        if since_start >= 0:
            first = since_start < settings.refits.refit_every
            policy = settings.policy
            for _ in range(policy.first_updates_per_step if first else policy.updates_per_step):
                self.updates.update(self._starts)
                self.average.follow()
        self.step += 1

    def _fit(self) -> None:
        self.fits.fit(self.replay)
        # By the same data as the model: actor and critics see what it was fitted to.
        self.updates.standardizer.fit(self.replay.in_order().observation)
        # Imagined states, and Adam's moments, belong to the model that was replaced.
        self.updates.restart()
        for _ in range(self.settings.policy.critic_updates):
            self.updates.update(self._starts, critics_only=True)

    def _starts(self, count: int) -> Float[Tensor, "b o"]:
        """Real states, drawn uniformly."""
        return self.replay.sample(count, self.generator).observation

    def _random_action(self) -> Float[Tensor, "a"]:
        actor, device = self.updates.actor, self.generator.device
        unit = torch.rand(actor.action_bias.shape, generator=self.generator, device=device)
        return actor.scaled(2 * unit - 1)

    @torch.no_grad()
    def _act(self, observation: ndarray) -> Float[Tensor, "a"]:
        row = torch.as_tensor(observation, dtype=torch.float32, device=self.generator.device)
        s = self.updates.standardizer.standardize(row.unsqueeze(0))
        unit, _ = self.updates.actor.sample(s, self.generator)
        return self.updates.actor.scaled(unit)[0]

    def metrics(self) -> dict[str, float]:
        """Averages since the last call, and the errors of the latest model; waits for the device.

        Raises:
            TrainingDiverged: a tenth of the updates were skipped because they were not finite.
        """
        found = self.updates.sums.take()
        skipped = found.get("policy/skipped_steps", 0.0)
        if skipped >= MANY:
            raise TrainingDiverged(
                f"{skipped:.0%} of the updates before step {self.step} were not finite; {REMEDY}"
            )
        return found | self.fits.latest | self.env.metrics()

    @property
    def learning_rate_scaled(self) -> bool:
        return self.updates.learning_rate_scaled

    def scale_learning_rate(self, factor: float) -> None:
        """Of the policy's learning; fits of the model roll back by themselves."""
        self.updates.scale_learning_rate(factor)

    def policy(self) -> BehaviourPolicy:
        """The policy that is evaluated: the averaged actor's mean."""
        weights = self.average.actor.weights(self.updates.standardizer)
        return BehaviourPolicy(weights, self.metadata | {"activation": "silu"})

    def critics(self) -> TwoHorizonUpdates:
        """Whose values are held against the policy's returns."""
        return self.updates

    def save(self, folder: Path) -> None:
        """Writes checkpoint, policy and model.

        Raises:
            TrainingDiverged: a number in them would not be finite; what stood there stays.
        """
        save_agent(self, folder)
        policy = self.policy()
        save_policy(folder, policy.weights, policy.metadata)
        self.model.save(folder)

    def load(self, folder: Path) -> None:
        """Goes on from the folder's newest checkpoint; from the start where there is none."""
        load_agent(self, folder)
