"""What a person who watches a sweep sees: a table that stays in its place, or plain lines."""

import shutil
import sys
import time
from collections.abc import Callable

from mbrl_bilevel.scripts.command import say
from mbrl_bilevel.scripts.sweeps.folder import SweepFolder, last_lines
from mbrl_bilevel.scripts.sweeps.headlines import LIVE, summary
from mbrl_bilevel.scripts.sweeps.schedule import Schedule, Standing, State
from mbrl_bilevel.training.run_folder import METRICS

ORDER: tuple[State, ...] = ("running", "failed", "skipped", "finished", "waiting")
PLAIN_SECONDS = 300.0  # between two lines of progress where stdout is no terminal
UP, CLEAR = "\x1b[{}A\r", "\x1b[0J"


class LiveTable:
    """A row for each trial: state, steps, last metric.

    Args:
        steps: of each training by its name, None of evaluations.
        live: whether the table is drawn again in its place; else each change is a line.
    """

    def __init__(
        self,
        folder: SweepFolder,
        schedule: Schedule,
        steps: dict[str, int | None],
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.schedule, self.steps, self.clock = folder, schedule, steps, clock
        self.live = sys.stdout.isatty() and sys.stderr.isatty() if live is None else live
        self.began = self.told = clock()
        self._drawn = 0
        self._last = {name: one.state for name, one in schedule.standings.items()}
        self._finished: dict[str, tuple[str, str]] = {}

    def show(self) -> None:
        """Draws the table again, or tells what has changed since the last call."""
        if self.live:
            self._draw()
        else:
            self._tell()

    def _draw(self) -> None:
        width, height = shutil.get_terminal_size()
        lines = [line[: width - 1] for line in self.lines(height - 1)]
        up = UP.format(self._drawn) if self._drawn else ""
        sys.stderr.write(up + CLEAR + "\n".join(lines) + "\n")
        sys.stderr.flush()
        self._drawn = len(lines)

    def lines(self, most: int) -> list[str]:
        """Counts, then trials: those that run first; as many as there is room for."""
        rows = [("state", "progress", "metric", "trial")]
        ordered = sorted(self.schedule.standings.values(), key=lambda one: ORDER.index(one.state))
        room = max(1, most - 2)
        shown = ordered if len(ordered) <= room else ordered[: max(1, room - 1)]
        rows += [self._row(one) for one in shown]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        table = [
            "  ".join([*(cell.ljust(w) for cell, w in zip(row[:3], widths, strict=True)), row[3]])
            for row in rows
        ]
        left = len(ordered) - len(shown)
        return [self.counts(), *table, *([f"and {left} more"] if left else [])]

    def counts(self) -> str:
        """Trials by state, and the time that has passed."""
        found = [f"{n} {state}" for state in ORDER if (n := self.schedule.count(state))]
        seconds = int(self.clock() - self.began)
        passed = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return f"{len(self.schedule.standings)} trials: {', '.join(found)}   {passed}"

    def _row(self, one: Standing) -> tuple[str, str, str, str]:
        name = one.trial.name
        progress, metric = "", ""
        if one.state == "finished":
            progress, metric = self._of_finished(one)
        elif one.state in ("failed", "skipped"):
            return one.state, "", "", f"{name}: {one.sentence}"
        elif one.trial.trains:
            progress, metric = self._of_running(one)
        return one.state, progress, metric, name

    def _of_finished(self, one: Standing) -> tuple[str, str]:
        """Read once: a result does not change."""
        name = one.trial.name
        if name not in self._finished:
            found = self.folder.found(name) or {"results": {}}
            steps = found["results"].get("steps")
            progress = f"{steps:,}" if isinstance(steps, int) else ""
            self._finished[name] = progress, summary(one.trial.command, found["results"])
        return self._finished[name]

    def _of_running(self, one: Standing) -> tuple[str, str]:
        """From the run's own metrics, on the path that all nodes share."""
        lines = last_lines(self.folder.run(one.trial.name) / METRICS)
        if not lines:
            return "", ""
        steps = self.steps.get(one.trial.name)
        of = "" if steps is None else f"/{steps:,}"
        for key in LIVE[one.trial.command]:
            for line in reversed(lines):
                if key in line:
                    return f"{lines[-1]['step']:,}{of}", f"{key} {line[key]:.4g}"
        return f"{lines[-1]['step']:,}{of}", ""

    def _tell(self) -> None:
        for name, one in self.schedule.standings.items():
            if one.state != self._last[name]:
                self._last[name] = one.state
                if one.state != "waiting":
                    say(self._line(one))
        if self.clock() - self.told >= PLAIN_SECONDS:
            self.told = self.clock()
            say(self.counts())
            for one in self.schedule.standings.values():
                if one.state == "running":
                    say(self._line(one))

    def _line(self, one: Standing) -> str:
        state, progress, metric, name = self._row(one)
        ended = "" if one.state == "running" else f"   ({self.counts()})"
        return "  ".join(word for word in (state, name, progress, metric) if word) + ended
