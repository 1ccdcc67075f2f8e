"""Training by likelihood and its kin: nll, beta_nll and mse."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.distributions import DiagonalGaussian
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.training.objective import NothingLearned

MANY = 0.1  # of the targets: fewer that are held do not decide what hidden layers learn
NOISE_SHARE = 1e-3  # of the noise's gradient, beside sparse targets


class NLL(NothingLearned):
    r"""Maximum likelihood: -log p(y | x), summed over dimensions.

    Where a tenth of the targets or more are sparse (`GaussianEnsemble.hold_std`), a row in which
    they move has a large predicted noise in all others too: their means count for nothing there,
    and the gradients of their noise leave hidden layers little else to follow. A diagonal model is
    then trained in two parts, whose optimum an unrestricted model has in common with the sum:

        sum_d (y_d - mu_d)^2 / (2 mean_b s_d^2) + NLL of y under N(sg(mu), s^2),

    sg and mean_b s^2 held still. The gradient of the second part is taken NOISE_SHARE times: hidden
    layers follow the means, and to Adam the scale of the noise heads' own gradient is all the same.
    """

    name = "nll"
    selects_by: Literal["nll", "mse"] = "nll"

    def __call__(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        gaussian = network(x)
        if network.held_share >= MANY and isinstance(gaussian, DiagonalGaussian):
            return _in_two_parts(gaussian, y).mean(-1), {}
        return -gaussian.log_prob(y).mean(-1), {}


def _in_two_parts(gaussian: DiagonalGaussian, y: Float[Tensor, "e b n"]) -> Float[Tensor, "e b"]:
    still = gaussian.log_std.detach()
    # The same value; only the gradient is taken NOISE_SHARE times.
    log_std = still + NOISE_SHARE * (gaussian.log_std - still)
    noise = -DiagonalGaussian(gaussian.mean.detach(), log_std).log_prob(y)
    # One per dimension for all rows: a noisy row keeps its say in what the means learn.
    variance = torch.exp(2 * still).mean(-2, keepdim=True)
    return 0.5 * ((y - gaussian.mean).square() / variance).sum(-1) + noise


class BetaNLL(NLL):
    """NLL with every dimension weighted by its detached variance^beta (Seitzer et al. 2022, eq. 5).

    beta = 0 is NLL; beta = 1 gives the mean the gradient of plain MSE. Diagonal models only.
    """

    name = "beta_nll"

    def __init__(self, beta: float = 0.5) -> None:
        if not 0.0 <= beta <= 1.0:
            raise InputError(f"beta {beta} of beta_nll: choose a value from 0 (NLL) to 1 (MSE)")
        self.beta = beta

    def __call__(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        gaussian = network(x)
        if not isinstance(gaussian, DiagonalGaussian):
            raise InputError("beta_nll is defined for --covariance diagonal only; use nll for full")
        # Detached: the minimum of the product over s is not the deviation of the residuals.
        weight = torch.exp(2 * self.beta * gaussian.log_std.detach())
        return -(weight * gaussian.log_density(y)).sum(-1).mean(-1), {}


class MSE(NothingLearned):
    """Squared error of the mean, summed over dimensions; the noise is plugged in.

    `calibrate` sets every member's deviation, the same for every input, to that of its held-out
    residuals: the honest likelihood of a model that was trained for its mean alone.
    """

    name = "mse"
    selects_by: Literal["nll", "mse"] = "mse"

    def __call__(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        return (network(x).mean - y).square().sum(-1).mean(-1), {}

    @torch.no_grad()
    def calibrate(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"], y: Float[Tensor, "b n"]
    ) -> None:
        # Not centred: what the mean gets wrong counts as noise (theory T4).
        network.set_std((network(x).mean - y).square().mean(-2).sqrt())
