"""The metrics of a training, in its run's folder."""

import time

from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.loop import Callback, Training
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.tensorboard import Layout


class MetricsLog(Callback):
    """A line of metrics.jsonl and points of TensorBoard's curves whenever metrics are due.

    Args:
        rate: the metric that tells steps per second, evaluations left out.
        layout: TensorBoard's first charts.
    """

    def __init__(self, run: RunFolder, rate: str, layout: Layout) -> None:
        self.run, self.rate, self.layout = run, rate, layout

    def on_start(self, training: Training) -> None:
        self.run.continue_from(training.step, self.layout)
        self._start_clock(training)

    def before_metrics(self, training: Training) -> None:
        self.seconds = time.monotonic() - self.began

    def after_step(self, training: Training) -> None:
        if training.metrics is not None:
            rate = (training.step - self.first) / self.seconds
            self.run.log(training.step, training.metrics | {self.rate: rate})
            self._start_clock(training)

    def before_save(self, training: Training) -> None:
        self.run.sync()

    def on_divergence(self, training: Training, error: TrainingDiverged) -> bool:
        """After a rollback, to whose step the metrics go back too."""
        self.on_start(training)
        return False

    def _start_clock(self, training: Training) -> None:
        self.began, self.first = time.monotonic(), training.step
