"""What runs with an outer level have learned to weigh: U of each dimension."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from mbrl_bilevel.evaluation.inline_svg import inline_svg
from mbrl_bilevel.evaluation.seed_figures import learned_precision
from mbrl_bilevel.scripts.report_parts import Cell, Picture, Table
from mbrl_bilevel.scripts.run_groups import Group
from mbrl_bilevel.scripts.run_reading import Run, number
from mbrl_bilevel.scripts.run_settings import printable
from mbrl_bilevel.scripts.seed_tables import over_seeds

DRAWN = Path("figures/learned_U.png")


def learned_reward(name: str, groups: Sequence[Group], seed: int) -> list[Table | Picture]:
    """A table and a figure of the medians in summary.json; else figures that the runs drew."""
    learned = {group.name: _by_dimension(group) for group in groups}
    learned = {key: values for key, values in learned.items() if values}
    parts: list[Table | Picture] = []
    if learned:
        parts = [_table(name, learned, seed), _picture(name, learned)]
    for group in groups:
        if group.name not in learned:
            drawn = [run for run in group.finished if (run.folder / DRAWN).is_file()]
            parts += [_as_drawn(group, run) for run in drawn[:1]]
    return parts


def _by_dimension(group: Group) -> dict[str, list[float]]:
    """Median U of each dimension, for the seeds that have it."""
    found: dict[str, list[float]] = {}
    for run in group.finished:
        for dimension, value in _learned(run).items():
            found.setdefault(dimension, []).append(value)
    return found


def _learned(run: Run) -> dict[str, float]:
    U = run.summary.get("learned_U")
    if not isinstance(U, Mapping):
        return {}
    items = ((printable(key), number(value)) for key, value in U.items())
    return {key: value for key, value in items if value is not None and value > 0}


def _table(name: str, learned: Mapping[str, Mapping[str, Sequence[float]]], seed: int) -> Table:
    dimensions = list(dict.fromkeys(d for values in learned.values() for d in values))
    rows: list[list[Cell]] = [
        [d, *(over_seeds(values.get(d, ()), seed) for values in learned.values())]
        for d in dimensions
    ]
    note = (
        "U says how much a squared error in a dimension costs, in squared standard deviations of "
        "the training part; the median over held-out inputs, where U depends on the input."
    )
    title = "Learned U of each dimension, IQM over seeds"
    return Table(f"{name}-learned-u", title, ["dimension", *learned], rows, note)


def _picture(name: str, learned: Mapping[str, Mapping[str, Sequence[float]]]) -> Picture:
    return Picture(
        f"Learned U of each dimension for {', '.join(learned)}, as in the table above.",
        "Learned U: a dot for each seed, bars at geometric means.",
        inline_svg(learned_precision(learned), f"{name}-learned-u"),
    )


def _as_drawn(group: Group, run: Run) -> Picture:
    png = base64.b64encode((run.folder / DRAWN).read_bytes()).decode()
    return Picture(
        f"Heat map of log10 of the learned U by dimension and input, as {run.folder} drew it.",
        f"Learned U of {group.name}, seed {run.seed}, as the run drew it in {run.folder / DRAWN}.",
        png=png,
    )
