"""Which trial runs when: the loop of a sweep."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from mbrl_bilevel.scripts.sweeps.run_trial import Order, Report
from mbrl_bilevel.scripts.sweeps.trial import Trial

State = Literal["waiting", "running", "finished", "failed", "skipped"]
TICK_SECONDS = 1.0


@runtime_checkable
class Runs(Protocol):
    """Where trials run: `cluster.Cluster`."""

    def capacity(self) -> int:
        """Trials that can run at a time, now."""

    def start(self, order: Order) -> None:
        """Submits a trial."""

    def ended(self, seconds: float) -> list[Report]:
        """Trials that have ended, waiting up to so many seconds for one."""

    def stop(self) -> None:
        """Cancels what runs, and waits until it has written its checkpoints."""


@dataclass
class Standing:
    """What is known of a trial; `sentence` says why it failed or was skipped."""

    trial: Trial
    state: State = "waiting"
    sentence: str = ""


@dataclass
class Schedule:
    """The standing of each trial, by its name, in the order of the sweep."""

    trials: Sequence[Trial]
    standings: dict[str, Standing] = field(init=False)

    def __post_init__(self) -> None:
        self.standings = {trial.name: Standing(trial) for trial in self.trials}

    def count(self, state: State) -> int:
        """How many trials are in a state."""
        return sum(one.state == state for one in self.standings.values())

    def set(self, name: str, state: State, sentence: str = "") -> None:
        """Notes the state of a trial; what follows one that failed is skipped."""
        one = self.standings[name]
        one.state, one.sentence = state, sentence
        if state in ("failed", "skipped"):
            for other in self.standings.values():
                if other.trial.follows == name:
                    self.set(other.trial.name, "skipped", f"{name} {state}")

    def startable(self) -> Iterator[Trial]:
        """Trials that wait for nothing, in their order."""
        evaluated = {
            one.trial.follows
            for one in self.standings.values()
            if one.state == "running" and one.trial.command == "eval-model"
        }
        for one in list(self.standings.values()):
            if one.state != "waiting":
                continue
            before = one.trial.follows
            if before is not None and self.standings[before].state != "finished":
                continue
            if one.trial.command == "eval-model" and before is not None:
                if before in evaluated:  # each writes its figures to the folder of the model
                    continue
                evaluated.add(before)
            yield one.trial

    @property
    def over(self) -> bool:
        """Whether every trial has ended."""
        return not self.count("waiting") and not self.count("running")


def run_all(
    schedule: Schedule,
    runs: Runs,
    order: Callable[[Trial], Order],
    *,
    concurrent: int | None,
    on_change: Callable[[], None],
    on_tick: Callable[[], None],
) -> None:
    """Runs every trial that waits, at most `concurrent` at a time (None: what the nodes hold).

    on_change is called after trials ended, on_tick about every second.
    """
    while not schedule.over:
        slots = runs.capacity() if concurrent is None else concurrent
        for trial in schedule.startable():
            if schedule.count("running") >= slots:
                break
            schedule.set(trial.name, "running")
            runs.start(order(trial))
        on_tick()
        reports = runs.ended(TICK_SECONDS) if schedule.count("running") else []
        for report in reports:
            # A trial whose process was told to end, as of a node that leaves, goes on elsewhere.
            state: State = "waiting" if report.state == "stopped" else report.state
            schedule.set(report.name, state, report.sentence)
        if reports:
            on_change()
