"""Two weighted regressions as the inner level; the outer level learns which mean to trust."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.two_means import TwoMeanEnsemble
from mbrl_bilevel.objectives.separate import SeparateRegression, rows_of


class TwoMeanRegression(SeparateRegression):
    """Two weighted least-squares means: -J (theory T2) under U(x), weighted as mse and as nll.

    With U(x) = (lam / 2) s(x)^-2 the weights w(x) = s(x)^(2 b) leave the optimum of an unrestricted
    model where it is, but decide where a limited one spends its capacity: b = 1 where the noise is
    large, b = 0 where it is small. So the first mean is fitted with b = 1 and the second with
    b = 0; the gate g(x), a parameter of the outer level like the reward, learns on held-out data
    per input and dimension which of the two to trust. The model's covariance is the inner optimum
    S = (lam / 2) U(x)^-1 = s(x)^2 itself (theory T3), so lam falls out.

    Raises:
        InputError: a network that has not two means.
    """

    name = "two_means"
    selects_by: Literal["nll", "mse"] = "nll"

    def __init__(
        self,
        network: GaussianEnsemble,
        *,
        exponents: tuple[float, float] = (1.0, 0.0),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(network, generator=generator)
        self.exponents = exponents

    def forward(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        """Sum of both inner losses [E], up to what does not depend on the means, for lam = 1."""
        with torch.no_grad():
            same = x[:1] if x.stride(0) == 0 else x  # members that share a batch share its noise
            variance = torch.exp(2 * self._log_std(same))
        losses = [
            (0.5 * variance ** (b - 1) * (mean - y).square()).sum(-1).mean(-1)
            for b, mean in zip(self.exponents, self._own(network).means(x), strict=True)
        ]
        metrics = {
            f"weighted_error_b{b:g}": loss.detach()
            for b, loss in zip(self.exponents, losses, strict=True)
        }
        # The means share no parameters, so the sum trains each by its own loss.
        return losses[0] + losses[1], metrics

    def outer_loss(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss that moves gate and noise, and the outer NLL of the inner optimum in it.

        The NLL holds the fitted means still (theory T6). The gate's best value at each x minimises
        the squared error there, whatever its weight; so beside the NLL, which hardly weighs noisy
        inputs, it is learned by the squared error in units of the mean variance.
        """
        with torch.no_grad():  # a mean that moved here would be fitted to the held-out rows
            first, second = self._own(network).means(x)
        log_std, gate = self._noise_and_gate(x)
        error = (torch.lerp(second, first, gate) - y).square()
        nll = 0.5 * error * torch.exp(-2 * log_std) + log_std + 0.5 * math.log(2 * math.pi)
        # Detached: else a larger noise would pay for the error in the second term too.
        mean_variance = torch.exp(2 * log_std.detach()).mean((0, 1))
        nll = nll.sum(-1).mean()
        return nll + 0.5 * (error / mean_variance).sum(-1).mean(), nll.detach()

    def _noise_and_gate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_std, gate = self.side.noise_and_gate(rows_of(x))
        return log_std.reshape(*x.shape[:-1], -1), gate.reshape(*x.shape[:-1], -1)

    def _own(self, network: GaussianEnsemble) -> TwoMeanEnsemble:
        if not isinstance(network, TwoMeanEnsemble):
            raise InputError(
                "two weighted regressions need a model of two means: build it by "
                "DynamicsModel(..., kind='two_means')"
            )
        return network
