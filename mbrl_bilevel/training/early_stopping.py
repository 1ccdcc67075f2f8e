"""A fit ends once its held-out score no longer improves."""

from mbrl_bilevel.training.held_out import BestMembers
from mbrl_bilevel.training.loop import Callback, Training


class EarlyStopping(Callback):
    """Ends a fit after `patience` evaluations in which no member made progress."""

    def __init__(self, best: BestMembers, patience: int) -> None:
        self.best, self.patience = best, patience

    def on_start(self, training: Training) -> None:
        """A run that had ended so is not continued when it is resumed."""
        self.after_step(training)

    def after_step(self, training: Training) -> None:
        if self.best.stale >= self.patience:
            training.stopped = True
