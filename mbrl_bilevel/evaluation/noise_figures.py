"""What a model believes of its noise: the learned U, and predicted against actual deviations."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from mbrl_bilevel.models.gaussian import GaussianEnsemble

BINS = 10


def precision_map(U: Float[Tensor, "b n"], names: Sequence[str]) -> Figure:
    """Heat map of log10 U_ii(x): a row per dimension, columns from its least to its largest tenth.

    A column is the median over a tenth of the inputs, ordered by that dimension's own U, so that a
    row of one colour is a reward that does not depend on the input.
    """
    ordered = U.detach().cpu().log10().sort(0).values
    tenths = torch.stack([part.median(0).values for part in ordered.tensor_split(BINS)], 1)
    figure, axes = plt.subplots(figsize=(6.5, 1.2 + 0.24 * len(names)), layout="constrained")
    image = axes.imshow(tenths.numpy(), aspect="auto", cmap="viridis")
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(BINS), [f"{100 * i // BINS}" for i in range(1, BINS + 1)])
    axes.set_xlabel("percentile of the inputs, by each row's own U")
    axes.set_title("learned U: how much an error costs", loc="left", fontsize=10)
    figure.colorbar(image, ax=axes, label="log10 U")
    return figure


@torch.no_grad()
def noise_against_truth(
    network: GaussianEnsemble,
    x: Float[Tensor, "b d"],
    y: Float[Tensor, "b n"],
    names: Sequence[str],
) -> Figure:
    """Predicted deviation against the root mean squared residual, by tenths of each dimension."""
    gaussian = network(x)
    predicted = gaussian.std.mean(0)
    residual = (gaussian.mean.mean(0) - y).square()
    order = predicted.argsort(0)
    figure, axes = plt.subplots(figsize=(6.5, 4.6), layout="constrained")
    colours = plt.get_cmap("turbo")(torch.linspace(0.05, 0.95, len(names)).numpy())
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        tenths = order[:, i].tensor_split(BINS)
        said = [predicted[rows, i].square().mean().sqrt().item() for rows in tenths]
        was = [residual[rows, i].mean().sqrt().item() for rows in tenths]
        axes.plot(said, was, color=colour, marker="o", ms=3, lw=0.8, label=name)
    low, high = min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], 1e-6)
    low = max(low, float(predicted.amin()) * 0.5)
    axes.plot([low, high], [low, high], color="#8a8a8a", ls="--", lw=1)
    axes.set(xscale="log", yscale="log", xlabel="predicted deviation", ylabel="actual deviation")
    axes.set_title("noise on held-out episodes, by tenths of the inputs", loc="left", fontsize=10)
    figure.legend(loc="outside right upper", frameon=False, fontsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure
