"""One-step metrics of an ensemble on real transitions: error, likelihood, calibration."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.evaluation.json_values import finite_or_null
from mbrl_bilevel.models.distributions import Gaussian
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.gaussian import GaussianEnsemble

LEVELS = torch.linspace(0.05, 0.95, 19)  # probability levels at which calibration is measured
CHUNK = 16_384


@dataclass(frozen=True)
class OneStep:
    """Metrics of the mixture of members, in standardised units of the training targets.

    rmse: root of the squared error of the mixture's mean, averaged over dimensions.
    nll: nats per dimension of the mixture. r2: 1 - squared error / variance, pooled.
    ece: mean over levels p and dimensions of |share of targets below the p-quantile - p|.
    sharpness: root of the mixture's mean variance, which is the rmse where the variance is right.
    nll_by_dimension: of each dimension's own mixture; members are drawn for all dimensions at once,
    so that their mean is not the nll. coverage [levels]: the share in ece, averaged over
    dimensions. member_*: averages of single members; member_coverage [e][levels].
    non_finite: rows left out because a member's prediction or likelihood overflowed.
    """

    rmse: float
    nll: float
    r2: float
    ece: float
    sharpness: float
    member_mse: float
    member_nll: float
    member_ece: float
    member_sharpness: float
    rmse_by_dimension: list[float]
    nll_by_dimension: list[float]
    r2_by_dimension: list[float]
    coverage: list[float]
    member_coverage: list[list[float]]
    non_finite: int

    def metrics(self) -> dict[str, Any]:
        """The metrics as JSON; null where a value is not finite."""
        return finite_or_null(vars(self))


@dataclass
class _Sums:
    """What a pass over the rows adds up, in float64."""

    error: Float[Tensor, "n"]
    member_error: Float[Tensor, "n"]
    variance: Float[Tensor, "n"]
    member_variance: Float[Tensor, "n"]
    nll: Float[Tensor, ""]
    member_nll: Float[Tensor, ""]
    dimension_nll: Float[Tensor, "n"]
    below: Float[Tensor, "l n"]
    member_below: Float[Tensor, "l e n"]


@torch.no_grad()
def one_step(
    network: GaussianEnsemble,
    x: Float[Tensor, "b d"],
    y: Float[Tensor, "b n"],
    unit: Float[Tensor, "n"] | None = None,
) -> OneStep:
    """Evaluates the mixture of `network`'s members on standardised inputs and targets.

    `unit` is one standard deviation of the targets in the units of the metrics
    (default: 1 each), so that models that were standardised by different data can be compared.
    """
    unit = torch.ones_like(y[0]) if unit is None else unit
    sums, good = _empty(network, y), []
    for x_chunk, y_chunk in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        good.append(_add(sums, network(x_chunk), y_chunk))
    kept = torch.cat(good)
    return _metrics(sums, y[kept].double(), unit.double(), int((~kept).sum()))


def evaluate_one_step(
    model: DynamicsModel, data: Transitions, unit: Float[Tensor, "n"] | None = None
) -> OneStep:
    """Evaluates the mixture of a model's elites on transitions; `unit` as of `one_step`."""
    return one_step(model.network.select(model.elites), *model.encode(data), unit=unit)


def _empty(network: GaussianEnsemble, y: Float[Tensor, "b n"]) -> _Sums:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=y.device)

    n, levels = y.shape[1], len(LEVELS)
    return _Sums(
        error=zeros(n),
        member_error=zeros(n),
        variance=zeros(n),
        member_variance=zeros(n),
        nll=zeros(),
        member_nll=zeros(),
        dimension_nll=zeros(n),
        below=zeros(levels, n),
        member_below=zeros(levels, network.members, n),
    )


def _add(sums: _Sums, gaussian: Gaussian, y: Float[Tensor, "b n"]) -> Bool[Tensor, "b"]:
    """Adds the rows of a chunk whose predictions and likelihoods are finite, and says which."""
    log_prob = gaussian.log_prob(y)
    good = gaussian.mean.isfinite().all(0).all(-1) & log_prob.isfinite().all(0)
    mean, std = gaussian.mean[:, good].double(), gaussian.std[:, good].double()
    log_prob, y = log_prob[:, good].double(), y[good].double()
    log_members = math.log(len(mean))
    z = (y - mean) / std
    dimension_log_prob = -0.5 * z.square() - std.log() - 0.5 * math.log(2 * math.pi)
    sums.nll -= (log_prob.logsumexp(0) - log_members).sum()
    sums.member_nll -= log_prob.mean(0).sum()
    sums.dimension_nll -= (dimension_log_prob.logsumexp(0) - log_members).sum(0)
    sums.error += (mean.mean(0) - y).square().sum(0)
    sums.member_error += (mean - y).square().mean(0).sum(0)
    spread = (mean - mean.mean(0)).square().mean(0)
    sums.variance += (std.square().mean(0) + spread).sum(0)
    sums.member_variance += std.square().mean(0).sum(0)
    # The distribution function at the target is uniform where a prediction is calibrated.
    cdf = torch.special.ndtr(z)
    levels = LEVELS.to(cdf)
    sums.below += (cdf.mean(0) <= levels.view(-1, 1, 1)).sum(1)
    sums.member_below += (cdf <= levels.view(-1, 1, 1, 1)).sum(2)
    return good


def _metrics(
    sums: _Sums,
    y: Float[Tensor, "b n"],
    unit: Float[Tensor, "n"],
    non_finite: int,
) -> OneStep:
    b, n = y.shape
    square = unit.square()
    mse = square * sums.error / b
    variance = (square * (y - y.mean(0)).square().mean(0)).clamp_min(1e-12)
    coverage, member_coverage = sums.below / b, sums.member_below / b
    levels, log_unit = LEVELS.to(coverage), unit.log()
    return OneStep(
        rmse=mse.mean().sqrt().item(),
        nll=(sums.nll / (b * n) + log_unit.mean()).item(),
        r2=(1 - mse.sum() / variance.sum()).item(),
        ece=(coverage - levels.view(-1, 1)).abs().mean().item(),
        sharpness=(square * sums.variance / b).mean().sqrt().item(),
        member_mse=(square * sums.member_error / b).mean().item(),
        member_nll=(sums.member_nll / (b * n) + log_unit.mean()).item(),
        member_ece=(member_coverage - levels.view(-1, 1, 1)).abs().mean().item(),
        member_sharpness=(square * sums.member_variance / b).mean().sqrt().item(),
        rmse_by_dimension=mse.sqrt().tolist(),
        nll_by_dimension=(sums.dimension_nll / b + log_unit).tolist(),
        r2_by_dimension=(1 - mse / variance).tolist(),
        coverage=coverage.mean(-1).tolist(),
        member_coverage=member_coverage.mean(-1).T.tolist(),
        non_finite=non_finite,
    )
