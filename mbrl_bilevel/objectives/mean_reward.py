"""A mean by weighted squared error as the inner level; the outer level learns the weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.outer_objectives import OuterObjective
from mbrl_bilevel.training.objective import NothingLearned

Rows = tuple[Float[Tensor, "e b d"], Float[Tensor, "e b n"]]


class MeanReward(nn.Module, NothingLearned):
    r"""sum_i u_i (mu_i - y_i)^2 - log N(y; sg(mu), S), S read from sg(features).

    The first part is the policy gradient of the mean under a Mahalanobis reward U = diag(u), the
    same for all members; the second is the noise of `Faithful`, which u = 1 is. u = n softmax(phi)
    sums to n, so that it cannot change the learning rate. The outer loss reads the mean alone, so
    the problem leaves the noise out: its parameters have no part in the linear system (theory T10).

    Args:
        targets: n, that the network predicts.
        outer: the loss by which u is learned.

    Raises:
        InputError: a single target.
    """

    name = "mean"
    selects_by: Literal["nll", "mse"] = "mse"

    def __init__(self, targets: int, outer: OuterObjective) -> None:
        super().__init__()
        if targets < 2:
            raise InputError(
                "--reward mean weighs targets against one another, and the model predicts one: "
                "choose --objective faithful"
            )
        self.outer = outer
        self.log_weight = nn.Parameter(torch.zeros(targets))

    def forward(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        """Loss [E], summed over dimensions, as that of `Faithful`."""
        gaussian = network.with_noise_apart(x)
        error = weighted_error(gaussian.mean, y, weights(self.log_weight.detach()))
        noise = -replace(gaussian, mean=gaussian.mean.detach()).log_prob(y).mean(-1)
        return error + noise, {}

    def outer_loss(
        self, network: GaussianEnsemble, x: Float[Tensor, "e b d"], y: Float[Tensor, "e b n"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Not offered: with the mean held still, u has nothing to be learned by.

        Raises:
            InputError: always.
        """
        raise InputError("weights of the mean have no closed form: choose HypergradientStep")

    def bilevel_problem(self, network: nn.Module) -> BilevelProblem:
        """The error of the mean alone, and its Hessian by the means, which is diag(2 u / b)."""

        def mean_of(theta: Params) -> Callable[[Tensor], Tensor]:
            return lambda x: functional_call(network, theta, (x,)).mean

        def outputs(theta: Params, data: Rows) -> Float[Tensor, "e b n"]:
            return mean_of(theta)(data[0])

        def output_loss(mean: Tensor, phi: Params, data: Rows) -> Float[Tensor, "e"]:
            return weighted_error(mean, data[1], weights(phi["log_weight"]))

        def inner_loss(theta: Params, phi: Params, data: Rows) -> Float[Tensor, "e"]:
            return output_loss(outputs(theta, data), phi, data)

        def outer_loss(theta: Params, phi: Params, data: object) -> Float[Tensor, ""]:
            return self.outer(mean_of(theta), data)

        def metric(mean: Tensor, phi: Params, data: Rows) -> Float[Tensor, "e b n n"]:
            each = 2 * weights(phi["log_weight"]) / mean.shape[-2]
            return torch.diag_embed(each.expand_as(mean))

        return BilevelProblem(inner_loss, outer_loss, True, outputs, output_loss, metric)

    def frozen_batch(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
    ) -> Rows:
        """The batch as it is: nothing in it is sampled."""
        return x, y

    def precision_diagonal(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b n"]:
        """u for every row, to look at."""
        return weights(self.log_weight).expand(len(x), -1)


def weights(log_weight: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """u = n softmax(log_weight): positive, 1 in the mean."""
    return len(log_weight) * log_weight.softmax(0)


def weighted_error(
    mean: Float[Tensor, "e b n"], y: Float[Tensor, "e b n"], u: Float[Tensor, "n"]
) -> Float[Tensor, "e"]:
    """Mean over the batch of sum_i u_i (mu_i - y_i)^2."""
    return (u * (mean - y).square()).sum(-1).mean(-1)
