"""A fit's good states: on the disk, to go on from after an end; in memory, to go back to."""

import time
import warnings
from contextlib import suppress

from mbrl_bilevel.training.checkpoint import FILE
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.interruption import Interruption
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.trainer import Trainer

SLOWER = 0.1  # of the learning rate, after a fit has gone astray


class Keeper:
    """Saves a fit into its run's folder now and then, and when it is interrupted.

    `saved` is the step of the newest checkpoint, None before the first. Without a run nothing is
    written. The state of the last good evaluation stays in memory.
    """

    def __init__(self, trainer: Trainer, run: RunFolder | None, seconds: float) -> None:
        self.trainer, self.run, self.seconds = trainer, run, seconds
        self.saved = trainer.step or None
        self.last = time.monotonic()
        self.remember()

    def remember(self) -> None:
        """The fit's state is good."""
        tensors, plain = self.trainer.state()
        self.good = {name: t.clone() for name, t in tensors.items()}, plain

    def go_back(self, error: TrainingDiverged) -> None:
        """From what `error` says to the last good state, with a UserWarning, at a lower pace.

        The count of steps left out goes on.

        Raises:
            TrainingDiverged: the second time, for good.
        """
        if self.trainer.slowed:
            raise TrainingDiverged(f"{error}{self._kept()}") from None
        total = self.trainer.left_out.total.clone()
        self.trainer.load_state(*self.good)
        self.trainer.left_out.total.copy_(total)
        self.trainer.slow_down(SLOWER)
        self.remember()
        warnings.warn(
            f"{error}; going on from step {self.trainer.step} at {SLOWER:g} of the learning rate",
            stacklevel=3,
        )

    @property
    def due(self) -> bool:
        return self.run is not None and time.monotonic() - self.last > self.seconds

    def save(self) -> None:
        """Writes a checkpoint, after the metrics that it counts on.

        Raises:
            TrainingDiverged: a number in it would not be finite. OSError: it cannot be written.
        """
        if self.run is None:
            return
        self.run.sync()
        self.trainer.save(self.run.path)
        self.saved, self.last = self.trainer.step, time.monotonic()

    def stop(self, interruption: Interruption) -> None:
        """Saves and ends the fit.

        Raises:
            Interrupted: always.
        """
        with suppress(TrainingDiverged):  # then the checkpoint from before stays
            self.save()
        raise interruption.at(self.trainer.step, self.saved)

    def _kept(self) -> str:
        """What a fit that is lost leaves behind, for its last sentence."""
        if self.run is None or self.saved is None:
            return "; no checkpoint was written before"
        return f"; the checkpoint of step {self.saved}, {self.run.path / FILE}, is kept"
