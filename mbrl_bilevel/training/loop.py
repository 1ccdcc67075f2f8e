"""The one training loop: everything that learns is a `Trainable`, all around it a `Callback`."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable

from mbrl_bilevel.errors import TrainingDiverged


@runtime_checkable
class Trainable(Protocol):
    """What learns step by step: a fit of a model, or an agent."""

    @property
    def step(self) -> int:
        """Steps taken so far."""

    @property
    def can_save(self) -> bool:
        """Whether what `save` would write leads back to this very step."""

    @property
    def learning_rate_scaled(self) -> bool:
        """Whether `scale_learning_rate` was called in this run, or there is nothing to scale."""

    def train_step(self) -> None:
        """Takes one step."""

    def metrics(self) -> dict[str, float]:
        """Metrics at this step, averages since the last call where they are averages.

        Raises:
            TrainingDiverged: what is learned is lost.
        """

    def scale_learning_rate(self, factor: float) -> None:
        """Multiplies the learning rate from now on."""

    def save(self, folder: Path) -> None:
        """Writes a checkpoint.

        Raises:
            TrainingDiverged: a number in it would not be finite. OSError: it cannot be written.
        """

    def load(self, folder: Path) -> None:
        """Continues from the folder's checkpoint; from the start where there is none yet."""


class Callback:
    """What happens around the steps; every method may be left out.

    A callback is entered before the first step and exited after the last, whatever ends training.
    """

    def on_start(self, training: "Training") -> None:
        """Before the first step of this process, which need not be step 1."""

    def before_metrics(self, training: "Training") -> None:
        """Before the metrics of a step are read."""

    def after_step(self, training: "Training") -> None:
        """After every step; `training.metrics` holds its metrics if they were due, else None."""

    def before_save(self, training: "Training") -> None:
        """Before a checkpoint is written: what it counts on must be on the disk."""

    def on_divergence(self, training: "Training", error: TrainingDiverged) -> bool:
        """After a step that diverged; returns whether training can go on."""
        return False

    def on_success(self, training: "Training") -> None:
        """After the last step, if nothing was raised."""

    def __enter__(self) -> "Callback":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class Training:
    """The state of the loop, which callbacks see."""

    def __init__(
        self, trainable: Trainable, steps: int, metrics_every: int, callbacks: Sequence[Callback]
    ) -> None:
        self.trainable, self.steps, self.metrics_every = trainable, steps, metrics_every
        self.callbacks = callbacks
        self.metrics: dict[str, float] | None = None
        """Metrics of the latest step, if they were due."""
        self.status = ""
        """A few words for whoever watches."""
        self.stopped = False
        """A callback sets this to end training after the step."""

    @property
    def step(self) -> int:
        return self.trainable.step

    @property
    def ended(self) -> bool:
        """Whether no step follows."""
        return self.stopped or self.step >= self.steps

    def is_due(self, every: int) -> bool:
        """Whether this step is a multiple of `every`, or the last of all."""
        return self.step % every == 0 or self.step == self.steps


def train(
    trainable: Trainable,
    *,
    steps: int,
    metrics_every: int = 1_000,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Trains up to step `steps`; callbacks act after each step, in their order.

    Raises:
        TrainingDiverged: no callback took training back to a state from which it can go on.
    """
    training = Training(trainable, steps, metrics_every, callbacks)
    with ExitStack() as stack:
        for callback in callbacks:
            stack.enter_context(callback)
        for callback in callbacks:
            callback.on_start(training)
        while not training.ended:
            try:
                _step(training)
            except TrainingDiverged as error:
                recovered = [callback.on_divergence(training, error) for callback in callbacks]
                if not any(recovered):
                    raise
        for callback in callbacks:
            callback.on_success(training)


def _step(training: Training) -> None:
    training.metrics = None
    training.trainable.train_step()
    if training.is_due(training.metrics_every):
        for callback in training.callbacks:
            callback.before_metrics(training)
        training.metrics = training.trainable.metrics()
    for callback in training.callbacks:
        callback.after_step(training)
