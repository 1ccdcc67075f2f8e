"""Returns over training, of several agents and seeds, as one figure."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from mbrl_bilevel.evaluation.figures import GREY, colours

Curve = Mapping[int, float]
"""Return by step."""
DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (8, 3)), (0, (1, 4)))
POINTS = 101  # of a published curve
INSIDE = 6  # names that leave room for the curves


def learning_curves(
    agents: Mapping[str, Sequence[Curve]],
    title: str,
    published: Mapping[str, Sequence[Curve]] = {},
    ylabel: str = "return",
) -> Figure:
    """Mean over seeds of each agent (thick), its lowest and highest seed (shade), each seed (thin).

    Seeds of an agent are drawn as far as all of them go, at the steps that any of them has. Behind
    them, in grey, the means of `published` curves as far as the agents' go.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    last = max(
        (step for curves in agents.values() for curve in curves for step in curve), default=0
    )
    for dashes, (name, curves) in zip(cycle(DASHES), published.items(), strict=False):
        places = np.linspace(0, last, POINTS).round().astype(int).tolist()
        points = [(x, y) for x in places if (y := mean_at(curves, x)) is not None]
        label = f"{name}, published ({_seeds(curves)})"
        axes.plot(*zip(*points, strict=True), color=GREY, lw=1.3, ls=dashes, label=label, zorder=1)
    for colour, (name, curves) in zip(colours(len(agents)), agents.items(), strict=True):
        steps, values = _together(curves)
        axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)
        axes.plot(steps, values.T, color=colour, lw=0.7, alpha=0.6)
        label = f"{name} ({_seeds(curves)})"
        axes.plot(steps, values.mean(0), color=colour, lw=2.2, label=label)
    axes.set(xlabel="step", ylabel=ylabel)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    if len(agents) + len(published) > INSIDE:  # they would hide the curves
        figure.set_figwidth(10.5)
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    elif agents or published:  # matplotlib warns of a legend of nothing
        axes.legend(frameon=False, fontsize=9)
    axes.margins(x=0.02)
    return figure


def _together(curves: Sequence[Curve]) -> tuple[list[int], np.ndarray]:
    """Steps, and the returns of every seed there, interpolated.

    Seeds whose evaluations are their own episodes share hardly a step.
    """
    first, last = max(map(min, curves)), min(map(max, curves))
    steps = sorted(step for step in set().union(*curves) if first <= step <= last)
    ordered = [sorted(curve) for curve in curves]
    values = [
        np.interp(steps, at, [curve[step] for step in at])
        for at, curve in zip(ordered, curves, strict=True)
    ]
    return steps, np.array(values)


def mean_at(curves: Sequence[Curve], step: int) -> float | None:
    """Mean over seeds of the return at a step, interpolated; None beyond the end of a curve."""
    values = []
    for curve in curves:
        steps = sorted(curve)
        if not steps or not steps[0] <= step <= steps[-1]:
            return None
        values.append(np.interp(step, steps, [curve[s] for s in steps]))
    return float(np.mean(values)) if values else None


def _seeds(curves: Sequence[Curve]) -> str:
    return f"{len(curves)} seed{'s' if len(curves) > 1 else ''}"
