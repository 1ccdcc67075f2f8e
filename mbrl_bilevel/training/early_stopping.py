"""A fit ends once its held-out score no longer improves."""

import math
from statistics import NormalDist
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.nested_state import State
from mbrl_bilevel.training.loop import Callback, Training


@runtime_checkable
class CountsStale(Protocol):
    """What judges evaluations: `stale` counts those since the last progress."""

    stale: int


class PairedTest:
    """Progress of held-out scores by a one-sided paired z-test over rows.

    With d the scores of the last evaluation that was progress less those of the latest, row by row,
    an evaluation is progress where mean(d) / (std(d) / sqrt(rows)) is above the normal quantile of
    1 - `level`: at a level of .5, where the mean is lower at all. The first is progress. Rows of
    one trajectory are alike: levels below .5 are stricter in name than in truth.

    Source: the stopping rule of DHMBPO (Kubo, Parmas, Ishii 2025).
    """

    def __init__(self, level: float) -> None:
        # Not of 1 - level, which is 1 for small levels.
        self.threshold = -NormalDist().inv_cdf(level)
        self.reference: Tensor | None = None
        self.stale = 0

    def update(self, scores: Float[Tensor, "b"]) -> None:
        """Takes in the scores of an evaluation, lower for better predictions; waits for them."""
        if self.reference is None or self._progress(self.reference - scores):
            self.reference, self.stale = scores, 0
        else:
            self.stale += 1

    def _progress(self, gain: Float[Tensor, "b"]) -> bool:
        """False for scores that are not finite."""
        mean, std = gain.mean().item(), gain.std(correction=0).item()
        return mean > self.threshold * std / math.sqrt(len(gain)) and mean > 0

    def state(self) -> State:
        stale = {"stale": torch.tensor(self.stale)}
        return stale if self.reference is None else stale | {"reference": self.reference}

    def load_state(self, state: State) -> None:
        self.stale, self.reference = int(state["stale"]), state.get("reference")


class EarlyStopping(Callback):
    """Ends a fit after `patience` evaluations without progress."""

    def __init__(self, progress: CountsStale, patience: int) -> None:
        self.progress, self.patience = progress, patience

    def on_start(self, training: Training) -> None:
        """A run that had ended so is not continued when it is resumed."""
        self.after_step(training)

    def after_step(self, training: Training) -> None:
        if self.progress.stale >= self.patience:
            training.stopped = True
