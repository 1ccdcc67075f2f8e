"""When the state of a training goes to the disk."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from mbrl_bilevel.training.checkpoint import FILE
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.interruption import Interruption
from mbrl_bilevel.training.run_folder import RunFolder


@runtime_checkable
class Resumable(Protocol):
    """What trains step by step and can be saved in between."""

    @property
    def step(self) -> int: ...

    def save(self, folder: Path) -> None: ...


class Checkpointer:
    """Saves a training into its run's folder now and then, and when it is interrupted.

    `saved` is the step of the newest checkpoint, None before the first. Without a run nothing is
    written.
    """

    def __init__(self, trainer: Resumable, run: RunFolder | None, seconds: float) -> None:
        self.trainer, self.run, self.seconds = trainer, run, seconds
        self.saved = trainer.step or None
        self.last = time.monotonic()

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
        """Saves and ends the training.

        Raises:
            Interrupted: always.
        """
        with suppress(TrainingDiverged):  # then the checkpoint from before stays
            self.save()
        raise interruption.at(self.trainer.step, self.saved)

    def kept(self) -> str:
        """What a training that is lost leaves behind, for its last sentence."""
        if self.run is None or self.saved is None:
            return "; no checkpoint was written before"
        return f"; the checkpoint of step {self.saved}, {self.run.path / FILE}, is kept"
