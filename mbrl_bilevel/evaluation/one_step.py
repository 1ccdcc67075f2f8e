"""One-step figures of an ensemble on real transitions: error, likelihood, calibration."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.models.gaussian import GaussianEnsemble

LEVELS = torch.linspace(0.05, 0.95, 19)  # probability levels at which calibration is judged
CHUNK = 16_384


@dataclass(frozen=True)
class OneStep:
    """Figures of the mixture of members, in standardised units of the training targets.

    rmse: root of the squared error of the mixture's mean, averaged over dimensions.
    nll: nats per dimension of the mixture. r2: 1 - squared error / variance, pooled.
    ece: mean over levels p and dimensions of |share of targets below the p-quantile - p|.
    coverage [levels]: that share, averaged over dimensions. member_*: averages of single members.
    """

    rmse: float
    nll: float
    r2: float
    ece: float
    member_mse: float
    member_nll: float
    rmse_by_dimension: list[float]
    r2_by_dimension: list[float]
    coverage: list[float]

    def figures(self) -> dict[str, Any]:
        """The figures as JSON."""
        return dict(vars(self))


@torch.no_grad()
def one_step(
    network: GaussianEnsemble, x: Float[Tensor, "b d"], y: Float[Tensor, "b n"]
) -> OneStep:
    """Judges the mixture of `network`'s members on standardised inputs and targets."""
    b, n = y.shape
    levels = LEVELS.to(x)
    squared_error, member_error = x.new_zeros(n), x.new_zeros(())
    nll, member_nll = x.new_zeros(()), x.new_zeros(())
    below = x.new_zeros(len(levels), n)
    for x_chunk, y_chunk in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        gaussian = network(x_chunk)
        log_prob = gaussian.log_prob(y_chunk)
        nll -= (log_prob.logsumexp(0) - math.log(network.members)).sum()
        member_nll -= log_prob.mean(0).sum()
        squared_error += (gaussian.mean.mean(0) - y_chunk).square().sum(0)
        member_error += (gaussian.mean - y_chunk).square().sum() / network.members
        # The mixture's distribution function at the target is uniform where it is calibrated.
        cdf = torch.special.ndtr((y_chunk - gaussian.mean) / gaussian.std).mean(0)
        below += (cdf <= levels.view(-1, 1, 1)).sum(1)
    mse, coverage = squared_error / b, below / b
    variance = y.var(0, correction=0).clamp_min(1e-12)
    return OneStep(
        rmse=mse.mean().sqrt().item(),
        nll=(nll / (b * n)).item(),
        r2=(1 - mse.sum() / variance.sum()).item(),
        ece=(coverage - levels.unsqueeze(-1)).abs().mean().item(),
        member_mse=(member_error / (b * n)).item(),
        member_nll=(member_nll / (b * n)).item(),
        rmse_by_dimension=mse.sqrt().tolist(),
        r2_by_dimension=(1 - mse / variance).tolist(),
        coverage=coverage.mean(-1).tolist(),
    )
