"""A network in training as a bilevel problem, with the Fisher matrix of its outputs."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.models.distributions import DiagonalGaussian, Gaussian
from mbrl_bilevel.models.gaussian import GaussianEnsemble

InnerData = tuple[Tensor, Tensor, Tensor | None]  # x, y, and the noise of sampled estimators


def training_problem(
    network: GaussianEnsemble,
    inner: nn.Module,
    *,
    lam: float | Tensor,
    weights: Callable[[Tensor], Tensor] | None = None,
) -> BilevelProblem:
    """The bilevel problem of a network: inner loss -J per member, outer NLL summed over members.

    Inner data are (x, y, noise or None), outer data (x, y) or (x, y, weights [E, B] of rows);
    x [E, B, d] and y [E, B, n].

    Args:
        inner: gives -J [E] and metrics from a distribution, x, y and `noise`.
        lam, weights: of J, see `fisher_metric`.
    """

    def loss_of(gaussian: Gaussian, phi: Params, data: InnerData) -> Float[Tensor, "e"]:
        x, y, noise = data
        return functional_call(inner, phi, (gaussian, x, y), {"noise": noise}, strict=False)[0]

    def inner_loss(theta: Params, phi: Params, data: InnerData) -> Float[Tensor, "e"]:
        return loss_of(functional_call(network, theta, (data[0],)), phi, data)

    def outer_loss(theta: Params, phi: Params, data: tuple[Tensor, ...]) -> Float[Tensor, ""]:
        x, y, *weight = data
        log_prob: Tensor = functional_call(network, theta, (x,)).log_prob(y)
        # Summed over members: each has a linear system of its own, on the scale of its own loss.
        return -(weight[0] * log_prob if weight else log_prob).mean(-1).sum()

    if network.covariance == "full":  # its factor has no fixed-size output: Hessian products only
        return BilevelProblem(inner_loss, outer_loss, ensemble=True)

    def outputs(theta: Params, data: InnerData) -> Float[Tensor, "e b k"]:
        gaussian = functional_call(network, theta, (data[0],))
        # In these coordinates the Fisher information of a diagonal Gaussian is diagonal.
        return torch.cat([gaussian.mean, gaussian.log_std], -1)

    def output_loss(output: Float[Tensor, "e b k"], phi: Params, data: InnerData) -> Tensor:
        mean, log_std = output.chunk(2, -1)
        return loss_of(DiagonalGaussian(mean, log_std), phi, data)

    metric = fisher_metric(lam, weights)
    return BilevelProblem(inner_loss, outer_loss, True, outputs, output_loss, metric)


def fisher_metric(
    lam: float | Tensor, weights: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Float[Tensor, "e b k"], Params, InnerData], Float[Tensor, "e b k k"]]:
    """lam w times the Fisher information of a diagonal Gaussian by (mean, log_std), over the batch.

    At the inner optimum S = (lam / 2) U^-1 it is the Hessian of the exact inner loss by the outputs
    (theory T8), and it needs no second derivative of a sampled reward.
    """

    def metric(
        output: Float[Tensor, "e b k"], phi: Params, data: InnerData
    ) -> Float[Tensor, "e b k k"]:
        log_std = output.chunk(2, -1)[1]
        # The expected squares of the scores: 1 / s^2 by a mean, 2 by a log s.
        information = torch.cat([torch.exp(-2 * log_std), torch.full_like(log_std, 2.0)], -1)
        if weights is not None:
            # Detached: nothing is differentiated through a metric.
            weight = weights(data[0]).detach()
            if weight.ndim == log_std.ndim:
                # A dimension's weight counts for its mean and for its log s.
                weight = torch.cat([weight, weight], -1)
            else:
                weight = weight.unsqueeze(-1)
            information = weight * information
        return torch.diag_embed(lam * information / output.shape[-2])

    return metric
