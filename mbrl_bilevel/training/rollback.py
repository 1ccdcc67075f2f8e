"""After divergence: back to the last good state, once, and on at a lower learning rate."""

import warnings
from typing import Any, Protocol, runtime_checkable

from mbrl_bilevel.training.checkpointer import Checkpointer
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.loop import Callback, Trainable, Training

SLOWER = 0.1  # of the learning rate, after divergence


@runtime_checkable
class GoodState(Protocol):
    """Where a rollback leads to."""

    def remember(self) -> None:
        """The state of this moment is good."""

    def restore(self) -> bool:
        """Goes back to the state remembered; False where there is none."""


@runtime_checkable
class HasSnapshots(Protocol):
    """What can hand out a copy of its whole state, and go on from one."""

    def snapshot(self) -> Any: ...

    def restore(self, snapshot: Any) -> None: ...


class InMemory:
    """A copy of the whole state: for what is small and evaluated often."""

    def __init__(self, trainer: HasSnapshots) -> None:
        self.trainer = trainer
        self.good: Any = None

    def remember(self) -> None:
        self.good = self.trainer.snapshot()

    def restore(self) -> bool:
        self.trainer.restore(self.good)
        return True


class InFolder:
    """The newest checkpoint: for what is too large to be copied."""

    def __init__(self, trainable: Trainable, checkpointer: Checkpointer) -> None:
        self.trainable, self.checkpointer = trainable, checkpointer

    def remember(self) -> None:
        """Nothing: the checkpointer does."""

    def restore(self) -> bool:
        if self.checkpointer.saved is None:
            return False
        self.trainable.load(self.checkpointer.run.path)
        return True


class Rollback(Callback):
    """Goes back once; the second time training ends, with what is kept in the sentence."""

    def __init__(self, state: GoodState, checkpointer: Checkpointer | None) -> None:
        self.state, self.checkpointer = state, checkpointer

    def on_start(self, training: Training) -> None:
        self.state.remember()

    def after_step(self, training: Training) -> None:
        if training.metrics is not None:
            self.state.remember()

    def on_divergence(self, training: Training, error: TrainingDiverged) -> bool:
        if training.trainable.learning_rate_scaled or not self.state.restore():
            kept = "; no checkpoint was written before"
            if self.checkpointer is not None:
                kept = self.checkpointer.what_is_kept()
            raise TrainingDiverged(f"{error}{kept}") from None
        training.trainable.scale_learning_rate(SLOWER)
        self.state.remember()
        warnings.warn(
            f"{error}; going on from step {training.step} at {SLOWER:g} of the learning rate",
            stacklevel=2,
        )
        return True
