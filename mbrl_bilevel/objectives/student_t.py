"""A Student-t likelihood as a robust loss; what is predicted is a Gaussian, calibrated."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.distributions import DiagonalGaussian
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.nested_state import State
from mbrl_bilevel.training.held_out import standardized_square
from mbrl_bilevel.training.objective import NothingLearned


class StudentT(NothingLearned):
    r"""-sum_i log t_nu((y_i - mu_i) / s_i) + log s_i, with nu degrees of freedom fixed.

    Large residuals count less for the mean than under a Gaussian: its gradient is
    (nu + 1) z / (nu + z^2) / s in place of z / s. The model stays a Gaussian: at every evaluation
    its deviations are s times one factor per member and dimension, with which the standardised
    errors of held-out rows have mean square 1; the loss goes on from s without it. nu is fixed,
    for what it says of tails is lost in a Gaussian: it only decides from where on a residual is an
    outlier.

    Source: Lange, Little, Taylor 1989 (nu = 4).

    Raises:
        InputError: degrees of freedom that are not above 0; by a call, a full covariance.
    """

    name = "student_t"
    selects_by: Literal["nll", "mse"] = "nll"

    def __init__(self, degrees_of_freedom: float = 4.0) -> None:
        if not degrees_of_freedom > 0:
            raise InputError(f"{degrees_of_freedom} degrees of freedom: choose a number above 0")
        self.nu = degrees_of_freedom
        self.log_factor: Tensor | None = None  # [e, n], of the deviations over s

    def __call__(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        gaussian, nu = network(x), self.nu
        if not isinstance(gaussian, DiagonalGaussian):
            raise InputError("student_t is for --covariance diagonal only; use nll for full")
        log_s = gaussian.log_std
        if self.log_factor is not None:
            log_s = log_s - self.log_factor.unsqueeze(1)
        z = (y - gaussian.mean) * torch.exp(-log_s)
        constant = (
            math.lgamma(0.5 * nu) - math.lgamma(0.5 * (nu + 1)) + 0.5 * math.log(math.pi * nu)
        )
        loss = 0.5 * (nu + 1) * torch.log1p(z.square() / nu) + log_s + constant
        return loss.sum(-1).mean(-1), {}

    @torch.no_grad()
    def calibrate(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"], y: Float[Tensor, "b n"]
    ) -> None:
        factor = standardized_square(network, x, y).sqrt().clamp(1e-3, 1e3)
        network.widen_std(factor)
        old = 0.0 if self.log_factor is None else self.log_factor
        self.log_factor = old + factor.log()

    def state(self) -> State:
        return {} if self.log_factor is None else {"log_factor": self.log_factor}

    def load_state(self, state: State) -> None:
        self.log_factor = state.get("log_factor")
