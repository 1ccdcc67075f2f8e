"""The predicted fan against what happened."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from mbrl_bilevel.evaluation.fan import Fan
from mbrl_bilevel.evaluation.figures import BLUE, ORANGE


def predicted_fan(found: Fan) -> Figure:
    """Bands of sampled futures and the truth, a panel for each dimension."""
    count = len(found.names)
    columns = min(count, 2 if count <= 4 else 3)
    rows = -(-count // columns)
    size = (1.0 + 3.4 * columns, 1.1 + 2.3 * rows)
    figure, grid = plt.subplots(
        rows, columns, figsize=size, sharex=True, squeeze=False, layout="constrained"
    )
    truth, bands = found.truth.cpu().numpy(), found.quantiles.cpu().numpy()
    steps = range(1, len(truth) + 1)
    marker = {"marker": "o", "ms": 3} if len(steps) < 5 else {}
    for i, axes in enumerate(grid.flat):
        if i >= count:
            axes.set_visible(False)
            continue
        low, lower, median, upper, high = bands[..., i]
        axes.fill_between(steps, low, high, color=BLUE, alpha=0.2, lw=0, label="90 % of particles")
        axes.fill_between(
            steps, lower, upper, color=BLUE, alpha=0.35, lw=0, label="50 % of particles"
        )
        axes.plot(steps, median, color=BLUE, lw=1, label="median", **marker)
        axes.plot(steps, truth[:, i], color=ORANGE, lw=1.3, label="truth", **marker)
        inside = 100 * ((truth[:, i] >= low) & (truth[:, i] <= high)).mean()
        axes.set_title(f"{found.names[i]}: {inside:.0f} % in the 90 % band", fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        if i + columns >= count:
            axes.set_xlabel("steps ahead")
            axes.tick_params(labelbottom=True)
    lost = f"; {found.lost:.0%} of the particles are not finite" if found.lost else ""
    figure.suptitle(
        f"sampled futures of a held-out window of median difficulty{lost}\n"
        "environment's units, hardest dimension first",
        fontsize=10,
    )
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
