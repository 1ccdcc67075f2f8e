"""Metrics of groups of runs as tables: a row for each group, or one for each run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mbrl_bilevel.evaluation.learning_curves import Curve
from mbrl_bilevel.evaluation.returns import Estimate, Statistic, estimate
from mbrl_bilevel.scripts.report_parts import Cell, Table
from mbrl_bilevel.scripts.run_groups import Group
from mbrl_bilevel.scripts.run_reading import Run

Better = Literal["larger", "smaller"] | None
"""Which of two values of a metric is the better one; None where neither is."""


MOST_OPEN = 12  # rows of a table that a page shows unasked


@dataclass(frozen=True)
class Metric:
    """A number of a run, None where it has none."""

    label: str
    of: Callable[[Run], float | None]
    better: Better = None

    def values(self, group: Group) -> list[float]:
        """Of the finished runs that have it, in the order of their seeds."""
        found = (self.of(run) for run in group.finished)
        return [float(value) for value in found if value is not None]


def over_seeds(values: Sequence[float], seed: int, statistic: Statistic = "iqm") -> Estimate | None:
    """The statistic with its bootstrap interval; None without values."""
    if not values:
        return None
    return estimate([values], statistic, generator=np.random.default_rng(seed))


def group_table(
    name: str, title: str, groups: Sequence[Group], metrics: Sequence[Metric], seed: int
) -> Table | None:
    """Interquartile means over seeds of the metrics that some run has; None where none has any."""
    there = [one for one in metrics if any(one.values(group) for group in groups)]
    rows: list[list[Cell]] = []
    for group in groups:
        values = [one.values(group) for one in there]
        if any(values):
            seeds = max(map(len, values))
            rows.append([group.name, seeds, *(over_seeds(v, seed) for v in values)])
    if not rows:
        return None
    return Table(name, title, ["group", "seeds", *(one.label for one in there)], rows)


def group_list(groups: Sequence[Group]) -> Table:
    """Which groups there are, with the seeds of their runs."""
    rows: list[list[Cell]] = [
        [
            group.name,
            group.task,
            group.kind,
            ", ".join(str(run.seed) for run in group.finished),
            ", ".join(str(run.seed) for run in group.unfinished),
        ]
        for group in groups
    ]
    columns = ["group", "task", "kind", "seeds finished", "seeds not finished"]
    return Table("groups", "All groups", columns, rows)


def run_table(name: str, groups: Sequence[Group], metrics: Sequence[Metric]) -> Table:
    """Every run by itself: what the numbers of a section come from."""
    runs = [(group, run) for group in groups for run in group.runs]
    there = [one for one in metrics if any(one.of(run) is not None for _, run in runs)]
    columns = ["group", "seed", "state", "last step", *(one.label for one in there), "folder"]
    rows: list[list[Cell]] = [
        [
            group.name,
            str(run.seed),
            run.state,
            run.last_step,
            *(one.of(run) for one in there),
            str(run.folder),
        ]
        for group, run in runs
    ]
    return Table(name, "Every run", columns, rows, folded=len(rows) > MOST_OPEN)


def settings_table(name: str, groups: Sequence[Group]) -> Table | None:
    """A row for each setting in which groups differ; None where none do.

    A setting that only one agent or objective has tells it apart from others by its name alone.
    """
    names = sorted({key for group in groups for key in group.settings})
    rows: list[list[Cell]] = []
    for key in names:
        having = [group.settings[key] for group in groups if key in group.settings]
        if key in {k for group in groups for k in group.differing} or len(set(having)) > 1:
            rows.append([key, *(group.settings.get(key, "") for group in groups)])
    if not rows:
        return None
    columns = ["setting", *(group.name for group in groups)]
    title = "Settings in which groups differ"
    return Table(name, title, columns, rows, folded=len(rows) > MOST_OPEN)


def seeds_by_group(metric: Metric, groups: Sequence[Group]) -> Mapping[str, Sequence[float]]:
    """Values of each group that has some, as the figures take them."""
    found = {group.name: metric.values(group) for group in groups}
    return {name: values for name, values in found.items() if values}


def curves_by_group(
    groups: Sequence[Group], curve: Callable[[Run], Curve]
) -> dict[str, list[Curve]]:
    """Of finished runs; then of unfinished ones by themselves, as means end with the shortest."""
    parts = [(group.name, group.finished) for group in groups]
    parts += [(f"{group.name}, unfinished", group.unfinished) for group in groups]
    found = {name: [one for run in runs if (one := curve(run))] for name, runs in parts}
    return {name: curves for name, curves in found.items() if curves}
