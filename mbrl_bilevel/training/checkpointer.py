"""When the state of a training goes to the disk."""

import time
from contextlib import suppress

from mbrl_bilevel.training.checkpoint import FILE
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.interruption import Interruption
from mbrl_bilevel.training.loop import Callback, Training
from mbrl_bilevel.training.run_folder import RunFolder

WAITING = "stops where it can be saved; Ctrl-C again stops at once"


class Checkpointer(Callback):
    """Saves a training into its run's folder now and then, at its end, and when it is interrupted.

    Args:
        seconds: between two checkpoints; 0: one whenever metrics are due.
        interruption: whose signal ends the training, once it can be saved.
    """

    def __init__(self, run: RunFolder, seconds: float, interruption: Interruption) -> None:
        self.run, self.seconds, self.interruption = run, seconds, interruption
        self.saved: int | None = None
        """Step of the newest checkpoint, None before the first."""
        self.last = time.monotonic()

    def on_start(self, training: Training) -> None:
        self.saved, self.last = training.step or None, time.monotonic()

    def after_step(self, training: Training) -> None:
        # Nothing comes after the end that a checkpoint must lead to.
        possible = training.trainable.can_save or training.ended
        if self.interruption.signal is not None:
            if possible:
                self._stop(training)
            training.status = WAITING
        elif training.ended or (possible and self._is_due(training)):
            self.save(training)

    def _is_due(self, training: Training) -> bool:
        if not self.seconds and training.metrics is None:
            return False
        return time.monotonic() - self.last > self.seconds

    def save(self, training: Training) -> None:
        """Writes a checkpoint, after the metrics that it counts on.

        Raises:
            TrainingDiverged: a number in it would not be finite. OSError: it cannot be written.
        """
        for callback in training.callbacks:
            callback.before_save(training)
        training.trainable.save(self.run.path)
        self.saved, self.last = training.step, time.monotonic()

    def _stop(self, training: Training) -> None:
        """Saves and raises Interrupted."""
        with suppress(TrainingDiverged):  # then the checkpoint from before stays
            self.save(training)
        raise self.interruption.at(training.step, self.saved)

    def what_is_kept(self) -> str:
        """What a training that is lost leaves behind, for its last sentence."""
        if self.saved is None:
            return "; no checkpoint was written before"
        return f"; the checkpoint of step {self.saved}, {self.run.path / FILE}, is kept"
