"""Groups of trainings side by side, a dot or a thin line for each seed."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl_bilevel.evaluation.figures import BLUE, GREY, colours, log_ticks
from mbrl_bilevel.evaluation.one_step import LEVELS
from mbrl_bilevel.evaluation.returns import CONFIDENCE, Estimate, estimate

ByStep = Mapping[int, float]
WRAPPED = 34  # letters of a name in one line


def seeds_compared(
    metrics: Mapping[str, Mapping[str, Sequence[float]]], title: str, seed: int = 0
) -> Figure:
    """For each metric a panel, for each group a row: seeds, interquartile mean and interval.

    `metrics` maps the name of a metric to the values of the seeds of each group; `seed` is the
    bootstrap's.
    """
    groups = list(dict.fromkeys(name for values in metrics.values() for name in values))
    size = (3.2 + 3.2 * len(metrics), 1.4 + 0.42 * len(groups))
    figure, row = plt.subplots(
        1, len(metrics), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (metric, values) in zip(row[0], metrics.items(), strict=True):
        for place, (name, colour) in enumerate(zip(groups, colours(len(groups)), strict=True)):
            if values.get(name):
                _draw_seeds(axes, place, values[name], colour, seed)
        axes.set_xlabel(metric)
        _plain(axes, "x")
    row[0][0].set_yticks(range(len(groups)), [_wrapped(name) for name in groups])
    row[0][0].set_ylim(len(groups) - 0.4, -0.6)  # the first group on top
    meaning = f"dots: seeds; bar: interquartile mean, {CONFIDENCE:.0%} bootstrap interval"
    figure.suptitle(f"{title}\n{meaning}", x=0.01, ha="left", fontsize=10)
    return figure


def _draw_seeds(axes: Axes, place: int, values: Sequence[float], colour: str, seed: int) -> None:
    middle, interval = estimate([values], "iqm", generator=np.random.default_rng(seed))
    if interval is not None:
        axes.plot(interval, (place, place), color=colour, lw=7, alpha=0.35, solid_capstyle="butt")
    axes.plot((middle, middle), (place - 0.22, place + 0.22), color=colour, lw=2.5)
    spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1)
    axes.scatter(values, place + spread, color="black", s=10, alpha=0.7, zorder=3, lw=0)


def error_by_steps_ahead(
    groups: Mapping[str, Sequence[ByStep]], baselines: Mapping[str, ByStep]
) -> Figure:
    """Open-loop error: mean over seeds (thick), each seed (thin), baselines in grey."""
    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for (name, errors), dashes in zip(baselines.items(), ("--", ":"), strict=False):
        axes.plot(*_line([errors]), color=GREY, ls=dashes, label=name)
    for (name, seeds), colour in zip(groups.items(), colours(len(groups)), strict=True):
        for one in seeds:
            axes.plot(*_line([one]), color=colour, lw=0.7, alpha=0.6)
        axes.plot(*_line(seeds), color=colour, lw=2.2, marker="o", ms=4, label=_wrapped(name))
    axes.set(xscale="log", yscale="log", xlabel="steps ahead", ylabel="RMSE (standard deviations)")
    log_ticks(axes.xaxis)
    log_ticks(axes.yaxis)
    axes.set_title("open-loop error; thick: mean over seeds", loc="left", fontsize=11)
    _plain(axes, "y")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _line(seeds: Sequence[ByStep]) -> tuple[list[int], list[float]]:
    """The steps that all seeds have, and the mean there."""
    steps = sorted(set.intersection(*(set(one) for one in seeds)))
    return steps, [float(np.mean([one[k] for one in seeds])) for k in steps]


def calibration_by_group(groups: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Share of targets below each predicted quantile, minus the quantile: mean over seeds."""
    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    axes.axhline(0, color=GREY, ls="--", label="perfect")
    for (name, seeds), colour in zip(groups.items(), colours(len(groups)), strict=True):
        excess = np.array(seeds) - LEVELS.numpy()
        axes.plot(LEVELS, excess.T, color=colour, lw=0.7, alpha=0.6)
        axes.plot(LEVELS, excess.mean(0), color=colour, lw=2.2, label=_wrapped(name))
    axes.set(xlabel="predicted quantile", ylabel="share of targets below it, minus quantile")
    axes.set_title("calibration one step ahead; thick: mean over seeds", loc="left", fontsize=11)
    _plain(axes, "y")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def learned_precision(groups: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """The learned U of each dimension: a dot for each seed, a bar at their geometric mean."""
    names = list(dict.fromkeys(name for values in groups.values() for name in values))
    height = 1.3 + (0.16 + 0.12 * len(groups)) * len(names)
    figure, axes = plt.subplots(figsize=(7.5, height), layout="constrained")
    offsets = np.linspace(-0.25, 0.25, len(groups)) if len(groups) > 1 else np.zeros(1)
    for (group, values), colour, offset in zip(
        groups.items(), colours(len(groups)), offsets, strict=True
    ):
        for place, name in enumerate(names):
            seeds = values.get(name, ())
            if seeds:
                at = place + offset
                axes.scatter(seeds, [at] * len(seeds), color=colour, s=14, alpha=0.7, lw=0)
                middle = float(np.exp(np.log(seeds).mean()))
                axes.plot((middle, middle), (at - 0.1, at + 0.1), color=colour, lw=2)
        axes.plot([], [], color=colour, marker="o", ms=4, lw=2, label=_wrapped(group))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(xscale="log", xlabel="learned U, median over held-out inputs")
    _plain(axes, "x")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def improvement_probabilities(found: Mapping[str, Estimate]) -> Figure:
    """A row for each comparison: the probability of improvement and its bootstrap interval."""
    height = 1.0 + 0.42 * len(found)
    figure, axes = plt.subplots(figsize=(8.5, height), layout="constrained")
    axes.axvline(0.5, color=GREY, ls="--")
    for place, (value, interval) in enumerate(found.values()):
        if interval is not None:
            axes.plot(interval, (place, place), color=BLUE, lw=7, alpha=0.35, solid_capstyle="butt")
        axes.plot((value, value), (place - 0.22, place + 0.22), color=BLUE, lw=2.5)
    axes.set_yticks(range(len(found)), [_wrapped(name) for name in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set(xlim=(-0.02, 1.02), xlabel="probability of improvement")
    _plain(axes, "x")
    return figure


def _plain(axes: Axes, grid: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e6e6e6", lw=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _wrapped(name: str) -> str:
    """A name in lines that leave room for the plot."""
    lines = [""]
    for word in name.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= WRAPPED:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)
