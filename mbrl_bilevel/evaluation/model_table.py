"""Metrics of models side by side, as a table for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mbrl_bilevel.evaluation.mismatch import Correlation


@dataclass(frozen=True)
class Row:
    """A metric of every model; the best is the smallest, the largest or the nearest to a number."""

    label: str
    values: Sequence[float | None]
    best: Literal["smallest", "largest"] | float | None = None

    def distances(self) -> list[float | None] | None:
        """How far every model is from the best that there could be."""
        if self.best is None:
            return None
        if self.best == "smallest":
            return list(self.values)
        if self.best == "largest":
            return [None if value is None else -value for value in self.values]
        goal = float(self.best)
        return [None if value is None else abs(value - goal) for value in self.values]


def rows(evaluations: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows of the table from the metrics of several models."""

    def row(label: str, *keys: str, best: Literal["smallest", "largest"] | float | None) -> Row:
        values = []
        for found in evaluations:
            value: Any = found
            for key in keys:
                value = None if value is None else value.get(key)
            values.append(value)
        return Row(label, values, best)

    found = [
        row("RMSE, one step", "rmse", best="smallest"),
        row("NLL per dimension", "nll", best="smallest"),
        row("R2", "r2", best="largest"),
        row("calibration error", "ece", best="smallest"),
        row("  of single members", "member_ece", best="smallest"),
        row("predicted deviation", "sharpness", best=None),
    ]
    horizons = sorted({k for found in evaluations for k in found["k_step"]}, key=int)
    for k in horizons:
        after = f"after {k} step{'' if k == '1' else 's'}"
        found += [
            row(f"RMSE {after}", "k_step", k, best="smallest"),
            row("  of a linear model", "k_step_linear", k, best=None),
            row("  of persistence", "k_step_persistence", k, best=None),
            row("  coverage of 50 %", "k_step_coverage", "50", k, best=0.5),
            row("  coverage of 90 %", "k_step_coverage", "90", k, best=0.9),
        ]
    return [row for row in found if any(value is not None for value in row.values)]


def table(names: Sequence[str], rows: Sequence[Row], mark: bool) -> str:
    """Columns are models, rows metrics; with `mark` a star stands behind the best of each row."""
    width = max(9, *(len(name) for name in names)) + 3
    left = max(len(row.label) for row in rows)
    lines = [" " * left + "".join(f"{name:>{width}} " for name in names)]
    for row in rows:
        distances = row.distances() if mark else None
        known = [d for d in distances or [] if d is not None]
        cells = []
        for i, value in enumerate(row.values):
            star = "*" if known and distances and distances[i] == min(known) else " "
            cells.append(f"{'-' if value is None else f'{value:.4f}':>{width}}{star}")
        lines.append(f"{row.label:<{left}}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def correlation_table(found: Sequence[Correlation]) -> str:
    """Objective mismatch: every metric's correlation with the return, and its 95 % interval."""

    def cell(value: float, interval: tuple[float, float] | None) -> str:
        if value != value:
            return "undefined"
        around = "" if interval is None else f"  [{interval[0]:+.2f}, {interval[1]:+.2f}]"
        return f"{value:+.2f}{around}"

    lines = [f"{'against the return':<20}{'rank correlation':<26}linear correlation"]
    lines += [
        f"{one.metric:<20}{cell(one.spearman, one.spearman_interval):<26}"
        f"{cell(one.pearson, one.pearson_interval)}"
        for one in found
    ]
    return "\n".join(lines)
