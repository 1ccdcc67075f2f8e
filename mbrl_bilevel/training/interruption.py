"""Ctrl-C and SIGTERM: the step is finished, the state is kept, and the person is told."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from mbrl_bilevel.training.loop import Callback

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal ended the work after `step` steps (None: not in a loop of steps).

    A KeyboardInterrupt, so that no `except Exception` swallows it. The command line prints one
    line and exits with 128 + the number of the signal: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, signal_number: int, step: int | None = None, saved: int | None = None):
        self.signal, self.step, self.saved = signal.Signals(signal_number), step, saved
        super().__init__(str(self))

    def __str__(self) -> str:
        where = "" if self.step is None else f" at step {self.step:,}"
        kept = "" if self.saved is None else f"; the checkpoint of step {self.saved:,} is kept"
        return f"interrupted by {self.signal.name}{where}{kept}"

    @property
    def exit_code(self) -> int:
        return 128 + self.signal


class Interruption(Callback):
    """While this is open, the first SIGINT or SIGTERM only asks: `if interruption.signal: ...`.

    The loop looks at the end of every step, saves and raises `interruption.at(step)`. A second
    SIGINT raises KeyboardInterrupt at once. The former handlers come back at the end. Signals
    belong to the main thread: in another this does nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.signal = self.signal or number

    def at(self, step: int, saved: int | None = None) -> Interrupted:
        """What to raise after `step`, where the checkpoint of step `saved` stands on the disk."""
        assert self.signal is not None
        return Interrupted(self.signal, step, saved)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises Interrupted wherever the work stands, as Ctrl-C raises KeyboardInterrupt."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
