"""Mixtures of two Gaussians of one number: likelihood, entropy, energy score, samples."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.bilevel.parameters import Params

Grid = Float[Tensor, "q"]


def mixture(share: float, means: tuple[float, float], deviations: tuple[float, float]) -> Params:
    """p = share N(means[0], .) + (1 - share) N(means[1], .), by unbounded parameters."""
    logit = math.log(share / (1 - share))
    return {
        "logit": torch.tensor(logit, dtype=torch.float64),
        "mean": torch.tensor(means, dtype=torch.float64),
        "log_std": torch.tensor(deviations, dtype=torch.float64).log(),
    }


def log_shares(p: Params) -> Float[Tensor, "2"]:
    """Logarithms of the components' shares."""
    return torch.stack([p["logit"], -p["logit"]]).mul(0.5).log_softmax(0)


def log_prob(p: Params, y: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """log p(y)."""
    z = (y.unsqueeze(-1) - p["mean"]) * torch.exp(-p["log_std"])
    each = -0.5 * z.square() - p["log_std"] - 0.5 * math.log(2 * math.pi)
    return (log_shares(p) + each).logsumexp(-1)


def mean_and_variance(p: Params) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """E[y] and Var[y]."""
    shares = log_shares(p).exp()
    mean = (shares * p["mean"]).sum()
    square = (shares * (p["mean"].square() + (2 * p["log_std"]).exp())).sum()
    return mean, square - mean.square()


def energy_score(p: Params, q: Params) -> Float[Tensor, ""]:
    """E|y_hat - y| - E|y_hat - y_hat'| / 2 for y_hat, y_hat' ~ p and y ~ q; least where p = q.

    In closed form (Grimit et al. 2006, eq. 6, averaged over y): a difference of Gaussians is one.
    """
    return _distance(p, q) - 0.5 * _distance(p, p)


def _distance(p: Params, q: Params) -> Float[Tensor, ""]:
    """E|a - b| for independent a ~ p and b ~ q."""
    shift = p["mean"].unsqueeze(1) - q["mean"]
    std = ((2 * p["log_std"]).exp().unsqueeze(1) + (2 * q["log_std"]).exp()).sqrt()
    z = shift / std
    # E|N(m, s^2)| = m (2 Phi(m / s) - 1) + 2 s phi(m / s), 2 Phi(z) - 1 = erf(z / sqrt 2)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    each = shift * torch.erf(z / math.sqrt(2)) + 2 * std * density
    shares = (log_shares(p).unsqueeze(1) + log_shares(q)).exp()
    return (shares * each).sum()


@torch.no_grad()
def sample(p: Params, count: int, generator: torch.Generator) -> Float[Tensor, "g"]:
    """Draws of p, held fixed."""
    u = torch.rand(count, generator=generator, dtype=torch.float64)
    component = (u >= log_shares(p)[0].exp()).long()
    noise = torch.randn(count, generator=generator, dtype=torch.float64)
    return p["mean"][component] + p["log_std"].exp()[component] * noise
