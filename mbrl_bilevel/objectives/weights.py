"""Weights w(x) > 0 of the data in the inner objective."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.rewards.closed_form import check_entropy_weight
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis


class PrecisionWeights(nn.Module):
    """w(x) = s(x)^(2 b), where s(x)^2 = (lam / 2) / U(x) is the variance the reward asks for.

    With w the gradient of the mean is that of beta-NLL (Seitzer et al. 2022): b = 0 weights data as
    NLL does, b = 1 as plain MSE does. One weight per dimension, [*, B, n], for a diagonal U; one
    per datum, [*, B], for a scalar one; for a full U one per datum from the geometric mean
    det(U)^(1/n). The exponent is a parameter of the outer level, frozen unless `learn`.

    Raises:
        InputError: an exponent that is not finite.
    """

    def __init__(
        self, reward: Mahalanobis, lam: float = 1.0, exponent: float = 0.5, *, learn: bool = False
    ) -> None:
        super().__init__()
        check_entropy_weight(lam)
        value = torch.as_tensor(exponent, dtype=reward.log_diagonal.dtype)
        if not bool(torch.isfinite(value)):
            raise InputError(f"exponent b of the weights {exponent}: must be finite; try 0 to 1")
        # Registered by the objective alone: torch.func.functional_call cannot swap the parameters
        # of a module that stands in two places, and would leave the copies behind.
        self._reward = (reward,)
        self.lam = lam
        self.exponent = nn.Parameter(value, requires_grad=learn)

    @property
    def reward(self) -> Mahalanobis:
        """The reward whose precision gives the weights."""
        return self._reward[0]

    def forward(self, x: Float[Tensor, "*x b d"]) -> Float[Tensor, "*w"]:
        """Weights [*, B] or, for a diagonal U, [*, B, n]."""
        lead = x.shape[:-1]
        if self.reward.form == "diagonal":
            precision = self.reward.precision_diagonal(x).expand(*lead, self.reward.outputs)
        else:
            precision = torch.exp(self.reward.logdet(x) / self.reward.outputs).expand(lead)
        return (0.5 * self.lam / precision) ** self.exponent
