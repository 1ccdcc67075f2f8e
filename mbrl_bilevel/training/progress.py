"""A bar on stderr for whoever watches."""

from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm

from mbrl_bilevel.training.loop import Callback, Training


class Progress(Callback):
    """Steps so far, and a few metrics.

    Args:
        shown: what the bar shows of the metrics, each under a shorter name.
    """

    def __init__(self, description: str, *, shown: Mapping[str, str], disable: bool) -> None:
        self.description, self.shown, self.disable = description, shown, disable

    def on_start(self, training: Training) -> None:
        self.bar = tqdm(
            total=training.steps,
            initial=training.step,
            unit="step",
            desc=self.description,
            disable=self.disable,
            mininterval=0.5,
        )

    def after_step(self, training: Training) -> None:
        if training.metrics is not None and self.shown:
            found = training.metrics
            words = [f"{label}={found[name]:.4g}" for label, name in self.shown.items()]
            training.status = ", ".join(words)
        if self.bar.disable:
            return
        self.bar.set_postfix_str(training.status, refresh=False)
        self.bar.update(training.step - self.bar.n)  # less than nothing after a rollback

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if hasattr(self, "bar"):
            self.bar.close()
