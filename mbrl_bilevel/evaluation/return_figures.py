"""Agents side by side: their returns, and how they come about step by step."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from mbrl_bilevel.evaluation.figures import colours
from mbrl_bilevel.evaluation.returns import CONFIDENCE, estimate

THIN_LINES = 10  # episodes of an agent drawn one by one; more would be a smear

Rewards = Sequence[Float[ndarray, "_"]]


def mean_return_so_far(episodes: Rewards, steps: int | None = None) -> Float[ndarray, "t"]:
    """Mean over episodes of the sum of rewards up to each of `steps`, by default of the longest.

    An episode that has ended keeps its return, so that the last value is the mean return.
    """
    steps = steps or max(map(len, episodes))
    padded = [np.pad(rewards, (0, steps - len(rewards))) for rewards in episodes]
    return np.mean(padded, 0).cumsum()


def agents_compared(agents: Mapping[str, Rewards], title: str, seed: int = 0) -> Figure:
    """Returns of each agent's episodes with mean and bootstrap interval, and their growth.

    `agents` maps names to the rewards [t] of each episode; `seed` is the bootstrap's.
    """
    height = max(3.4, 1.3 + 0.42 * len(agents))
    figure, (returns, growth) = plt.subplots(
        1, 2, figsize=(10.5, height), layout="constrained", width_ratios=(1.1, 1)
    )
    longest = max(len(rewards) for episodes in agents.values() for rewards in episodes)
    widths = np.linspace(1.5 + min(len(agents) - 1, 4), 1.5, len(agents))  # equal curves all show
    for place, (colour, width, episodes) in enumerate(
        zip(colours(len(agents)), widths, agents.values(), strict=True)
    ):
        _draw_returns(returns, place, [float(rewards.sum()) for rewards in episodes], colour, seed)
        _draw_growth(growth, episodes, longest, colour, float(width))
    returns.set_yticks(range(len(agents)), agents)
    returns.set_ylim(len(agents) - 0.4, -0.6)  # the first agent on top
    returns.set_xlabel("return")
    returns.set_title(
        f"dots: episodes; bar: mean, {CONFIDENCE:.0%} bootstrap interval", loc="left", fontsize=9
    )
    growth.set(xlabel="step", ylabel="sum of rewards so far")
    growth.set_title("thin: episodes (dot: its end); thick: mean", loc="left", fontsize=9)
    growth.margins(x=0.02)
    for axes in (returns, growth):
        axes.spines[["top", "right"]].set_visible(False)
    returns.grid(axis="x", color="#e6e6e6", lw=0.8)
    returns.set_axisbelow(True)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _draw_returns(axes: Axes, place: int, values: Sequence[float], colour: str, seed: int) -> None:
    mean, interval = estimate([values], generator=np.random.default_rng(seed))
    if interval is not None:
        axes.plot(interval, (place, place), color=colour, lw=7, alpha=0.35, solid_capstyle="butt")
    axes.plot((mean, mean), (place - 0.2, place + 0.2), color=colour, lw=2.5)
    # Dots stand above and below each other in the order of episodes, so that equal ones show.
    spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1)
    axes.scatter(values, place + spread, color="black", s=10, alpha=0.7, zorder=3, lw=0)


def _draw_growth(axes: Axes, episodes: Rewards, steps: int, colour: str, width: float) -> None:
    for rewards in episodes[:THIN_LINES]:
        path = np.concatenate([[0.0], rewards.cumsum()])
        axes.plot(path, color=colour, lw=0.7, alpha=0.45)
        axes.plot(len(rewards), path[-1], color=colour, marker="o", ms=2.5)
    mean = np.concatenate([[0.0], mean_return_so_far(episodes, steps)])
    axes.plot(mean, color=colour, lw=width)
