"""Training curves of the Gaussian toy problem as a figure."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen is needed
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from mbrl_bilevel.sanity.gaussian import NOISE, OFFSET
from mbrl_bilevel.sanity.gaussian_curves import SETTLED_NLL, Curve

COLORS = ("#2a6fbb", "#8a8a8a", "#e07b39", "#b8a11f", "#3f9b52")
STYLES = ("-", "--", "-", ":", "-.")


def training_curves(found: dict[str, Curve]) -> Figure:
    """Mean, variance and NLL per dimension over the updates, one line per objective.

    Grey lines mark the truth: a mean of 6 at x = 0, a variance of 1.25^2, the entropy of the noise.
    """
    figure, (mean, variance, nll) = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    for (name, curve), color, style in zip(found.items(), COLORS, STYLES, strict=True):
        look = {"color": color, "ls": style, "lw": 1.8, "label": name}
        updates = range(1, len(curve.nll) + 1)
        mean.plot(updates, curve.mean.mean(-1), **look)
        variance.plot(updates, curve.covariance.diagonal(dim1=-2, dim2=-1).mean(-1), **look)
        nll.plot(updates, curve.nll, **look)
    truths = (OFFSET, NOISE**2, SETTLED_NLL["nll"])
    for axes, truth in zip((mean, variance, nll), truths, strict=True):
        axes.axhline(truth, color="black", lw=0.8, alpha=0.4, zorder=0, label="truth")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("updates")
    mean.set_title("mean at x = 0", loc="left", fontsize=10)
    variance.set_title("variance, log scale", loc="left", fontsize=10)
    variance.set_yscale("log")
    nll.set_title("held-out NLL per dimension", loc="left", fontsize=10)
    nll.set_ylim(1.5, 3.2)
    figure.legend(
        *nll.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False
    )
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG and frees the figure."""
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
