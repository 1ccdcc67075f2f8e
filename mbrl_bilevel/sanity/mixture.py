"""Mixtures of two Gaussians of one number by unbounded parameters."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.models.mixture import Mixture


def mixture(share: float, means: tuple[float, float], deviations: tuple[float, float]) -> Params:
    """p = share N(means[0], .) + (1 - share) N(means[1], .), by unbounded parameters."""
    logit = math.log(share / (1 - share))
    return {
        "logit": torch.tensor(logit, dtype=torch.float64),
        "mean": torch.tensor(means, dtype=torch.float64),
        "log_std": torch.tensor(deviations, dtype=torch.float64).log(),
    }


def distribution(p: Params) -> Mixture:
    """The mixture of these parameters."""
    log_share = torch.stack([p["logit"], -p["logit"]]).mul(0.5).log_softmax(0)
    return Mixture(log_share, p["mean"], p["log_std"])


def energy_score(p: Params, q: Params) -> Float[Tensor, ""]:
    """E|y_hat - y| - E|y_hat - y_hat'| / 2 for y_hat, y_hat' ~ p and y ~ q; least where p = q."""
    model = distribution(p)
    return model.distance(distribution(q)) - 0.5 * model.distance(model)
