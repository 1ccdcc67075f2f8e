"""A fit's last good state, in memory, to go back to once."""

import warnings

from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.trainer import Trainer

SLOWER = 0.1  # of the learning rate, after a fit has diverged


class Rollback:
    """Keeps the state of the last good evaluation."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.remember()

    def remember(self) -> None:
        """The fit's state is good."""
        tensors, plain = self.trainer.state()
        self.good = {name: t.clone() for name, t in tensors.items()}, plain

    def roll_back(self, error: TrainingDiverged, kept: str) -> None:
        """From what `error` says to the last good state, with a UserWarning, at a lower pace.

        The count of skipped steps goes on. `kept` says what is left after the second time.

        Raises:
            TrainingDiverged: the second time, for good.
        """
        if self.trainer.slowed:
            raise TrainingDiverged(f"{error}{kept}") from None
        total = self.trainer.skipped_steps.total.clone()
        self.trainer.load_state(*self.good)
        self.trainer.skipped_steps.total.copy_(total)
        self.trainer.scale_learning_rate(SLOWER)
        self.remember()
        warnings.warn(
            f"{error}; going on from step {self.trainer.step} at {SLOWER:g} of the learning rate",
            stacklevel=3,
        )
