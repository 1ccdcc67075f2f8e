"""Faithful heteroscedastic regression: the mean of squared error, and a noise that follows it."""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.training.objective import NothingLearned


class Faithful(NothingLearned):
    r"""|mu - y|^2 - log N(y; sg(mu), S), S read from sg(features); sums over dimensions.

    sg holds a value still, so that mean and hidden layers are those of `mse`, step by step, as
    long as no gradient is clipped; selected by squared error, they are so at the end as well. In
    the words of theory T2 it is U = I for the mean, and a covariance fitted to training residuals.

    Source: Stirn et al. 2023, section 3.
    """

    name = "faithful"
    selects_by: Literal["nll", "mse"] = "mse"

    def __call__(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        gaussian = network.with_noise_apart(x)
        error = (gaussian.mean - y).square().sum(-1)
        noise = -replace(gaussian, mean=gaussian.mean.detach()).log_prob(y)
        return (error + noise).mean(-1), {}
