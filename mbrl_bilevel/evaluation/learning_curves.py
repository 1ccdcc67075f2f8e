"""Returns over training, of several agents and seeds, as one figure."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from mbrl_bilevel.evaluation.figures import COLOURS

Curve = Mapping[int, float]
"""Return by step."""


def learning_curves(agents: Mapping[str, Sequence[Curve]], title: str) -> Figure:
    """Mean over seeds of each agent (thick), its lowest and highest seed (shade), each seed (thin).

    Seeds of an agent are drawn at the steps that all of them have.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for colour, (name, curves) in zip(cycle(COLOURS), agents.items(), strict=False):
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        values = np.array([[curve[step] for step in steps] for curve in curves])
        axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)
        axes.plot(steps, values.T, color=colour, lw=0.7, alpha=0.6)
        count = f"{len(curves)} seed{'s' if len(curves) > 1 else ''}"
        axes.plot(steps, values.mean(0), color=colour, lw=2.2, label=f"{name} ({count})")
    axes.set(xlabel="step", ylabel="return")
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
    axes.margins(x=0.02)
    return figure
