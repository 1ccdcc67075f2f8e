"""Model-predictive control: plan with a model, act out the beginning, plan again."""

import time

import numpy as np
import torch
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.protocols import ActionPrior, Planner, Task, TrajectoryModel


class MPC:
    """Acts by the first `action_repeat` actions of the planner's sequence, then plans again.

    Observations [o] or a batch [b o] in, actions [a] or [b a] out, float32, in the environment's
    own units. `planning_seconds` and `steps` count since construction.

    Args:
        action_repeat: steps from one plan to the next; by default as many as the planner holds each
            decision for and moves its plan on by, or 1 of a planner that does not say.
        prior: the model's own, of which the plans are deviations. Each plan starts anew from none,
            and an action is chosen in the state that is real when its turn comes.

    Raises:
        InputError: `action_repeat` is below 1 or not that of the planner.
    """

    def __init__(
        self,
        model: TrajectoryModel,
        task: Task,
        planner: Planner,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        *,
        action_repeat: int | None = None,
        prior: ActionPrior | None = None,
    ) -> None:
        # A planner that moves its plan on by k steps must be asked every k steps.
        held = getattr(planner, "action_repeat", action_repeat or 1)
        self.action_repeat = held if action_repeat is None else action_repeat
        if self.action_repeat < 1 or self.action_repeat != held:
            raise InputError(
                f"action repeat {action_repeat} of an agent whose planner's is {held}: "
                "give both the same, at least 1"
            )
        self.model, self.task, self.planner = model, task, planner
        self.prior = prior
        self.generator, self.device = generator, torch.device(device)
        self.planning_seconds, self.steps = 0.0, 0
        self._waiting: list[Tensor] = []

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The action to take now.

        Raises:
            InputError: the observation is not finite, or one of another number of environments
                than the plan at hand without `reset()`.
        """
        started = time.perf_counter()
        if not np.isfinite(obs).all():
            raise InputError(
                f"an observation of {self.task.env_id} is not finite: the simulation has diverged"
            )
        batch = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        rows = batch if batch.ndim == 2 else batch.unsqueeze(0)
        if not self._waiting:
            if self.prior is not None:
                # Deviations that are kept from plan to plan add up, and leave the data.
                self.planner.reset()
            plan = self.planner(self.model, self.task, rows, self.generator)
            self._waiting = list(plan[:, : self.action_repeat].unbind(1))
        actions = self._waiting.pop(0)
        if len(actions) != len(rows):
            raise InputError(
                f"observations of {len(rows)} environments amid a plan for {len(actions)}: "
                "call reset() in between"
            )
        if self.prior is not None:
            actions = self.prior(rows, actions)
        action = (actions if batch.ndim == 2 else actions[0]).cpu().numpy()
        self.planning_seconds += time.perf_counter() - started
        self.steps += 1
        return action

    def reset(self) -> None:
        """Forgets the last plan: for the start of an episode."""
        self._waiting = []
        self.planner.reset()

    @property
    def planning_ms_per_step(self) -> float:
        """Milliseconds of planning per call of `act`; 0 before the first."""
        return 1e3 * self.planning_seconds / max(self.steps, 1)
