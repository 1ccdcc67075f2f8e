"""Figures of several models side by side, and of their metrics against their returns."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mbrl_bilevel.evaluation.coverage import INTERVALS
from mbrl_bilevel.evaluation.figures import GREY, log_ticks
from mbrl_bilevel.evaluation.mismatch import Acted, Correlation
from mbrl_bilevel.evaluation.model_evaluation import ModelEvaluation
from mbrl_bilevel.evaluation.one_step import LEVELS

MARKERS = "osD^vP*X<>"


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A colour and a marker for every model, the same in every panel."""
    colours = plt.get_cmap("tab10" if len(names) <= 10 else "turbo")
    shades = range(len(names)) if len(names) <= 10 else np.linspace(0.05, 0.95, len(names))
    return {
        name: {"color": colours(shade), "marker": MARKERS[i % len(MARKERS)], "label": name}
        for i, (name, shade) in enumerate(zip(names, shades, strict=True))
    }


def comparison(evaluations: Mapping[str, ModelEvaluation], same_rows: bool) -> Figure:
    """Error growth, coverage over steps, calibration and error by dimension of all models.

    Baselines are drawn where all models are evaluated on the same rows, the last panel where they
    predict the same things.
    """
    names = next(iter(evaluations.values())).target_names
    comparable = all(one.target_names == names for one in evaluations.values())
    tall = max(8.6, 5.0 + 0.24 * len(names)) if comparable else 8.6
    figure, grid = plt.subplots(2, 2, figsize=(11.5, tall), layout="constrained")
    styles = _styles(list(evaluations))
    _error_growth(grid[0, 0], evaluations, styles, same_rows)
    _coverage(grid[0, 1], evaluations, styles)
    _calibration(grid[1, 0], evaluations, styles)
    if comparable:
        _by_dimension(grid[1, 1], evaluations, styles, names)
    else:
        grid[1, 1].set_visible(False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    handles, labels = grid[1, 0].get_legend_handles_labels()
    columns = max(1, min(4, 110 // max(len(label) + 6 for label in labels)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _error_growth(
    axes: Axes,
    evaluations: Mapping[str, ModelEvaluation],
    styles: Mapping[str, dict[str, Any]],
    same_rows: bool,
) -> None:
    for name, one in evaluations.items():
        rmse = one.k_step.rmse.cpu()
        every = max(1, len(rmse) // 8)
        axes.plot(range(1, len(rmse) + 1), rmse, markevery=every, ms=4, **styles[name])
    if same_rows:
        first = next(iter(evaluations.values())).k_step
        for values, label in ((first.persistence, "nothing changes"), (first.linear, "linear")):
            if values is None:
                continue
            style = "--" if label == "nothing changes" else ":"
            steps = range(1, len(values) + 1)
            axes.plot(steps, values.cpu(), color=GREY, ls=style, label=label)
        handles, labels = axes.get_legend_handles_labels()
        baselines = slice(len(evaluations), None)
        axes.legend(handles[baselines], labels[baselines], frameon=False, loc="lower right")
    axes.set_yscale("log")
    log_ticks(axes.yaxis)
    axes.set(xlabel="steps ahead", ylabel="RMSE (standard deviations)")
    axes.set_title("open-loop error", loc="left", fontsize=10)


def _coverage(
    axes: Axes, evaluations: Mapping[str, ModelEvaluation], styles: Mapping[str, dict[str, Any]]
) -> None:
    widest = max(INTERVALS)
    for name, one in evaluations.items():
        share = one.coverage[INTERVALS.index(widest)].cpu()
        every = max(1, len(share) // 8)
        axes.plot(range(1, len(share) + 1), share, markevery=every, ms=4, **styles[name])
    axes.axhline(widest, color=GREY, ls="--")
    least = min(0.7, axes.get_ylim()[0])
    axes.set(ylim=(least, 1.01), xlabel="steps ahead", ylabel="share of truths inside")
    axes.set_title(
        f"{100 * widest:.0f} % interval of sampled futures (dashed: as it should be)",
        loc="left",
        fontsize=10,
    )


def _calibration(
    axes: Axes, evaluations: Mapping[str, ModelEvaluation], styles: Mapping[str, dict[str, Any]]
) -> None:
    """As share below minus quantile, where models that are nearly calibrated can be told apart."""
    axes.axhline(0, color=GREY, ls="--")
    for name, one in evaluations.items():
        excess = np.array(one.one_step.coverage) - LEVELS.numpy()
        style = styles[name] | {"label": f"{name} (calibration error {one.one_step.ece:.3f})"}
        axes.plot(LEVELS, excess, ms=4, **style)
    axes.set(xlabel="predicted quantile", ylabel="share of targets below it, minus quantile")
    axes.set_xlim(0, 1)
    axes.set_title(
        "calibration one step ahead, mixtures (dashed: perfect)", loc="left", fontsize=10
    )


def _by_dimension(
    axes: Axes,
    evaluations: Mapping[str, ModelEvaluation],
    styles: Mapping[str, dict[str, Any]],
    names: Sequence[str],
) -> None:
    """Dots rather than bars: the axis is logarithmic, and bars of many models hide each other."""
    rows = np.arange(len(names))
    values = np.array([one.one_step.rmse_by_dimension for one in evaluations.values()])
    axes.hlines(rows, values.min(0), values.max(0), color=GREY, lw=1, alpha=0.6)
    for name, row in zip(evaluations, values, strict=True):
        axes.plot(row, rows, ls="none", ms=5, **styles[name])
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    log_ticks(axes.xaxis)
    axes.set_xlabel("one-step RMSE (standard deviations)")
    axes.set_title("error by dimension, one step ahead", loc="left", fontsize=10)


def mismatch_scatter(
    names: Sequence[str], acted: Sequence[Acted], found: Sequence[Correlation]
) -> Figure:
    """Each metric of the models against their return, with standard errors over episodes."""
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    size = (0.6 + 3.7 * columns, 1.0 + 3.3 * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    styles = _styles(names)
    means = [float(np.mean(one.returns)) for one in acted]
    errors = [_standard_error(one.returns) for one in acted]
    for axes, correlation in zip(grid.flat, found, strict=False):
        for name, one, mean, error in zip(names, acted, means, errors, strict=True):
            value = one.metrics[correlation.metric]
            axes.errorbar(value, mean, error, ls="none", ms=6, capsize=2, **styles[name])
        axes.set_xlabel(_axis_label(correlation.metric))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_title(f"rank correlation {_with_interval(correlation)}", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(found) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel("mean return under MPC")
    figure.suptitle(
        "do metrics predict the return of planning? (-1: perfectly; in brackets 95 % intervals)",
        fontsize=11,
    )
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return figure


def _axis_label(metric: str) -> str:
    known = {"rmse": "RMSE, one step", "nll": "NLL per dimension", "ece": "calibration error"}
    return known.get(metric, f"RMSE after {metric.removeprefix('k_step ')} steps")


def _standard_error(returns: Sequence[float]) -> float:
    if len(returns) < 2:
        return 0.0
    return float(np.std(returns, ddof=1) / np.sqrt(len(returns)))


def _with_interval(correlation: Correlation) -> str:
    if correlation.spearman_interval is None:
        return f"{correlation.spearman:.2f}"
    low, high = correlation.spearman_interval
    return f"{correlation.spearman:.2f} [{low:.2f}, {high:.2f}]"
