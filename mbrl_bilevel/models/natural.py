"""An ensemble whose heads are the natural parameters of its Gaussians."""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.distributions import DiagonalGaussian, Gaussian
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.settings import NetworkKind


class NaturalEnsemble(GaussianEnsemble):
    """Heads are eta1 = mu / s^2 and log s, with eta2 = -1 / (2 s^2); mu = eta1 s^2 is predicted.

    The log-likelihood is concave in (eta1, eta2), where in (mu, log s) it is not, and the gradient
    of eta1 is the plain residual mu - y (Le et al. 2005; Immer et al. 2023, section 3). The
    deviation has the bounds of every other network, and eta2 the exponential link of Immer et al.
    """

    kind: ClassVar[NetworkKind] = "natural"

    def _build(self, generator: torch.Generator | None) -> None:
        if self.covariance != "diagonal":
            raise InputError(
                "natural parameters go with a diagonal covariance; choose another objective for a "
                "full one, such as nll"
            )
        super()._build(generator)

    def _distribution(self, out: Float[Tensor, "e b h"]) -> Gaussian:
        gaussian = super()._distribution(out)  # whose mean is eta1 as yet
        assert isinstance(gaussian, DiagonalGaussian)
        learned = gaussian.log_std - self._predicted(self.recalibration)
        return DiagonalGaussian(gaussian.mean * torch.exp(2 * learned), gaussian.log_std)

    def hold_std(self, targets: Int[Tensor, "k"]) -> None:
        """Not offered for any target, for a mean in units of the variance would move with it.

        Raises:
            InputError: there are targets to hold.
        """
        if len(targets):
            raise InputError(
                "natural parameters have no deviation that is the same for every input, which "
                f"sparse targets need ({len(targets)} here); choose another objective, such as nll"
            )
        super().hold_std(targets)
