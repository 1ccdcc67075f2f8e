"""Draws the figures of docs/results from the csv files beside them.

uv run python docs/draw_results.py
"""

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
Rows = list[dict[str, str]]
# csv file: (column that names a line, its prefix in the legend, title)
CURVES = {
    "sac-curve": ("implementation", "", "Soft actor-critic on HalfCheetah-v5"),
    "mbpo-hopper": ("seed", "seed ", "MBPO on Hopper-v5"),
}
TICKS = (0.005, 0.007, 0.01, 0.02, 0.05)


def curves(name: str) -> Figure:
    """Mean return by real steps; between the lowest and the highest seed where both are known."""
    by, prefix, title = CURVES[name]
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for label, points in _grouped(name, by).items():
        steps = [int(point["real_steps"]) for point in points]
        (line,) = axes.plot(
            steps, [float(point["mean_return"]) for point in points], label=f"{prefix}{label}"
        )
        if "lowest_seed" in points[0]:
            low, high = ([float(p[end]) for p in points] for end in ("lowest_seed", "highest_seed"))
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(title=title, xlabel="real steps", ylabel="mean return of an evaluation")
    axes.legend(frameon=False)
    return figure


def objectives(name: str) -> Figure:
    """Both metrics of each objective, with standard errors: lower left is better."""
    environments = _grouped(name, "environment")
    figure, panels = plt.subplots(1, len(environments), figsize=(8, 3.2), layout="constrained")
    for axes, (environment, rows) in zip(panels, environments.items(), strict=True):
        for row in rows:
            axes.errorbar(
                float(row["test_mse"]),
                float(row["test_nll_nats_per_dimension"]),
                xerr=float(row["test_mse_standard_error"]),
                yerr=float(row["test_nll_standard_error"]),
                fmt="o",
                label=row["objective"],
            )
        axes.set(title=environment, xlabel="test MSE", ylabel="test NLL, nats per dimension")
        axes.set_xscale("log")
        axes.set_xticks(TICKS, map(str, TICKS))
        axes.minorticks_off()
        errors = [float(row["test_mse"]) for row in rows]
        axes.set_xlim(0.8 * min(errors), 1.25 * max(errors))
    panels[0].legend(frameon=False)
    return figure


def _grouped(name: str, by: str) -> dict[str, Rows]:
    groups: dict[str, Rows] = defaultdict(list)
    with (RESULTS / f"{name}.csv").open() as rows:
        for row in csv.DictReader(rows):
            groups[row[by]].append(row)
    return groups


if __name__ == "__main__":
    figures = {name: curves(name) for name in CURVES}
    figures["dynamics-objectives"] = objectives("dynamics-objectives")
    for name, figure in figures.items():
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(RESULTS / f"{name}.png", dpi=120, metadata={"Software": None})
