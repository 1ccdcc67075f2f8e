"""Figures of one evaluated model, and the style of all figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen is needed
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from mbrl_bilevel.evaluation.coverage import INTERVALS
from mbrl_bilevel.evaluation.k_step import KStep
from mbrl_bilevel.evaluation.one_step import LEVELS, OneStep

BLUE, ORANGE, GREY = "#2a6fbb", "#e07b39", "#8a8a8a"


def _axes(width: float = 6.0, height: float = 4.0) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def log_ticks(axis: Axis) -> None:
    """A logarithmic axis whose ticks 1, 2, 5 are labelled, so that a decade or less can be read."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG and frees the figure."""
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def error_by_dimension(result: OneStep, names: Sequence[str]) -> Figure:
    """Bars of one-step error, explained variance and likelihood, one per target dimension."""
    panels = (
        (result.rmse_by_dimension, "RMSE (standard deviations)", f"pooled {result.rmse:.3f}"),
        (result.r2_by_dimension, "R²", f"pooled {result.r2:.3f}"),
        (result.nll_by_dimension, "NLL (nats)", f"per dimension {result.nll:.3f}"),
    )
    height = 1.3 + 0.26 * len(names)
    figure, row = plt.subplots(1, 3, figsize=(10, height), sharey=True, layout="constrained")
    for axes, (values, label, pooled) in zip(row, panels, strict=True):
        axes.barh(range(len(names)), values, color=BLUE, height=0.7)
        axes.axvline(0, color="black", lw=0.6)
        axes.set_xlabel(label)
        axes.set_title(pooled, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    row[1].set_xlim(max(min(0.0, *result.r2_by_dimension) * 1.05, -1.0), 1)
    row[0].set_yticks(range(len(names)), names)
    row[0].invert_yaxis()
    figure.suptitle(f"one step ahead, mixture of members{_without(result)}", fontsize=11)
    return figure


def _without(result: OneStep) -> str:
    return f" ({result.non_finite} rows not finite, left out)" if result.non_finite else ""


def calibration(result: OneStep) -> Figure:
    """Share of targets below each predicted quantile; the diagonal is perfect."""
    figure, axes = _axes(5.2, 5.0)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", label="perfect")
    for number, coverage in enumerate(result.member_coverage):
        label = None if number else f"single members ({result.member_ece:.3f} on average)"
        axes.plot(LEVELS, coverage, color=ORANGE, lw=0.9, alpha=0.7, label=label)
    label = f"mixture of members ({result.ece:.3f})"
    axes.plot(LEVELS, result.coverage, color=BLUE, marker="o", ms=3.5, label=label)
    axes.set(
        xlabel="predicted quantile", ylabel="share of targets below it", xlim=(0, 1), ylim=(0, 1)
    )
    axes.set_aspect("equal")
    axes.set_title(
        "calibration one step ahead (expected calibration error)\n"
        f"predicted deviation {result.sharpness:.3f}, actual error {result.rmse:.3f}"
        f"{_without(result)}",
        loc="left",
        fontsize=10,
    )
    axes.legend(frameon=False, loc="upper left")
    return figure


def error_growth(result: KStep, coverage: Float[Tensor, "l c"]) -> Figure:
    """Open-loop error and coverage over the horizon, beside what a model must beat."""
    figure, (error, inside) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    steps = range(1, len(result.rmse) + 1)
    error.plot(steps, result.rmse.cpu(), color=BLUE, lw=2, label="model, mean of members")
    if result.linear is not None:
        error.plot(steps, result.linear.cpu(), color=ORANGE, ls="-.", label="linear model")
    error.plot(steps, result.persistence.cpu(), color=GREY, ls="--", label="nothing changes")
    error.set_yscale("log")
    log_ticks(error.yaxis)
    error.set(ylabel="RMSE (standard deviations of the observation)")
    starts = [int(result.starts[i]) for i in (0, -1)]
    lost = f", {result.non_finite} not finite" if result.non_finite else ""
    error.set_title(
        f"open loop from {starts[0]} held-out starts, {starts[1]} to the end{lost}",
        loc="left",
        fontsize=10,
    )
    for level, share, colour in zip(INTERVALS, coverage.cpu(), (ORANGE, BLUE), strict=True):
        name = f"{100 * level:.0f} % interval"
        inside.plot(range(1, len(share) + 1), share, color=colour, lw=2, label=name)
        inside.axhline(level, color=colour, lw=1, ls="--")
    inside.set(ylim=(0, 1.02), ylabel="share of truths inside")
    inside.set_title("sampled futures (dashed: as it should be)", loc="left", fontsize=10)
    for axes in (error, inside):
        axes.set_xlabel("steps ahead")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, loc="lower right")
    return figure


COLOURS = (BLUE, ORANGE, "#4a9a5b", "#a05195")


def colours(count: int) -> list[str]:
    """So many that can be told apart: those of all figures where they suffice."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    if count <= 10:
        return [to_hex(colour) for colour in plt.get_cmap("tab10")(range(count))]
    return [to_hex(colour) for colour in plt.get_cmap("turbo")(np.linspace(0.08, 0.92, count))]


def tour(found: dict[str, Any]) -> Figure:
    """The demo at a glance: for each environment error growth, calibration and returns."""
    figure, rows = plt.subplots(len(found), 3, figsize=(11, 3.2 * len(found)), layout="constrained")
    for (env, visited), axes in zip(found.items(), rows, strict=True):
        growth, quantiles, returns = axes
        quantiles.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
        acting = {f"{visited['behaviour']['policy']} policy": visited["behaviour"]}
        for (objective, results), colour in zip(visited["models"].items(), COLOURS, strict=False):
            model, acting[f"MPC, {objective}"] = results["model"], results["mpc"]
            steps = [int(k) for k in model["k_step"]]
            label = {"label": objective, "color": colour, "marker": "o", "ms": 3.5}
            growth.loglog(steps, list(model["k_step"].values()), **label)
            quantiles.plot(LEVELS, model["coverage"], **label)
        for place, (colour, result) in enumerate(
            zip((GREY, *COLOURS), acting.values(), strict=False)
        ):
            returns.bar(place, result["mean_return"], color=colour, width=0.6)
            jitter = [place] * len(result["returns"])
            returns.scatter(jitter, result["returns"], color="black", s=9, zorder=3)
        steps_acted = max(max(result["lengths"]) for result in acting.values())
        growth.set(xlabel="steps ahead", ylabel="open-loop RMSE (std)", title=env)
        quantiles.set(xlabel="predicted quantile", ylabel="share of targets below it")
        quantiles.set_title("calibration")
        returns.set_xticks(range(len(acting)), acting)
        returns.set(ylabel="return", title=f"in the simulation, {steps_acted} steps")
        growth.legend(frameon=False)
        for one in axes:
            one.spines[["top", "right"]].set_visible(False)
    return figure
