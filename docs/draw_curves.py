"""Draws the learning curves of docs/results from the csv files beside them.

uv run python docs/draw_curves.py
"""

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
# csv file: (column that names a line, its prefix in the legend, title)
CURVES = {
    "sac-curve": ("implementation", "", "Soft actor-critic on HalfCheetah-v5"),
    "mbpo-hopper": ("seed", "seed ", "MBPO on Hopper-v5"),
}


def draw(name: str) -> None:
    """Mean return by real steps; between the lowest and the highest seed where both are known."""
    by, prefix, title = CURVES[name]
    lines: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (RESULTS / f"{name}.csv").open() as rows:
        for row in csv.DictReader(rows):
            lines[row[by]].append(row)
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for label, points in lines.items():
        steps = [int(point["real_steps"]) for point in points]
        (line,) = axes.plot(
            steps, [float(point["mean_return"]) for point in points], label=f"{prefix}{label}"
        )
        if "lowest_seed" in points[0]:
            low, high = ([float(p[end]) for p in points] for end in ("lowest_seed", "highest_seed"))
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(title=title, xlabel="real steps", ylabel="mean return of an evaluation")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / f"{name}.png", dpi=120, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    for curve in CURVES:
        draw(curve)
