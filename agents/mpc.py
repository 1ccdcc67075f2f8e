"""Model-predictive control: plan with a model, act out the first action, plan again."""

import time

import numpy as np
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.protocols import Planner, Task, TrajectoryModel


class MPC:
    """Acts by the first action of the planner's best sequence from the present observation.

    Observations [o] or a batch [b o] in, actions [a] or [b a] out, float32, in the environment's
    own units. `planning_seconds` and `steps` count since construction.
    """

    def __init__(
        self,
        model: TrajectoryModel,
        task: Task,
        planner: Planner,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model, self.task, self.planner = model, task, planner
        self.generator, self.device = generator, torch.device(device)
        self.planning_seconds, self.steps = 0.0, 0

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The action to take now.

        Raises:
            InputError: the observation is not finite.
        """
        started = time.perf_counter()
        if not np.isfinite(obs).all():
            raise InputError(
                f"an observation of {self.task.env_id} is not finite: the simulation has diverged"
            )
        batch = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        rows = batch if batch.ndim == 2 else batch.unsqueeze(0)
        first = self.planner(self.model, self.task, rows, self.generator)[:, 0]
        action = (first if batch.ndim == 2 else first[0]).cpu().numpy()
        self.planning_seconds += time.perf_counter() - started
        self.steps += 1
        return action

    def reset(self) -> None:
        """Forgets the last plan: for the start of an episode."""
        self.planner.reset()

    @property
    def planning_ms_per_step(self) -> float:
        """Milliseconds of planning per call of `act`; 0 before the first."""
        return 1e3 * self.planning_seconds / max(self.steps, 1)
