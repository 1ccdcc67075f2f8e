"""The learning rate of a fit: its schedule, and what a rollback makes of it."""

from collections.abc import Mapping
from typing import Any

import torch

from mbrl_bilevel.training.settings import FitSettings

LAST = 0.01  # of the first rate, where the cosine schedule ends


class LearningRate:
    """Moves an optimiser's rate by the step (cosine), by the held-out score (plateau), or never."""

    def __init__(self, optimizer: torch.optim.Optimizer, settings: FitSettings) -> None:
        self.group = optimizer.param_groups[0]
        self.scaled = False
        """Whether `scale` was called in this run."""
        schedulers = torch.optim.lr_scheduler
        self.by_step = self.by_score = None
        if settings.schedule == "cosine":
            last = LAST * settings.learning_rate
            self.by_step = schedulers.CosineAnnealingLR(optimizer, settings.steps, last)
        if settings.schedule == "plateau":
            self.by_score = schedulers.ReduceLROnPlateau(optimizer, factor=0.3, patience=5)

    @property
    def value(self) -> float:
        return float(self.group["lr"])

    def after_step(self) -> None:
        if self.by_step is not None:
            self.by_step.step()

    def after_evaluation(self, score: float) -> None:
        """`score` is lower for better fits."""
        if self.by_score is not None:
            self.by_score.step(score)

    def scale(self, factor: float) -> None:
        """Multiplies it by `factor`, now and for the rest of the schedule."""
        self.scaled = True
        self.group["lr"] *= factor
        if self.by_step is not None:
            self.by_step.base_lrs = [factor * lr for lr in self.by_step.base_lrs]
            self.by_step.eta_min *= factor

    def state(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        schedulers = {name: _changing(scheduler) for name, scheduler in self._schedulers().items()}
        return {"value": self.value, "scaled": self.scaled, "schedulers": schedulers}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.group["lr"], self.scaled = state["value"], state["scaled"]
        for name, scheduler in self._schedulers().items():
            scheduler.load_state_dict(state["schedulers"][name])

    def _schedulers(self) -> dict[str, Any]:
        found = {"by_step": self.by_step, "by_score": self.by_score}
        return {name: scheduler for name, scheduler in found.items() if scheduler is not None}


def _changing(scheduler: Any) -> dict[str, Any]:
    """What changes in a scheduler; the rest comes from the settings again."""
    return {k: v for k, v in scheduler.state_dict().items() if isinstance(v, (int, float, list))}
