"""Figures of a judged model, as a person would want to see them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen is needed
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl_bilevel.evaluation.k_step import KStep
from mbrl_bilevel.evaluation.one_step import LEVELS, OneStep

BLUE, ORANGE, GREY = "#2a6fbb", "#e07b39", "#8a8a8a"


def _axes(width: float = 6.0, height: float = 4.0) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG and frees the figure."""
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def error_by_dimension(result: OneStep, names: Sequence[str]) -> Figure:
    """Bars of the one-step error, one per target dimension, named."""
    figure, axes = _axes(height=0.9 + 0.24 * len(names))
    axes.barh(range(len(names)), result.rmse_by_dimension, color=BLUE)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("one-step RMSE (standard deviations of the target)")
    axes.set_title(f"pooled RMSE {result.rmse:.3f}, R² {result.r2:.3f}", loc="left", fontsize=10)
    return figure


def calibration(result: OneStep) -> Figure:
    """Share of targets below each predicted quantile; the diagonal is perfect."""
    figure, axes = _axes(4.4, 4.2)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", label="perfect")
    axes.plot(LEVELS, result.coverage, color=BLUE, marker="o", ms=3.5, label="mixture of members")
    axes.set(
        xlabel="predicted quantile", ylabel="share of targets below it", xlim=(0, 1), ylim=(0, 1)
    )
    axes.set_title(f"expected calibration error {result.ece:.3f}", loc="left", fontsize=10)
    axes.legend(frameon=False)
    return figure


def error_growth(result: KStep) -> Figure:
    """Open-loop error over the horizon, beside the guess that nothing changes."""
    figure, axes = _axes()
    steps = range(1, len(result.rmse) + 1)
    axes.plot(steps, result.rmse.cpu(), color=BLUE, label="model, mean of members")
    axes.plot(steps, result.persistence.cpu(), color=GREY, ls="--", label="nothing changes")
    axes.set_yscale("log")
    axes.set(xlabel="steps ahead", ylabel="RMSE (standard deviations of the observation)")
    axes.set_title(f"open loop from {result.starts} held-out starts", loc="left", fontsize=10)
    axes.legend(frameon=False)
    return figure


COLOURS = (BLUE, ORANGE, "#4a9a5b", "#a05195")


def tour(found: dict[str, Any]) -> Figure:
    """The demo at a glance: for each environment error growth, calibration and returns."""
    figure, rows = plt.subplots(len(found), 3, figsize=(11, 3.2 * len(found)), layout="constrained")
    for (env, visited), axes in zip(found.items(), rows, strict=True):
        growth, quantiles, returns = axes
        quantiles.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
        acting = {f"{visited['behaviour']['policy']} policy": visited["behaviour"]}
        for (objective, figures), colour in zip(visited["models"].items(), COLOURS, strict=False):
            model, acting[f"MPC, {objective}"] = figures["model"], figures["mpc"]
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
