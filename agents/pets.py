"""PETS: planning in a probabilistic ensemble that is fitted as data come in (Chua et al. 2018).

    for each real step
        every refit_every steps                   the ensemble is fitted to all real data
        plan by sampled action sequences in the ensemble, act by the first action of the plan
        add (s, a, r, s', d) to the replay

The first start_steps actions are uniformly random.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from numpy import ndarray

from mbrl_bilevel.agents.learner_state import ModelState, Part, load_agent, save_agent
from mbrl_bilevel.agents.mpc import MPC
from mbrl_bilevel.agents.real_env import RealEnv
from mbrl_bilevel.agents.refit import ModelFits
from mbrl_bilevel.agents.settings import PETSSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.replay import Replay
from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.models.dynamics import DynamicsModel


class PETS:
    """Online model-predictive control whose model learns from what the control does.

    Args:
        plan: an MPC agent that looks ahead with the given model.
        check_task: hold the task against the random steps before the first fit.
    """

    learning_rate_scaled = True  # nothing to scale: fits of the model roll back by themselves

    def __init__(
        self,
        settings: PETSSettings,
        env: RealEnv,
        model: DynamicsModel,
        task: Task,
        generator: torch.Generator,
        plan: Callable[[DynamicsModel], MPC],
        *,
        check_task: bool = True,
    ) -> None:
        self.settings, self.env, self.generator = settings, env, generator
        self.model, self.plan = model, plan
        self.spaces = Spaces.of(env.env)
        self.replay = Replay(
            settings.steps, self.spaces.obs_dim, self.spaces.act_dim, generator.device
        )
        checked = task if check_task else None
        self.fits = ModelFits(
            settings.refits, settings.model, settings.objective, model, generator, task=checked
        )
        self.parts: dict[str, Part] = {
            "env": env,
            "replay": self.replay,
            "model": ModelState(model),
            "fits": self.fits,
        }
        self.agent: MPC | None = None
        self.step = 0

    def scale_learning_rate(self, factor: float) -> None:
        """Nothing: see `learning_rate_scaled`."""

    @property
    def can_save(self) -> bool:
        """Not amid the plans of one model: what a planner remembers is in no checkpoint."""
        return self.step <= self.settings.start_steps or self._refits_next

    @property
    def _refits_next(self) -> bool:
        since_start = self.step - self.settings.start_steps
        return since_start >= 0 and since_start % self.settings.refits.refit_every == 0

    def train_step(self) -> None:
        """One real step, and the fit that is due before it."""
        if self._refits_next:
            self.fits.fit(self.replay)
            # A new agent: plans of the old model are not a start for those of the new one.
            self.agent = self.plan(self.model)
        elif self.agent is not None and self.env.begins:
            self.agent.reset()
        self.replay.add(self.env.step(self._action()).batch())
        self.step += 1

    def _action(self) -> ndarray:
        if self.agent is not None:
            return self.agent.act(self.env.observation)
        box = self.spaces.action
        # By the agent's own generator, not the space's: it is in the checkpoint.
        unit = torch.rand(box.shape, generator=self.generator, device=self.generator.device)
        return box.low + unit.cpu().numpy() * (box.high - box.low)

    def metrics(self) -> dict[str, float]:
        """Returns of the episodes that ended since the last call, and the model's errors."""
        found = self.fits.latest | self.env.metrics()
        if self.agent is not None:
            found["time/planning_ms_per_step"] = self.agent.planning_ms_per_step
        return found

    def policy(self) -> None:
        """None: its episodes are the evaluation."""

    def save(self, folder: Path) -> None:
        """Writes checkpoint and model.

        Raises:
            TrainingDiverged: a number in them would not be finite; what stood there stays.
        """
        save_agent(self, folder)
        self.model.save(folder)

    def load(self, folder: Path) -> None:
        """Goes on from the folder's newest checkpoint; from the start where there is none."""
        load_agent(self, folder)
