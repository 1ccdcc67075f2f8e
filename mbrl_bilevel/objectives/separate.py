"""A mean by squared error as the inner level; the outer level learns its noise on other rows."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.separate_noise import SeparateNoiseEnsemble


class SeparateRegression(nn.Module):
    """The mean's squared error; and the likelihood of a noise network, with the mean held still.

    One noise network s(x) for all members is fitted to everybody's residuals on rows that the
    member was not fitted to, while the means train: it ends at the noise of the means as they end,
    for both learning rates fall to a hundredth.

    Raises:
        InputError: a network whose noise has no network of its own.
    """

    name = "separate"
    selects_by: Literal["nll", "mse"] = "mse"

    def __init__(
        self, network: GaussianEnsemble, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.side: Any = self._own(network).side_network(1, generator)

    def forward(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        """Squared error [E], summed over dimensions, as that of `mse`."""
        return (self._own(network).means(x)[0] - y).square().sum(-1).mean(-1), {}

    def outer_loss(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Gaussian NLL of the residuals, the mean held still: to differentiate, and to log."""
        with torch.no_grad():  # a mean that moved here would be fitted to the held-out rows
            error = (self._own(network).means(x)[0] - y).square()
        log_std = self._log_std(x)
        nll = 0.5 * error * torch.exp(-2 * log_std) + log_std + 0.5 * math.log(2 * math.pi)
        loss = nll.sum(-1).mean()
        return loss, loss.detach()

    def bilevel_problem(self, network: GaussianEnsemble) -> BilevelProblem:
        """Not offered: what the side network tells is learned with fitted means held still.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self.name} holds its means still: choose ClosedForm()")

    def frozen_batch(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """The batch as it is: nothing in it is sampled."""
        return x, y

    def warm_start(self, network: GaussianEnsemble) -> None:
        """Goes on from the side network that the model has, where it was fitted before."""
        # The members' side networks are copies of one: the first stands for all.
        mine, theirs = self.side.state_dict(), self._own(network).side.state_dict()
        for name, tensor in mine.items():
            tensor.copy_(theirs[name][:1])

    def calibrate(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"], y: Float[Tensor, "b n"]
    ) -> None:
        """Hands the side network over to the model."""
        self._own(network).adopt(self.side)

    def precision_diagonal(
        self, network: GaussianEnsemble, x: Float[Tensor, "*x b d"]
    ) -> Float[Tensor, "*x b n"]:
        """U_ii(x) = 1 / (2 s_i(x)^2): of the reward that asks for this noise, for lam = 1."""
        return 0.5 * torch.exp(-2 * self._log_std(x))

    def _log_std(self, x: Tensor) -> Tensor:
        return self.side.log_std(rows_of(x)).reshape(*x.shape[:-1], -1)

    def _own(self, network: GaussianEnsemble) -> SeparateNoiseEnsemble:
        if not isinstance(network, SeparateNoiseEnsemble):
            raise InputError(
                f"objective {self.name} needs a model of that kind: build it by new_model, or by "
                "DynamicsModel(..., kind=...)"
            )
        return network


def rows_of(x: Float[Tensor, "*x d"]) -> Float[Tensor, "1 r d"]:
    """Rows of all members at once, for the one network that all share."""
    return x.reshape(1, -1, x.shape[-1])
