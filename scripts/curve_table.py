"""Evaluations of trainings as a csv file, a figure and a table, beside published curves."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_bilevel.evaluation.figures import save
from mbrl_bilevel.evaluation.learning_curves import Curve, learning_curves, mean_at
from mbrl_bilevel.scripts.csv_table import write_csv
from mbrl_bilevel.scripts.published_curves import Published

COLUMNS = "env", "agent", "seed", "step", "return", "seconds"
TABLE = 10_000, 25_000, 50_000, 75_000, 100_000  # steps at which published results are told
Rows = Sequence[Mapping[str, Any]]
"""One for each evaluation, of the keys in COLUMNS; seconds of training by the clock."""


def write_rows(rows: Rows, path: Path) -> None:
    """A csv file of all rows, by rename."""
    write_csv(rows, path, COLUMNS)


def draw(env: str, rows: Rows, published: Published, out: Path) -> Path:
    """OUT/ENV.png: the curves of an environment, published ones behind them."""
    title = f"{env}, mean return of the evaluations"
    return save(learning_curves(_curves(env, rows), title, published), out / f"{env}.png")


def _curves(env: str, rows: Rows) -> dict[str, list[Curve]]:
    """Return by step, for every seed of every agent."""
    found: dict[str, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["env"] == env:
            found[row["agent"]][row["seed"]][row["step"]] = row["return"]
    return {agent: list(seeds.values()) for agent, seeds in found.items()}


def table(env: str, rows: Rows, published: Published) -> str:
    """Mean over seeds, lowest and highest, at the steps of TABLE and the last."""
    agents = _curves(env, rows)
    if not agents:
        return f"{env}: no evaluation"
    last = max(step for curves in agents.values() for curve in curves for step in curve)
    steps = [step for step in TABLE if step < last] + [last]
    lines = [f"{env:<24}" + "".join(f"{step:>24,}" for step in steps) + f"{'hours':>8}"]
    for agent, curves in agents.items():
        hours = _seconds(env, agent, rows) / 3600
        cells = "".join(f"{_spread(curves, step):>24}" for step in steps)
        lines.append(f"{agent:<24}{cells}{hours:>8.2f}")
    for method, found in published.items():
        means = (mean_at(found, step) for step in steps)
        cells = "".join(f"{'' if mean is None else f'{mean:.0f}':>24}" for mean in means)
        lines.append(f"{method + ', published':<24}{cells}")
    return "\n".join(lines)


def _seconds(env: str, agent: str, rows: Rows) -> float:
    """By the clock, of one training: the mean over seeds."""
    longest: dict[int, int] = {}
    for row in rows:
        if (row["env"], row["agent"]) == (env, agent):
            longest[row["seed"]] = max(row["seconds"], longest.get(row["seed"], 0))
    return float(np.mean(list(longest.values())))


def _spread(curves: Sequence[Curve], step: int) -> str:
    values = [value for curve in curves if (value := mean_at([curve], step)) is not None]
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.0f}"
    return f"{np.mean(values):.0f} ({min(values):.0f} to {max(values):.0f})"
