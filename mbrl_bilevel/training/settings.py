"""Settings of a fit, the defaults of library and command line in one place; no import of torch."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import BatchSize, Count, NotNegative, Positive, Range, check_ranges

Resampling = Literal["shared", "bootstrap"]
Schedule = Literal["constant", "cosine", "plateau"]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a model is fitted: steps, batches, optimiser, evaluations.

    Raises:
        InputError: a number out of range, or a weight decay that the learning rate makes too large.
    """

    steps: Count = 20_000
    """Gradient steps, at most."""
    batch_size: BatchSize = 256
    """Rows per member and step."""
    learning_rate: Positive = 3e-3
    """AdamW's learning rate at the start of its schedule."""
    weight_decay: NotNegative = 1e-5
    """Decoupled weight decay."""
    schedule: Schedule = "cosine"
    """Schedule of the learning rate: cosine decays it to a hundredth over --steps; plateau by 0.3
    whenever the held-out score has not improved for five evaluations."""
    resampling: Resampling = "shared"
    """Rows of the members: the same batches for all, or a bootstrap sample for each."""
    # None, which no flag gives, never stops early.
    patience: Count | None = 30
    """Training stops after this many evaluations without progress."""
    progress_level: Annotated[float, Range(0, 0.5, above=True)] | None = None
    """Progress is what a one-sided paired z-test of held-out scores, row by row, finds at this
    level; default: a score of any member that is lower by 0.001."""
    clip_norm: Annotated[float, Range(0, math.inf, above=True)] = 1000.0
    """Norm to which the gradient of each member is clipped; inf: no clipping."""
    evaluate_every: Count | None = None
    """Gradient steps between held-out evaluations; default: 200, more if the held-out part is
    large."""

    def __post_init__(self) -> None:
        check_ranges(self)
        check_weight_decay(self)

    def evaluation_interval(self, held_out: int) -> int:
        """Gradient steps between evaluations on so many held-out rows.

        By default an evaluation costs no more forward passes than the steps before it.
        """
        if self.evaluate_every is not None:
            return self.evaluate_every
        return max(200, math.ceil(4 * held_out / self.batch_size))


def check_weight_decay(settings: FitSettings) -> None:
    """Refuses a weight decay by which a step would take more than the whole of a weight away.

    Raises:
        InputError: the product with the learning rate is 1 or more.
    """
    decay, rate = settings.weight_decay, settings.learning_rate
    if not decay * rate < 1:
        raise InputError(
            f"a weight decay of {decay} at a learning rate of {rate}: choose one of at least 0 "
            "whose product with the learning rate is below 1"
        )
